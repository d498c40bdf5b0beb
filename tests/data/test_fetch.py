"""Downloads that break off, lie or are refused, and zips that would write where they must not."""

import io
import shutil
import socket
import stat
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from archives import md5, serving, zipped

from zflib.data import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert type(caught.value) is error and "\n" not in text
    return text


# --- download


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("sum", [md5(CONTENT), md5(CONTENT).upper(), None])
def test_download(tmp_path, server, length, sum):
    server.length = length
    fetch.download(server.url, tmp_path / "a.zip", md5=sum)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and server.asked == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path, server):
    server.cut = 100_000
    text = message(ConnectionError, fetch.download, server.url, tmp_path / "a.zip", md5=md5(CONTENT))
    assert "broke off (100000 of 300000 bytes)" in text and server.url in text and "call again" in text
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.part"]
    server.cut = 250_000
    assert "250000 of 300000" in message(ConnectionError, fetch.download, server.url, tmp_path / "a.zip")
    server.cut = None
    fetch.download(server.url, tmp_path / "a.zip", md5=md5(CONTENT))
    assert server.asked == [None, "bytes=100000-", "bytes=250000-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and not (tmp_path / "a.zip.part").exists()


@pytest.mark.parametrize("change", [{"ranges": False}, {"shift": 5}])  # it ignores the Range; it sends another one
def test_a_server_that_cannot_resume_starts_anew(tmp_path, server, change):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    vars(server).update(change)
    fetch.download(server.url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"] + [None] * ("shift" in change)


def test_a_part_that_is_whole_or_too_long(tmp_path, server):
    part = tmp_path / "a.zip.part"
    part.write_bytes(CONTENT)
    fetch.download(server.url, tmp_path / "a.zip", md5=md5(CONTENT))
    assert server.asked == [], "killed between the last byte and the new name"
    part.write_bytes(CONTENT + b"more")
    fetch.download(server.url, tmp_path / "a.zip", md5=md5(CONTENT))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and server.asked == ["bytes=300004-", None]


def test_wrong_bytes_are_removed(tmp_path, server):
    right = md5(CONTENT)
    for part in (b"", CONTENT[:10] + b"left by another download"):
        server.content = b"x" * 300_000
        (tmp_path / "a.zip.part").write_bytes(part)
        wrong = md5(part + server.content[len(part) :])
        text = message(ValueError, fetch.download, server.url, tmp_path / "a.zip", md5=right)
        assert right in text and wrong in text and server.url in text and "call again" in text
        assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path, server):
    server.status = 404
    text = message(ConnectionError, fetch.download, server.url, tmp_path / "a.zip")
    assert server.url in text and "404 Not Found" in text
    server.status, server.kind = 200, "text/html; charset=utf-8"
    assert "web page" in message(ConnectionError, fetch.download, server.url, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
    for url in ("file:///etc/hostname", "tiny.zip", None):
        assert repr(url) in message(ValueError, fetch.download, url, tmp_path / "a.zip")


def test_no_network(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but it does not listen
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
        text = message(ConnectionError, fetch.download, url, tmp_path / "a.zip")
    assert f"{url} cannot be reached (Connection refused)" == text and list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent(tmp_path, server):
    server.cut, server.stall = 100_000, True
    text = message(ConnectionError, fetch.download, server.url, tmp_path / "a.zip", timeout=0.2)
    assert "broke off (timed out)" in text and (tmp_path / "a.zip.part").stat().st_size == 100_000


@pytest.mark.parametrize("length", [True, False])
def test_too_much_is_refused(tmp_path, server, monkeypatch, length):
    monkeypatch.setattr(fetch, "_MOST_BYTES", 200_000)
    server.length, server.stall = length, True  # without a length it is stopped, not waited for
    assert "200,000 bytes" in message(ValueError, fetch.download, server.url, tmp_path / "a.zip", timeout=1)
    assert list(tmp_path.iterdir()) == []


def test_places(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"cannot be made \(.*\); do this"):
            fetch.check_place(folder, 0, fix="do this")
    assert "do this" in message(OSError, fetch.check_place, tmp_path, 10**18, fix="do this")
    fetch.check_place(tmp_path / "new" / "folder", 10, fix="do this")
    assert (tmp_path / "new" / "folder").is_dir()
    monkeypatch.setattr(fetch.os, "access", lambda *_: False)
    assert "cannot be written to" in message(PermissionError, fetch.check_place, tmp_path, 0, fix="do this")


@pytest.mark.skipif(fetch.fcntl is None, reason="no locks on Windows")
def test_alone(tmp_path):
    entered = threading.Event()

    def enter():
        with fetch.alone(tmp_path):
            entered.set()

    thread = threading.Thread(target=enter)
    with fetch.alone(tmp_path):
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()
    assert list(tmp_path.iterdir()) == []


# --- unzip

FILES = {"a.txt": b"a" * 1000, "b/c.txt": b"c", "b/left out.md": b"m"}


def keep(name):
    return name.removeprefix("top/") if name.endswith(".txt") else None


def unzip(tmp_path, content, needed=frozenset()):
    (tmp_path / "x.zip").write_bytes(content)
    fetch.unzip(tmp_path / "x.zip", tmp_path / "x", keep=keep, needed=set(needed))
    return {path.relative_to(tmp_path / "x").as_posix(): path.read_bytes()
            for path in (tmp_path / "x").rglob("*") if path.is_file()}  # fmt: skip


def test_unzip(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x.part" / "b").mkdir(parents=True)
    (tmp_path / "x.part" / "b" / "old.txt").touch()  # what a killed process left
    assert unzip(tmp_path, zipped(FILES, "top/"), {"a.txt"}) == {"a.txt": b"a" * 1000, "b/c.txt": b"c"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.zip"]


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name",
    ["../a.txt", "/a.txt", "b/../../a.txt", "b/./a.txt", "b//a.txt", "..", "C:/a.txt", "C:a.txt", "b\\..\\a.txt",
     "../left out.md", link("a.txt"), link("left out.md")],
    ids=str,
)  # fmt: skip
def test_unsafe_names_are_refused_even_if_left_out(tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    text = message(ValueError, unzip, inner, zipped({"fine.txt": b"", name: b"/etc"}, ""))
    assert "x.zip is refused" in text and repr(getattr(name, "filename", name)) in text
    assert [path.name for path in inner.iterdir()] == ["x.zip"] and [*tmp_path.iterdir()] == [inner]


def test_bombs_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    content = zipped({**FILES, "zeros.txt": bytes(10**6)})
    for limit, value in {"_MOST_BYTES": 10**6, "_MOST_MEMBERS": 3, "_LARGEST_MEMBER": 10**6 - 1}.items():
        with monkeypatch.context() as patch:
            patch.setattr(fetch, limit, value)
            patch.setattr(fetch, "_read", lambda *_: pytest.fail("unpacked"))
            text = message(ValueError, unzip, tmp_path, content)
        assert "x.zip" in text and ("zeros.txt" in text or f"{value:,}" in text)


def test_a_member_that_understates_its_size(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(10**6))
    content = file.getvalue().replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert "a.txt" in message(ValueError, unzip, tmp_path, content)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_incomplete_and_ambiguous_zips(tmp_path):
    assert "lacks d.txt, e.txt" in message(
        ValueError, unzip, tmp_path, zipped(FILES, "top/"), {"a.txt", "e.txt", "d.txt"}
    )
    assert "a.txt twice" in message(ValueError, unzip, tmp_path, zipped({**FILES, "top/a.txt": b"2"}, ""))


def test_damaged_zips_never_raise_anything_else(tmp_path):
    content, rng = zipped(FILES, "top/"), np.random.default_rng(1)
    for cut in (b"", b"<html>", content[:-10], content[: len(content) // 2]):
        assert "x.zip is not a zip file" in message(ValueError, unzip, tmp_path, cut)
    changed = content.replace(b"a" * 1000, b"a" * 500 + b"b" * 500)
    assert "x.zip is damaged at top/a.txt" in message(ValueError, unzip, tmp_path, changed)
    for _ in range(100):
        copy = bytearray(content)
        for at in rng.integers(0, len(copy), 6):
            copy[at] = rng.integers(0, 256)
        try:
            unzip(tmp_path, bytes(copy))
        except ValueError as error:
            assert "x.zip" in str(error) and not (tmp_path / "x").exists()
        else:
            shutil.rmtree(tmp_path / "x")
        assert not (tmp_path / "x.part").exists()
    assert "no.zip" in message(
        FileNotFoundError, fetch.unzip, tmp_path / "no.zip", tmp_path / "x", keep=keep, needed=set()
    )


def test_an_interrupted_unzip_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(opened, info):
        if info.filename == "top/b/c.txt":
            assert (tmp_path / "x.part" / "a.txt").exists()
            raise KeyboardInterrupt
        return b""

    monkeypatch.setattr(fetch, "_read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unzip(tmp_path, zipped(FILES, "top/"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


KILLED = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("fetch", sys.argv[1])  # the room alone starts in a blink
fetch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch)
module, name, calls = getattr(fetch, sys.argv[2], fetch), sys.argv[3], [int(sys.argv[4])]
real = getattr(module, name)
def deadly(*arguments):
    calls[0] -= 1
    if not calls[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
setattr(module, name, deadly)
folder = Path(sys.argv[5])
fetch.unzip(folder.with_suffix(".zip"), folder, keep=lambda name: name, needed=set())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("at, written", [(("", "_read", 3), 2), (("os", "replace", 1), 3)], ids=str)
def test_a_killed_unzip_leaves_no_folder(tmp_path, at, written):
    content = zipped(FILES, "top/")
    (tmp_path / "x.zip").write_bytes(content)
    command = [sys.executable, "-c", KILLED, fetch.__file__, *map(str, at), tmp_path / "x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "x").exists()
    assert sum(path.is_file() for path in (tmp_path / "x.part").rglob("*")) == written
    assert set(unzip(tmp_path, content)) == {"a.txt", "b/c.txt"} and not (tmp_path / "x.part").exists()
