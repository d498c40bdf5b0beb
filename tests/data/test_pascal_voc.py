"""PASCAL VOC in the real format: four photographs with their XML; what is missing; the precision of Table 6."""

from __future__ import annotations

import io
import shutil
import tarfile
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from archives import jpeg
from sklearn.metrics import average_precision_score
from torchvision.datasets import VOCDetection, utils

from zflib import data, experiments

#: photograph -> what is marked in it; a "?" behind a name: difficult.
MARKED = {"2008_1": ["dog", "person", "dog?"], "2008_2": ["car?"], "2008_3": [], "2009_4": ["tvmonitor"]}
OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{hard}</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>"""


def annotation(name: str) -> str:
    things = "".join(OBJECT.format(name=n.rstrip("?"), hard=int(n.endswith("?"))) for n in MARKED[name])
    return f"<annotation><folder>VOC2012</folder><filename>{name}.jpg</filename>{things}</annotation>"


@pytest.fixture
def root(tmp_path) -> Path:
    home = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (home / folder).mkdir(parents=True)
    for name in MARKED:
        (home / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(90))
        (home / "Annotations" / f"{name}.xml").write_text(annotation(name))
    (home / "ImageSets" / "Main" / "train.txt").write_text("2008_1\n2008_2\n2008_3\n")
    (home / "ImageSets" / "Main" / "val.txt").write_text("2009_4\n")
    return tmp_path


def test_labels_are_what_torchvision_reads(root):
    paths, labels, classes = data.pascal(root)
    voc = VOCDetection(root, "2012", "train")
    assert [str(path) for path in paths] == voc.images and labels.shape == (3, 20) and len(set(classes)) == 20
    for row, (_, target) in zip(labels, voc):
        shown = {thing["name"] for thing in target["annotation"]["object"] if thing["difficult"] == "0"}
        assert {classes[i] for i in (row == 1).nonzero().flatten()} == shown
    assert labels[1, classes.index("car")] == 0 and int((labels == 0).sum()) == 1  # nothing but difficult ones
    assert data.pascal(root, "val")[1][0, classes.index("tvmonitor")] == 1


@pytest.mark.parametrize("missing, message", [
    ("VOCdevkit", "there is no PASCAL VOC 2012 in .*; unpack yours to .*VOC2012, or download=True to fetch 2 GB"),
    ("VOCdevkit/VOC2012/ImageSets/Main/train.txt", "lacks .*train.txt; it was not unpacked whole"),
    ("VOCdevkit/VOC2012/Annotations/2008_2.xml", "lacks .*2008_2.xml; it was not unpacked whole"),
    ("VOCdevkit/VOC2012/JPEGImages/2008_3.jpg", "lacks .*2008_3.jpg; it was not unpacked whole"),
])  # fmt: skip
def test_what_is_missing_is_named(root, missing, message):
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        data.pascal(root)


def test_another_class_and_another_split_are_refused(root):
    with pytest.raises(ValueError, match="split must be one of 'train', 'val', 'trainval', got 'test'"):
        data.pascal(root, "test")
    (root / "VOCdevkit/VOC2012/Annotations/2008_3.xml").write_text(annotation("2008_1").replace(">dog<", ">wolf<"))
    with pytest.raises(ValueError, match=r"2008_3\.xml names 'wolf', which is none of PASCAL's classes"):
        data.pascal(root)


def test_no_network_is_one_sentence_with_the_way_around(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(ConnectionError, match=r"VOCtrainval_11-May-2012.tar to .*; scenes and photos need no download"):
        data.pascal(tmp_path / "new", download=True)
    assert not list((tmp_path / "new" / "VOCdevkit").iterdir())


class Response(io.BytesIO):
    """What `urlopen` gives."""

    url, length = "https://thor.robots.ox.ac.uk/", None


def test_the_download_is_torchvisions_and_whole_or_not_at_all(root, tmp_path, monkeypatch):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(root / "VOCdevkit", "VOCdevkit")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response(content.getvalue()))
    target = tmp_path / "fetched"
    with pytest.raises(ValueError, match="has not the md5 sum that torchvision knows"):
        data.pascal(target, download=True)
    assert not list((target / "VOCdevkit").iterdir())
    monkeypatch.setattr(utils, "check_md5", lambda *_, **__: True)
    assert torch.equal(data.pascal(target, download=True)[1], data.pascal(root)[1])
    monkeypatch.setattr(urllib.request, "urlopen", None)  # what is there is not fetched again
    assert len(data.pascal(target, download=True)[0]) == 3


def test_average_precision_is_that_of_ranks():
    """Scores by hand: a feature that is the truth ranks perfectly, noise as scikit-learn says of the same scores."""
    generator = torch.Generator().manual_seed(0)
    known, wanted = (torch.where(torch.rand(60, 3, generator=generator) < 0.3, 1, -1) for _ in range(2))
    known[:10, 1], wanted[:10, 1] = 0, 0  # difficult: not asked
    known[:, 2] = -1  # never shown
    noise = torch.randn(2, 60, 4, generator=generator)
    train, test = noise + 3 * torch.stack([known[:, :1], wanted[:, :1]])
    found = experiments.average_precision(train, known, test, wanted)
    assert found[0] == 1 and found[2].isnan()
    ridge = experiments.transfer_learning.fit_linear(train[10:], known[10:, 1])
    scores = ridge.decision_function(test[10:].numpy())
    assert found[1] == pytest.approx(average_precision_score(wanted[10:, 1] == 1, scores), abs=1e-6)
