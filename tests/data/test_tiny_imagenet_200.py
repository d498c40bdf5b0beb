"""Tiny ImageNet in small: reading it, its cache, and the way from the official zip to the folder."""

import hashlib
import http.server
import json
import socket
import threading
from functools import partial

import numpy as np
import pytest
import torch
from archives import jpeg, tiny_files, zipped
from PIL import Image

import zflib
from zflib import data
from zflib.data import tiny_imagenet_200
from zflib.train.__main__ import main

FILES = tiny_files()
ZIP = zipped(FILES)
SUM = hashlib.md5(ZIP).hexdigest()
CACHES = ["train-pixels.npy", "val-pixels.npy"]


def unpack(folder, files=FILES):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path):
    return unpack(tmp_path / "tiny")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def official(tmp_path_factory, monkeypatch):
    """The small zip in place of the official one, on a server of this machine."""
    path = tmp_path_factory.mktemp("server") / "tiny-imagenet-200.zip"
    path.write_bytes(ZIP)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=path.parent))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(tiny_imagenet_200, "URL", f"http://127.0.0.1:{server.server_port}/{path.name}")
    monkeypatch.setattr(tiny_imagenet_200, "MD5", SUM)
    yield path
    server.shutdown()
    server.server_close()
    thread.join()


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert type(caught.value) is error and "\n" not in text
    return text


def check_splits(root, **options):
    images, labels, wnids = data.tiny_imagenet(root, "train", **options)
    assert images.shape == (6, 3, 64, 64) and images.dtype == np.uint8 and isinstance(images, np.memmap)
    assert wnids == ["n01", "n02"] and labels.tolist() == [0, 0, 0, 1, 1, 1] and labels.dtype == torch.int64
    assert np.abs(images[:, 0, 0, 0].astype(int) - [160, 200, 240, 40, 80, 120]).max() <= 2
    images, labels, _ = data.tiny_imagenet(str(root), "val", **options)
    assert images.shape == (3, 3, 64, 64) and labels.tolist() == [1, 0, 1]
    assert np.abs(images[1, :, 5, 5].astype(int) - 11).max() <= 2
    assert data.class_names(root, wnids) == ["goldfish", "bullfrog"]


# --- reading the folder


def test_both_splits(folder):
    check_splits(folder)
    assert files_below(folder) == sorted([*FILES, *CACHES])


def test_colours_keep_their_order(folder):
    colour = Image.new("RGB", (64, 64), (200, 100, 50))
    colour.save(folder / "val" / "images" / "val_1.JPEG", quality=95)
    images = data.tiny_imagenet(folder, "val")[0]
    assert np.abs(images[1, :, 30, 30].astype(int) - [200, 100, 50]).max() <= 3


def test_cache_is_used_and_rebuilt_when_it_does_not_fit(folder):
    cache = folder / "train-pixels.npy"
    expected = np.array(data.tiny_imagenet(folder)[0])
    marked = expected.copy()
    marked[0] = 7
    np.save(cache, marked)
    assert np.array_equal(data.tiny_imagenet(folder)[0], marked), "a cache that fits is used as it is"
    whole = cache.read_bytes()
    for content in (expected[:5], expected.astype(np.int64), whole[:2000], b""):
        if isinstance(content, bytes):
            cache.write_bytes(content)
        else:
            np.save(cache, content)
        found = data.tiny_imagenet(folder)[0]
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_interrupted_decoding_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(tiny_imagenet_200, "open_image", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        data.tiny_imagenet(folder)
    assert files_below(folder) == sorted(FILES)


def test_damaged_images_are_named(folder):
    victim = folder / "train" / "n01" / "images" / "n01_1.JPEG"
    victim.write_bytes(victim.read_bytes()[:300])
    assert str(victim) in message(ValueError, data.tiny_imagenet, folder)
    victim.write_bytes(jpeg(0, size=(32, 64)))
    assert f"{victim} must have 64x64 pixels, got 32x64" in message(ValueError, data.tiny_imagenet, folder)


def test_a_folder_unpacked_by_half_is_noticed(folder):
    data.tiny_imagenet(folder)
    (folder / "train" / "n01" / "images" / "n01_1.JPEG").unlink()
    text = message(FileNotFoundError, data.tiny_imagenet, folder)
    assert "holds 2 images of n01 and 3 of other classes; Tiny ImageNet was not unpacked whole" in text
    for path in (folder / "train").rglob("*.JPEG"):
        path.unlink()
    assert "0 images of n01" in message(FileNotFoundError, data.tiny_imagenet, folder)
    (folder / "val" / "images" / "val_1.JPEG").unlink()
    assert "val_1.JPEG" in message(FileNotFoundError, data.tiny_imagenet, folder, "val")
    (folder / "val" / "val_annotations.txt").write_text("")
    assert "lacks val/val_annotations.txt" in message(FileNotFoundError, data.tiny_imagenet, folder, "val")
    (folder / "wnids.txt").unlink()
    assert "lacks wnids.txt" in message(FileNotFoundError, data.tiny_imagenet, folder)
    (folder / "words.txt").unlink()
    assert "lacks words.txt" in message(FileNotFoundError, data.class_names, folder, ["n01"])


def test_the_test_images_have_no_labels(folder):
    assert "'test'" in message(ValueError, data.tiny_imagenet, folder, "test")


def test_folders_that_hold_no_tiny_imagenet(tmp_path, official):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "nowhere", tmp_path / "empty"):
        text = message(FileNotFoundError, data.tiny_imagenet, root)
        assert all(word in text for word in (str(root), f"put the zip at {root}.zip", "download=True"))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    unpack(tmp_path / "parent" / "tiny-imagenet-200")
    unpack(tmp_path / "other", {"notes.txt": b""})
    inner = tmp_path / "parent" / "tiny-imagenet-200"
    for options in ({}, {"download": True}):
        assert f"give {inner}" in message(FileNotFoundError, data.tiny_imagenet, tmp_path / "parent", **options)
        assert "lacks wnids.txt" in message(FileNotFoundError, data.tiny_imagenet, tmp_path / "other", **options)
    assert files_below(tmp_path / "other") == ["notes.txt"]


