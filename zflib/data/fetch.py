"""Getting an archive: a download that resumes and is checked, a zip that is unpacked whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm.auto import tqdm

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_MOST_BYTES = 2 * 10**9  # of a download and of what a zip unpacks to; Tiny ImageNet has an eighth of it
_MOST_MEMBERS = 200_000
_LARGEST_MEMBER = 64 * 10**6


def download(url: str, target: Path, *, md5: str | None = None, timeout: float = 30.0) -> None:
    """The file at `url`, written to `target` once it is whole; what an earlier call left in `target`.part is continued.

    `timeout` in seconds without a byte; `md5` in hex, None for any. No network, a refusal or a connection that breaks
    off raises ConnectionError, a wrong sum ValueError (and the file is removed), a full disk OSError.
    """
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://, got {url!r}")
    part = target.with_name(f"{target.name}.part")
    if md5 is None or not part.exists() or _md5(part) != md5.lower():  # else it only lacked its last name
        response, start = _ask(url, part.stat().st_size if part.exists() else 0, timeout)
        with response:
            _save(response, start, url, part)
    try:
        _check_bytes(part.stat().st_size, url)
        check_md5(part, md5)
    except ValueError as error:
        part.unlink()
        raise ValueError(f"{url} sent a wrong file, now removed ({error}); call again to fetch it anew") from None
    os.replace(part, target)


def check_md5(path: Path, md5: str | None) -> None:
    """ValueError with both sums unless the file's md5 is `md5` (hex), or `md5` is None."""
    found = None if md5 is None else _md5(path)
    if found is not None and found != md5.lower():
        raise ValueError(f"{path} has md5 {found} instead of {md5}")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _ask(url: str, start: int, timeout: float) -> tuple[http.client.HTTPResponse, int]:
    """The server's answer and the byte that it starts with: `start`, or 0 from a server that cannot resume."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == 416:  # the part is as long as the file or longer, and it is not the file
            return _ask(url, 0, timeout)
        raise ConnectionError(f"{url} answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{url} cannot be reached ({_why(error)})") from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise ConnectionError(f"{url} answered with a web page instead of the file (does the network ask for a login?)")
    if start == 0 or response.status != 206:
        return response, 0
    if (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
        return response, start
    response.close()
    return _ask(url, 0, timeout)


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


def _save(response: http.client.HTTPResponse, start: int, url: str, part: Path) -> None:
    """The rest of a file, written behind its first `start` bytes."""
    total = None if response.length is None else start + response.length  # in bytes; None: the server does not say
    _check_bytes(total or 0, url)
    check_place(part.parent, (total or 0) - start, fix="choose another folder")
    bar = tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None)
    with bar, open(part, "ab" if start else "wb") as file:
        for chunk in _chunks(response, url):
            file.write(chunk)
            bar.update(len(chunk))
            if file.tell() > _MOST_BYTES:
                return
        file.flush()
        os.fsync(file.fileno())
        if total is not None and file.tell() < total:
            raise _broken_off(url, f"{file.tell()} of {total} bytes")


def _check_bytes(size: int, url: str) -> None:
    if size > _MOST_BYTES:
        raise ValueError(f"{url} sends more than the {_MOST_BYTES:,} bytes that are accepted; check the url")


def _chunks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read1(1 << 16):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _broken_off(url, _why(error)) from error


def _broken_off(url: str, why: str) -> ConnectionError:
    return ConnectionError(f"{url} broke off ({why}); call again to go on from there")


def check_place(folder: Path, size: int, *, fix: str) -> None:
    """Make `folder`, and raise OSError with the sentence's `fix` unless `size` bytes can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{folder} cannot be made ({error.strerror}); {fix}") from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written to; {fix}")
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"{folder} has {free / 1e6:.0f} MB left of the {size / 1e6:.0f} MB needed; make room or {fix}")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time in `folder`, others wait; the lock ends with its process. (Windows: no lock.)"""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def unzip(archive: Path, folder: Path, *, keep: Callable[[str], str | None], needed: set[str]) -> None:
    """`folder`, new or empty, with the members of a zip that `keep` gives a path inside it (None: left out).

    They are written to the neighbour `folder`.part, renamed last: `folder` is never there by half. A zip that is
    damaged, lacks a path of `needed`, or is unsafe (names that lead outside, links, too much) is a ValueError.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        with _open(archive) as opened:
            members = _choose(opened, keep, needed)
            size = sum(info.file_size for info in members.values())
            check_place(folder.parent, size, fix="choose another folder")
            part.mkdir()
            for name, info in tqdm(members.items(), desc=f"unpacking {archive.name}", unit="file", disable=None):
                path = part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_read(opened, info))
        if folder.is_dir():
            folder.rmdir()  # Windows would not replace it
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged bytes make zipfile raise all sorts of things
        raise ValueError(f"{archive} is not a zip file that can be read ({error}); fetch it again") from error


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return opened.read(info)
    except Exception as error:
        raise ValueError(f"{opened.filename} is damaged at {info.filename} ({error}); fetch it again") from error


def _choose(opened: zipfile.ZipFile, keep, needed: set[str]) -> dict[str, zipfile.ZipInfo]:
    """What to write from where, once every member, kept or not, was found safe."""
    members, infos = {}, opened.infolist()
    if len(infos) > _MOST_MEMBERS or sum(info.file_size for info in infos) > _MOST_BYTES:
        limit = f"more than {_MOST_MEMBERS:,} files or {_MOST_BYTES:,} bytes"
        raise ValueError(f"{opened.filename} would unpack to {limit}; fetch the right archive")
    for info in infos:
        if (fault := _fault(info)) is not None:
            raise ValueError(f"{opened.filename} is refused: {info.filename!r} {fault}; fetch the right archive")
        name = None if info.is_dir() else keep(info.filename)
        if name in members:
            raise ValueError(f"{opened.filename} holds {name} twice; fetch the right archive")
        if name is not None:
            members[name] = info
    lacking = sorted(needed - set(members))
    if lacking:
        raise ValueError(f"{opened.filename} lacks {', '.join(lacking)}; fetch the right archive")
    return members


def _fault(info: zipfile.ZipInfo) -> str | None:
    """Why a member must not be written, or None."""
    parts = info.filename.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or any(c in info.filename for c in "\\:"):  # "C:" is a drive
        return "could lead outside the folder"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    return "is too large" if info.file_size > _LARGEST_MEMBER else None
