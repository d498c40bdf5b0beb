"""Tiny ImageNet: the official zip, downloaded or yours, and its images decoded once into a memory map."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import _files
from . import fetch
from .images import open_image

# The sum is the one that several libraries publish for this file of 248,100,043 bytes; it was not recomputed here.
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

_NAME = "tiny-imagenet-200"
_LAYOUT = "wnids.txt, train/<wnid>/images/*.JPEG, val/val_annotations.txt and val/images/*.JPEG"
_NEEDED = {"wnids.txt", "words.txt", "val/val_annotations.txt"}
_READ = re.compile(  # what is unpacked, below the folder that a zip usually starts with
    r"(?:[^/]+/)?(wnids\.txt|words\.txt|train/[^/]+/images/[^/]+\.JPEG|val/images/[^/]+\.JPEG|val/val_annotations\.txt)"
)


def fetch_tiny_imagenet(root, *, url: str = URL, md5: str | None = MD5) -> Path:
    """The folder `root`, where Tiny ImageNet lies unpacked afterwards; if it lies there already, nothing is done.

    A zip of yours is unpacked, not downloaded: `root`.zip or tiny-imagenet-200.zip beside `root`, or `root` itself if
    it ends in .zip. The test images (no labels) and the boxes are left out, nothing here reads them; the zip stays. A
    download that broke off goes on where it stopped. Both are checked by `md5` (None: not), and a killed call leaves no
    half folder. No network or a server that refuses is a ConnectionError, a wrong or unsafe zip a ValueError.
    """
    folder, archives = _places(root)
    if _is_there(folder):
        return folder
    fetch.check_place(folder.parent, 0, fix="give a root in a folder of yours")
    with fetch.alone(folder.parent):
        if _is_there(folder):  # by now, from another process
            return folder
        archive = next((path for path in archives if path.is_file()), None)
        if archive is None:
            archive = _download(url, archives[0], folder, md5)
        else:
            _check_yours(archive, md5)
        fetch.unzip(archive, folder, keep=_kept, needed=_NEEDED)
    return folder


def _kept(name: str) -> str | None:
    match = _READ.fullmatch(name)
    return match and match[1]


def _places(root) -> tuple[Path, list[Path]]:
    """The folder that `root` means and where its zip may lie."""
    if not isinstance(root, (str, os.PathLike)):
        raise TypeError(f"root must be a folder's path, got {type(root).__name__}")
    path = Path(os.path.abspath(os.path.expanduser(os.fsdecode(root))))
    if path.suffix.lower() == ".zip" and not path.is_dir():
        return path.with_suffix(""), [path]
    if path.is_file():
        raise ValueError(f"root {str(path)!r} is a file; give the folder of Tiny ImageNet, or its .zip")
    return path, [path.with_name(f"{path.name}.zip"), path.with_name(f"{_NAME}.zip")]


def _is_there(folder: Path) -> bool:
    """Whether Tiny ImageNet lies in `folder`; one that holds something else is refused, not written into."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    return all(_need(folder / name, folder) for name in ("wnids.txt", "train", "val"))


def _download(url: str, archive: Path, folder: Path, md5: str | None) -> Path:
    try:
        fetch.download(url, archive, md5=md5)
    except ConnectionError as error:
        yours = f"fetch the zip elsewhere and put it at {archive}, or unpack it to {folder}"
        raise ConnectionError(f"{error}; or {yours}; scenes and photos need no download") from error
    return archive


def _check_yours(archive: Path, md5: str | None) -> None:
    try:
        fetch.check_md5(archive, md5)
    except ValueError as error:
        fix = "remove it to fetch it again, or unpack it with data.fetch_tiny_imagenet(root, md5=None)"
        raise ValueError(f"{error}; {fix}") from None


