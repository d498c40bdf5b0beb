"""Caltech-101 in small pictures but with all its folders: reading it, what is missing, and torchvision's download."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from archives import jpeg
from PIL import Image
from torch import nn
from torchvision.datasets import Caltech101, utils

import zflib
from zflib import data
from zflib.data import caltech_101

NAMES = sorted(["Faces", "Faces_easy", *(f"thing_{i:02d}" for i in range(99))])
PICTURE = jpeg(90, size=(40, 30))


def write(folder: Path) -> Path:
    """31 images of each class, 33 of Faces, and the folder that is none."""
    for name in [*NAMES, "BACKGROUND_Google"]:
        (folder / name).mkdir(parents=True)
        for number in range(1, 34 if name == "Faces" else 32):
            (folder / name / f"image_{number:04d}.jpg").write_bytes(PICTURE)
    (folder / "BACKGROUND_Google" / "tmp").write_bytes(b"")  # as in the real one
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """What every test may read."""
    return write(tmp_path_factory.mktemp("set") / "caltech101" / "101_ObjectCategories")


@pytest.fixture
def mine(tmp_path) -> Path:
    """What a test may damage."""
    return write(tmp_path / "101_ObjectCategories")


def refused(error, root, **options) -> str:
    with pytest.raises(error) as caught:
        data.caltech101(root, **options)
    text = str(caught.value)
    assert type(caught.value) is error and "\n" not in text
    return text


def test_the_same_as_torchvision(whole):
    paths, labels, classes = data.caltech101(whole.parent.parent)
    theirs = Caltech101(whole.parent.parent)
    assert classes == theirs.categories == NAMES and labels.dtype == torch.int64
    assert labels.tolist() == theirs.y and len(paths) == 101 * 31 + 2
    assert [int(path.stem[-4:]) for path in paths] == theirs.index
    assert all(path.parent.name == classes[label] for path, label in zip(paths, labels.tolist()))


def test_every_layout(whole, tmp_path):
    expected = data.caltech101(whole.parent.parent)[0]
    (tmp_path / "caltech-101").symlink_to(whole.parent)
    for root in (whole.parent, whole, str(whole), tmp_path, os.path.relpath(whole)):
        paths = data.caltech101(root)[0]
        assert [path.resolve() for path in paths] == expected


def test_peaks_are_found_in_it_and_a_damaged_jpeg_is_named(mine):
    Image.new("RGB", (60, 45), (250, 250, 250)).save(mine / NAMES[2] / "image_0004.jpg")
    broken = mine / NAMES[1] / "image_0002.jpg"
    broken.write_bytes(PICTURE[:200])
    paths, labels, _ = data.caltech101(mine)
    net = nn.Sequential(nn.Conv2d(3, 1, 1))
    nn.init.ones_(net[0].weight)

    def preprocess(picture):
        return torch.full((3, 2, 2), float(picture.getpixel((0, 0))[0]))

    with pytest.warns(UserWarning, match=r"image_0002\.jpg is damaged or cut short"):
        found = zflib.find_peaks(net, paths, layers=["0"], k=1, preprocess=preprocess)
    brightest = int(found["0"].images[0, 0])
    assert paths[brightest].name == "image_0004.jpg" and int(labels[brightest]) == 2
    assert [skipped.name for skipped in found.skipped] == [str(broken)]
    with pytest.raises(ValueError, match=r"image_0002\.jpg is damaged"):
        data.open_image(broken)


def test_a_half_unpacked_folder_is_noticed(mine, tmp_path):
    victim = mine / "thing_05"
    (victim / "image_0031.jpg").unlink()
    assert "holds 30 images of thing_05 instead of at least 31, without gaps" in refused(FileNotFoundError, tmp_path)
    (mine / "Faces" / "image_0007.jpg").unlink()  # 32 are left, the last one is number 33
    assert "holds 32 images of Faces instead of" in refused(FileNotFoundError, tmp_path)
    for path in victim.iterdir():
        path.unlink()
    (mine / "Faces" / "image_0007.jpg").write_bytes(PICTURE)
    assert "holds 0 images of thing_05" in refused(FileNotFoundError, tmp_path, download=True)
    victim.rmdir()
    assert "holds 100 of Caltech-101's 101 classes; it was not unpacked whole" in refused(FileNotFoundError, tmp_path)


def test_a_folder_without_it_says_where_it_goes(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        text = refused(FileNotFoundError, root)
        assert f"no Caltech-101 in {root}; unpack yours to {root / 'caltech101' / '101_ObjectCategories'}" in text
    assert not list(tmp_path.iterdir())


def test_no_network_is_one_sentence_with_the_way_around(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    text = refused(ConnectionError, tmp_path, download=True)
    place = tmp_path / "caltech101" / "101_ObjectCategories"
    assert f"unpack its 101_ObjectCategories to {place}" in text and caltech_101.URL in text
    assert not list((tmp_path / "caltech101").iterdir())


class Response(io.BytesIO):
    """What `urlopen` gives."""

    url = caltech_101.URL
    length = None


def archive(folder: Path) -> bytes:
    """The official zip: a folder with the images as .tar.gz inside."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        tar.add(folder, "101_ObjectCategories")
    with zipfile.ZipFile(outer, "w") as file:
        file.writestr("caltech-101/101_ObjectCategories.tar.gz", inner.getvalue())
    return outer.getvalue()


def test_the_download_is_torchvisions_and_whole_or_not_at_all(whole, tmp_path, monkeypatch):
    content = archive(whole)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response(content))
    got = hashlib.md5(content).hexdigest()
    assert f"md5 sum {got} instead of {caltech_101.MD5}" in refused(ValueError, tmp_path, download=True)
    assert not list((tmp_path / "caltech101").iterdir())

    sums = []
    monkeypatch.setattr(utils, "check_md5", lambda path, md5, **_: sums.append(md5) or True)
    paths, labels, classes = data.caltech101(tmp_path, download=True)
    assert (len(paths), len(labels), classes) == (101 * 31 + 2, 101 * 31 + 2, NAMES) and set(sums) == {caltech_101.MD5}
    assert [path.name for path in (tmp_path / "caltech101").iterdir()] == ["101_ObjectCategories"]

    monkeypatch.setattr(urllib.request, "urlopen", None)  # what is there is not fetched again
    assert data.caltech101(tmp_path, download=True)[0] == paths


def test_credit():
    credit = data.credit("caltech101")
    assert "CC BY 4.0" in credit and "2022" in credit and "2004" in credit
    with pytest.raises(ValueError, match="'nothing' is not a photograph"):
        data.credit("nothing")
