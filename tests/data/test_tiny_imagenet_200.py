"""Tiny ImageNet in small: reading it, its cache, and the way from the official zip to the folder."""

import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from archives import jpeg, md5, serving, tiny_files, zipped
from PIL import Image

import zflib
from zflib import data
from zflib.data import fetch, tiny_imagenet_200

FILES = tiny_files()
ZIP = zipped(FILES)
CACHES = [f"{split}-pixels.{end}" for split in ("train", "val") for end in ("npy", "sha256")]
READ = sorted(name for name in FILES if not name.startswith("test/") and "boxes" not in name)


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving(ZIP) as server:
        yield server


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


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


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert type(caught.value) is error and "\n" not in text
    return text


# --- reading the folder


def check_splits(root, **options):
    images, labels, wnids = data.tiny_imagenet(root, "train", **options)
    assert images.shape == (6, 3, 64, 64) and images.dtype == np.uint8 and isinstance(images, np.memmap)
    assert wnids == ["n01", "n02"] and labels.tolist() == [0, 0, 0, 1, 1, 1] and labels.dtype == torch.int64
    assert np.abs(images[:, 0, 0, 0].astype(int) - [160, 200, 240, 40, 80, 120]).max() <= 2
    images, labels, _ = data.tiny_imagenet(str(root), "val", **options)
    assert images.shape == (3, 3, 64, 64) and labels.tolist() == [1, 0, 1]
    assert np.abs(images[1, :, 5, 5].astype(int) - 11).max() <= 2
    assert data.class_names(root, wnids) == ["goldfish", "bullfrog"]


def test_both_splits(folder):
    check_splits(folder)
    assert files_below(folder) == sorted([*FILES, *CACHES])


def test_colours_keep_their_order(folder):
    colour = Image.new("RGB", (64, 64), (200, 100, 50))
    colour.save(folder / "val" / "images" / "val_1.JPEG", quality=95)
    images = data.tiny_imagenet(folder, "val")[0]
    assert np.abs(images[1, :, 30, 30].astype(int) - [200, 100, 50]).max() <= 3


def test_home_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    check_splits("~/tiny", cache="~/cache")
    assert files_below(folder.parent / "cache") == CACHES


def test_cache_is_used_and_rebuilt_when_it_does_not_fit(folder):
    cache = folder / "train-pixels.npy"
    expected = np.array(data.tiny_imagenet(folder)[0])
    marked = expected.copy()
    marked[0] = 7
    np.save(cache, marked)
    assert np.array_equal(data.tiny_imagenet(folder)[0], marked), "a cache that fits is used as it is"
    whole = cache.read_bytes()
    for content in (expected[:5], expected.astype(np.int64), np.array([print], dtype=object), whole[:2000], b""):
        if isinstance(content, bytes):
            cache.write_bytes(content)
        else:
            np.save(cache, content, allow_pickle=True)
        found = data.tiny_imagenet(folder)[0]
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


def repaint(folder, value):
    """The same names, other pictures."""
    for path in folder.rglob("*.JPEG"):
        path.write_bytes(jpeg(value))
    return folder