# --- from the zip to the folder


@pytest.mark.parametrize("root", ["tiny", "tiny.zip", "~/tiny"])
def test_a_zip_of_yours_is_unpacked(tmp_path, official, monkeypatch, root):
    official.unlink()  # nothing is downloaded
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tiny.zip").write_bytes(ZIP)
    check_splits(root if root.startswith("~") else tmp_path / root)
    assert files_below(tmp_path) == sorted(["tiny.zip", *(f"tiny/{name}" for name in (*FILES, *CACHES))])
    (tmp_path / "tiny.zip").unlink()
    check_splits(tmp_path / "tiny.zip"), "once unpacked it is not needed"


def test_a_wrong_zip_of_yours_is_kept(tmp_path, official, monkeypatch):
    monkeypatch.setattr(tiny_imagenet_200, "MD5", "0" * 32)
    (tmp_path / "tiny.zip").write_bytes(ZIP)
    for download in (False, True):
        text = message(ValueError, data.tiny_imagenet, tmp_path / "tiny", download=download)
        assert f"{tmp_path / 'tiny.zip'} has the md5 sum {SUM} instead of {'0' * 32}; remove it" in text
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.zip"]


def test_download(tmp_path, official):
    root = tmp_path / "new" / "tiny"
    check_splits(root, download=True)
    official.unlink()
    check_splits(root, download=True), "what is there is not fetched again"
    assert files_below(tmp_path) == sorted(f"new/tiny/{name}" for name in (*FILES, *CACHES))


def test_a_download_of_wrong_bytes_is_removed(tmp_path, official, monkeypatch):
    monkeypatch.setattr(tiny_imagenet_200, "MD5", "0" * 32)
    text = message(ValueError, data.tiny_imagenet, tmp_path / "tiny", download=True)
    assert f"what came from {tiny_imagenet_200.URL} has the md5 sum {SUM} instead of {'0' * 32}" in text
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_unpacking_leaves_nothing(tmp_path, official, monkeypatch):
    monkeypatch.setattr(tiny_imagenet_200.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        data.tiny_imagenet(tmp_path / "tiny", download=True)
    assert list(tmp_path.iterdir()) == []


def test_no_network_names_the_way_without(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but it does not listen
        monkeypatch.setattr(tiny_imagenet_200, "URL", f"http://127.0.0.1:{free.getsockname()[1]}/tiny.zip")
        text = message(ConnectionError, data.tiny_imagenet, tmp_path / "tiny", download=True)
    for words in (f"{tiny_imagenet_200.URL} cannot be fetched", f"put it at {tmp_path / 'tiny.zip'}",
                  "scenes and photos need no download"):  # fmt: skip
        assert words in text
    assert list(tmp_path.iterdir()) == []


def test_the_training_command_fetches_first(tmp_path, official, monkeypatch, capsys):
    root = tmp_path / "tiny"
    net = zflib.load("zfnet56")
    net.wnids = ["n01", "n02"]
    monkeypatch.setattr(zflib.models, "load", lambda name: net)
    command = ["--data", str(root), "--measure", "zfnet56", "--device", "cpu"]
    with pytest.raises(SystemExit, match="there is no Tiny ImageNet"):
        main(command)
    main([*command, "--download"])
    assert "ten-crop" in json.loads(capsys.readouterr().out)
    check_splits(root)


def test_the_official_address_and_sum():
    assert tiny_imagenet_200.URL == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert tiny_imagenet_200.MD5 == "90528d7ca1a48142e341f4ef8d21d0de"