def tiny_imagenet(
    root, split: str = "train", *, download: bool = False, cache=None
) -> tuple[np.ndarray, torch.Tensor, list[str]]:
    """(pixels, labels, wnids): (N,3,64,64) uint8 memory map, (N,) int64, and the 200 WordNet ids, sorted.

    `root` is the unpacked folder (or a zip, see `fetch_tiny_imagenet`, which `download` calls) and `split` "train" or
    "val". The first call decodes the images into {split}-pixels.npy in `cache`, a folder (None: `root`), and so does
    one that finds files of other names, sizes or times than {split}-pixels.sha256 beside it tells of. Missing files
    raise FileNotFoundError, wrong lines and damaged images ValueError, a place that cannot hold the cache OSError.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val' (the test images have no labels), got {split!r}")
    root = _unpacked(root, download)
    wnids = _wnids(root)
    paths, labels = _list_train(root, wnids) if split == "train" else _list_val(root, wnids)
    target = (root if cache is None else Path(cache).expanduser()) / f"{split}-pixels.npy"
    return _pixels(paths, root, target), torch.tensor(labels), wnids


def _unpacked(root, download: bool) -> Path:
    folder, archives = _places(root)
    empty = not folder.is_dir() or not any(folder.iterdir())
    if download or (empty and any(path.is_file() for path in archives)):
        return fetch_tiny_imagenet(root)
    if empty:
        yours = f"give the folder that you have ({_LAYOUT})"
        raise FileNotFoundError(f"there is no Tiny ImageNet in {folder}; {yours}, or download=True to fetch 248 MB")
    return folder


def _need(path: Path, root: Path) -> Path:
    if not path.exists():
        inner, lack = root / _NAME, f"Tiny ImageNet in {root} lacks {path.relative_to(root)}"
        if (inner / "wnids.txt").exists():
            raise FileNotFoundError(f"{lack}; give {inner}")
        raise FileNotFoundError(f"{lack}; unpack it whole ({_LAYOUT}), or fetch it into a new folder")
    return path


def _wnids(root: Path) -> list[str]:
    path = _need(root / "wnids.txt", root)
    wnids = sorted(path.read_text(encoding="utf-8", errors="replace").split())
    if not wnids or len(set(wnids)) < len(wnids):
        twice = next((wnid for wnid in wnids if wnids.count(wnid) > 1), None)
        what = f"names {twice} twice" if twice else "is empty"
        raise ValueError(f"{path} {what}; unpack Tiny ImageNet again")
    return wnids


def _list_train(root: Path, wnids: list[str]) -> tuple[list[Path], list[int]]:
    paths, labels = [], []
    for label, wnid in enumerate(wnids):
        images = sorted(_need(root / "train" / wnid / "images", root).glob("*.JPEG"))
        if not images:
            raise FileNotFoundError(f"{root / 'train' / wnid / 'images'} holds no .JPEG; unpack it whole: {_LAYOUT}")
        paths += images
        labels += [label] * len(images)
    return paths, labels


def _list_val(root: Path, wnids: list[str]) -> tuple[list[Path], list[int]]:
    index = {wnid: label for label, wnid in enumerate(wnids)}
    annotations = _need(root / "val" / "val_annotations.txt", root)
    rows = [line.split("\t") for line in annotations.read_text(encoding="utf-8", errors="replace").splitlines()]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or row[1] not in index:
            raise ValueError(f"{annotations} line {number} must be an image, a tab and an id of wnids.txt, got {row}")
    if not rows:
        raise ValueError(f"{annotations} is empty; unpack Tiny ImageNet again")
    return [root / "val" / "images" / row[0] for row in rows], [index[row[1]] for row in rows]


def _pixels(paths: list[Path], root: Path, target: Path) -> np.ndarray:
    """The memory map of the images at `paths` in the cache `target`, decoded if it is not there or of other files."""
    own = target.parent == root
    found = _fingerprint(paths, root, own=own)
    pixels = _earlier(target, len(paths), found, own=own)
    if pixels is None:
        # A memory map on a disk that fills up would not raise but kill the process.
        fetch.check_place(target.parent, len(paths) * 3 * 64 * 64, fix="pass cache= with a folder of yours")
        with fetch.alone(target.parent):
            pixels = _earlier(target, len(paths), found, own=own)  # another process may have been faster
            if pixels is None:
                _decode_all(paths, target)
                pixels = np.load(target, mmap_mode="r")
                _mark(target, found)
    return pixels


def _earlier(target: Path, count: int, found: bytes, *, own: bool) -> np.ndarray | None:
    """The memory map that an earlier call left, None if there is none or it is of other files."""
    mark = target.with_suffix(".sha256")
    known = mark.read_bytes() if mark.is_file() else None
    if known != found and not (known is None and own):  # in its own folder an earlier version left no mark
        return None
    pixels = _read_cache(target, count)
    if pixels is not None and known is None:
        _mark(target, found)
    return pixels


def _mark(target: Path, found: bytes) -> None:
    with contextlib.suppress(OSError):  # a folder that one may only read
        _files.write_atomically(target.with_suffix(".sha256"), found)


def _fingerprint(paths: list[Path], root: Path, *, own: bool) -> bytes:
    """SHA-256 of the images' names, sizes and times; of the folder, too, unless the cache lies in it as its `own`."""
    digest = hashlib.sha256(b"" if own else os.fsencode(root.resolve()))
    for path in paths:
        digest.update(b"\n" + os.fsencode(path).removeprefix(os.fsencode(root)))
        with contextlib.suppress(OSError):  # a missing image is named when it is decoded
            about = os.stat(path)
            digest.update(f" {about.st_size} {about.st_mtime_ns}".encode())
    return digest.hexdigest().encode()


def _read_cache(cache: Path, count: int) -> np.ndarray | None:
    """The memory map, or None if there is none or it does not fit: cut short, or of another list of images."""
    try:
        pixels = np.load(cache, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == (count, 3, 64, 64) and pixels.dtype == np.uint8 else None


def _decode_all(paths: list[Path], target: Path) -> None:
    for left in target.parent.glob(f"{target.name}.*.part"):  # by a process that was killed: 1.2 GB
        left.unlink(missing_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")  # where folders cannot be locked, still one's own
    try:
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(paths), 3, 64, 64))
        for i, path in enumerate(tqdm(paths, desc=target.stem, unit="image", disable=None)):
            image = open_image(path)
            if image.size != (64, 64):
                raise ValueError(f"{path} must have 64x64 pixels, got {image.width}x{image.height}; unpack it again")
            store[i] = np.asarray(image).transpose(2, 0, 1)
        store.flush()
        target.with_suffix(".sha256").unlink(missing_ok=True)  # it told of what lay here before
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def class_names(root, wnids: list[str]) -> list[str]:
    """A readable name for each WordNet id, from Tiny ImageNet's words.txt: the first of its synonyms."""
    folder = _places(root)[0]
    lines = _need(folder / "words.txt", folder).read_text().splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