@pytest.mark.parametrize("split", ["train", "val"])
def test_two_folders_may_share_one_cache(folder, tmp_path, split):
    other, cache = repaint(unpack(tmp_path / "other"), 255), tmp_path / "cache"
    for _ in range(2):
        assert data.tiny_imagenet(folder, split, cache=cache)[0].min() < 60
        assert data.tiny_imagenet(other, split, cache=cache)[0].min() > 250
    twin = unpack(tmp_path / "twin")  # even if size and time tell nothing
    for one, two in zip(sorted(folder.rglob("*.JPEG")), sorted(twin.rglob("*.JPEG"))):
        os.utime(two, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    data.tiny_imagenet(folder, split, cache=cache)
    mark = (cache / f"{split}-pixels.sha256").read_bytes()
    data.tiny_imagenet(twin, split, cache=cache)
    assert mark != (cache / f"{split}-pixels.sha256").read_bytes()


@pytest.mark.parametrize("change", [
    lambda folder: repaint(folder, 255),
    lambda folder: (folder / "train/n01/images/n01_1.JPEG").rename(folder / "train/n01/images/n01_0a.JPEG"),
], ids=["changed", "renamed"])  # fmt: skip
def test_changed_files_are_decoded_anew(folder, change):
    np.save(folder / "train-pixels.npy", np.full((6, 3, 64, 64), 3, np.uint8))
    assert data.tiny_imagenet(folder)[0].max() == 3, "a map of an earlier version, in its own folder, is taken"
    for _ in range(2):
        assert data.tiny_imagenet(folder)[0].max() == 3
    change(folder)
    assert data.tiny_imagenet(folder)[0].max() > 200


def test_a_killed_call_leaves_no_mark_of_other_pixels(folder, monkeypatch):
    data.tiny_imagenet(folder)
    repaint(folder, 255)
    with monkeypatch.context() as patch:
        patch.setattr(tiny_imagenet_200.np, "load", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            data.tiny_imagenet(folder)
    assert "train-pixels.sha256" not in files_below(folder)
    assert data.tiny_imagenet(folder)[0].min() > 250


def test_a_folder_that_one_may_only_read_keeps_its_cache(folder, monkeypatch):
    expected = np.array(data.tiny_imagenet(folder)[0])
    (folder / "train-pixels.sha256").unlink()
    monkeypatch.setattr(
        tiny_imagenet_200.files, "write_atomically", lambda *_: (_ for _ in ()).throw(PermissionError("no"))
    )
    assert np.array_equal(data.tiny_imagenet(folder)[0], expected)


@pytest.mark.parametrize("content, what", [(b"", "is empty"), (b"n01\nn02\nn01\n", "names n01 twice")])
def test_wrong_lists_of_classes_are_named(folder, content, what):
    (folder / "wnids.txt").write_bytes(content)
    for split in ("train", "val"):
        assert f"wnids.txt {what}; unpack" in message(ValueError, data.tiny_imagenet, folder, split)


def test_cache_elsewhere_leaves_the_folder_alone(folder, tmp_path):
    check_splits(folder, cache=tmp_path / "new" / "cache")
    assert files_below(folder) == sorted(FILES)
    assert files_below(tmp_path / "new" / "cache") == CACHES


def test_a_place_that_cannot_hold_the_cache(folder, tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"wnids\.txt cannot be made .*; pass cache="):
        data.tiny_imagenet(folder, cache=folder / "wnids.txt")
    with monkeypatch.context() as patch:
        patch.setattr(fetch.os, "access", lambda path, mode: path != folder)  # a read-only folder, even for root
        text = message(PermissionError, data.tiny_imagenet, folder)
        assert f"{folder} cannot be written to; pass cache=" in text
        check_splits(folder, cache=tmp_path / "cache")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: fetch.shutil._ntuple_diskusage(10**9, 10**9, 6 * 12287))
    assert "0 MB left of the 0 MB needed; make room or pass cache=" in message(OSError, data.tiny_imagenet, folder)
    assert files_below(folder) == sorted(FILES)


def test_interrupted_decoding_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(tiny_imagenet_200, "open_image", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        data.tiny_imagenet(folder)
    assert files_below(folder) == sorted(FILES)


def test_damaged_and_missing_images_are_named(folder):
    victim = folder / "train" / "n01" / "images" / "n01_1.JPEG"
    victim.write_bytes(victim.read_bytes()[:300])
    assert str(victim) in message(ValueError, data.tiny_imagenet, folder)
    victim.write_bytes(b"")
    assert f"{victim} is empty" in message(ValueError, data.tiny_imagenet, folder)
    victim.write_bytes(jpeg(0, size=(32, 64)))
    assert f"{victim} must have 64x64 pixels, got 32x64" in message(ValueError, data.tiny_imagenet, folder)
    missing = folder / "val" / "images" / "val_1.JPEG"
    missing.unlink()
    assert str(missing) in message(FileNotFoundError, data.tiny_imagenet, folder, "val")
    images = folder / "train" / "n02" / "images"
    for path in images.iterdir():
        path.unlink()
    assert f"{images} holds no .JPEG" in message(FileNotFoundError, data.tiny_imagenet, folder)
    images.rmdir()
    assert "lacks train/n02/images" in message(FileNotFoundError, data.tiny_imagenet, folder)


def test_wrong_lines_are_named(folder):
    assert "'test'" in message(ValueError, data.tiny_imagenet, folder, "test")
    annotations = folder / "val" / "val_annotations.txt"
    for content, word in (("val_0.JPEG\tn02\nval_1.JPEG\tn03\n", "line 2"), ("val_0.JPEG\n", "line 1"), ("", "empty")):
        annotations.write_text(content)
        assert word in message(ValueError, data.tiny_imagenet, folder, "val")
    annotations.unlink()
    assert "val/val_annotations.txt" in message(FileNotFoundError, data.tiny_imagenet, folder, "val")
    (folder / "words.txt").unlink()
    assert "words.txt" in message(FileNotFoundError, data.class_names, folder, ["n01"])


def test_roots_that_hold_no_tiny_imagenet(tmp_path, offline):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "nowhere", tmp_path / "empty"):
        text = message(FileNotFoundError, data.tiny_imagenet, root)
        assert all(word in text for word in (str(root), "wnids.txt", "val_annotations.txt", "download=True"))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    (tmp_path / "file").touch()
    unpack(tmp_path / "parent" / "tiny-imagenet-200")
    unpack(tmp_path / "other", {"notes.txt": b""})
    for download in (False, True):
        call = {"download": download}
        assert "give" in message(ValueError, data.tiny_imagenet, tmp_path / "file", **call)
        inner = tmp_path / "parent" / "tiny-imagenet-200"
        assert f"give {inner}" in message(FileNotFoundError, data.tiny_imagenet, tmp_path / "parent", **call)
        assert "new folder" in message(FileNotFoundError, data.tiny_imagenet, tmp_path / "other", **call)
        assert "root must be" in message(TypeError, data.tiny_imagenet, None, **call)
    assert files_below(tmp_path / "other") == ["notes.txt"]


# --- a zip of yours


@pytest.mark.parametrize("name", ["tiny.zip", "tiny-imagenet-200.zip"])
@pytest.mark.parametrize("top", ["tiny-imagenet-200/", ""])
def test_a_zip_beside_the_folder_is_unpacked(tmp_path, offline, monkeypatch, name, top):
    content = zipped(FILES, top)
    (tmp_path / name).write_bytes(content)
    monkeypatch.setitem(tiny_imagenet_200.fetch_tiny_imagenet.__kwdefaults__, "md5", md5(content))
    check_splits(tmp_path / "tiny")
    assert files_below(tmp_path / "tiny") == sorted([*READ, *CACHES])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "tiny"])


def test_root_may_be_the_zip(tmp_path, offline, monkeypatch):
    (tmp_path / "mine.zip").write_bytes(ZIP)
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(b"not this one")
    monkeypatch.setitem(tiny_imagenet_200.fetch_tiny_imagenet.__kwdefaults__, "md5", md5(ZIP))
    check_splits(tmp_path / "mine.zip")
    assert files_below(tmp_path / "mine") == sorted([*READ, *CACHES])
    (tmp_path / "mine.zip").unlink()
    check_splits(tmp_path / "mine.zip"), "once unpacked it is not needed"


def test_a_wrong_zip_of_yours_is_kept(tmp_path, offline):
    (tmp_path / "tiny.zip").write_bytes(ZIP)
    text = message(ValueError, data.tiny_imagenet, tmp_path / "tiny")
    assert all(word in text for word in (str(tmp_path / "tiny.zip"), md5(ZIP), tiny_imagenet_200.MD5, "md5=None"))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.zip"]
    assert data.fetch_tiny_imagenet(tmp_path / "tiny", md5=None) == tmp_path / "tiny"
    check_splits(tmp_path / "tiny")
    (tmp_path / "half.zip").write_bytes(zipped({name: FILES[name] for name in READ if "val_" not in name}))
    text = message(ValueError, data.fetch_tiny_imagenet, tmp_path / "half", md5=None)
    assert "half.zip lacks val/val_annotations.txt" in text and not (tmp_path / "half").exists()


# --- downloading


def test_download(tmp_path, server, monkeypatch):
    for name, value in {"url": server.url, "md5": md5(ZIP)}.items():
        monkeypatch.setitem(tiny_imagenet_200.fetch_tiny_imagenet.__kwdefaults__, name, value)
    root = tmp_path / "new" / "tiny"
    check_splits(root, download=True)
    check_splits(root)
    assert server.asked == [None]
    assert files_below(tmp_path / "new") == sorted(["tiny.zip", *(f"tiny/{name}" for name in files_below(root))])
    assert (root.parent / "tiny.zip").read_bytes() == ZIP


def test_the_training_command_fetches_first(tmp_path, server, monkeypatch, capsys):
    for name, value in {"url": server.url, "md5": md5(ZIP)}.items():
        monkeypatch.setitem(tiny_imagenet_200.fetch_tiny_imagenet.__kwdefaults__, name, value)
    root = tmp_path / "tiny"
    net = zflib.load("zfnet56")
    net.wnids = ["n01", "n02"]
    monkeypatch.setattr(zflib.models, "load", lambda name: net)
    command = ["--data", str(root), "--measure", "zfnet56", "--device", "cpu"]
    with pytest.raises(SystemExit, match="there is no Tiny ImageNet"):
        zflib.train.main(command)
    assert server.asked == []
    zflib.train.main([*command, "--download"])
    assert server.asked == [None] and "ten-crop" in json.loads(capsys.readouterr().out)
    check_splits(root)


def test_what_is_there_is_not_fetched_again(folder, offline, monkeypatch):
    monkeypatch.setattr(fetch.os, "access", lambda *_: False)  # nor is anything written
    assert data.fetch_tiny_imagenet(folder) == folder
    monkeypatch.undo()
    check_splits(folder, download=True)


def test_a_download_that_broke_off_is_resumed(tmp_path, server):
    server.cut = len(ZIP) // 2
    call = {"url": server.url, "md5": md5(ZIP)}
    text = message(ConnectionError, data.fetch_tiny_imagenet, tmp_path / "tiny", **call)
    assert "broke off" in text and "call again" in text
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.zip.part"]
    server.cut = None
    check_splits(data.fetch_tiny_imagenet(tmp_path / "tiny", **call))
    assert server.asked == [None, f"bytes={len(ZIP) // 2}-"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tiny.zip"]


@pytest.mark.skipif(fetch.fcntl is None, reason="no locks on Windows")
def test_two_at_once_fetch_it_once(tmp_path, server):
    server.length, server.stall = False, True  # until the second has come in
    timer = threading.Timer(0.3, server.stalled.set)
    timer.start()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(data.fetch_tiny_imagenet, tmp_path / "tiny", url=server.url, md5=None) for _ in range(2)]
        assert [call.result() for call in calls] == [tmp_path / "tiny"] * 2
    timer.join()
    assert server.asked == [None]
    check_splits(tmp_path / "tiny")


def test_wrong_bytes(tmp_path, server):
    text = message(ValueError, data.fetch_tiny_imagenet, tmp_path / "tiny", url=server.url)
    assert all(word in text for word in (server.url, md5(ZIP), tiny_imagenet_200.MD5, "removed"))
    assert list(tmp_path.iterdir()) == []


def test_no_network_names_the_ways_without(tmp_path, server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but it does not listen
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/tiny.zip"
        text = message(ConnectionError, data.fetch_tiny_imagenet, tmp_path / "tiny", url=closed)
    for words in (f"{closed} cannot be reached", f"put it at {tmp_path / 'tiny.zip'}", f"to {tmp_path / 'tiny'};",
                  "scenes and photos need no download"):  # fmt: skip
        assert words in text
    server.status = 404
    text = message(ConnectionError, data.fetch_tiny_imagenet, tmp_path / "tiny", url=server.url)
    assert "404 Not Found" in text and "scenes and photos" in text and list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made(tmp_path, offline):
    (tmp_path / "file").touch()
    text = message(NotADirectoryError, data.fetch_tiny_imagenet, tmp_path / "file" / "new" / "tiny")
    assert "cannot be made" in text and "root" in text


def test_the_official_address_and_sum():
    assert tiny_imagenet_200.URL == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert tiny_imagenet_200.MD5 == "90528d7ca1a48142e341f4ef8d21d0de"


def test_what_a_killed_decoding_left_is_removed(folder):
    left = folder / "train-pixels.npy.99999.part"
    left.write_bytes(b"half")
    check_splits(folder)
    assert not left.exists()
