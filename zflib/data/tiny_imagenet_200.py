"""Tiny ImageNet: the official zip, downloaded or yours, and its images decoded once into a memory map."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from .images import open_image

# The sum is the one that several libraries publish for this file of 248,100,043 bytes; it was not recomputed here.
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

_NAME = "tiny-imagenet-200"


def tiny_imagenet(
    folder, split: str = "train", *, download: bool = False
) -> tuple[np.ndarray, torch.Tensor, list[str]]:
    """(pixels, labels, wnids): (N,3,64,64) uint8 memory map, (N,) int64, and the 200 WordNet ids, sorted.

    `folder` is the unpacked one, or the official .zip, which is then unpacked beside itself; `download` fetches it.
    `split` is "train" or "val". The first call decodes the images into {split}-pixels.npy in the folder. Missing files
    raise FileNotFoundError; a wrong zip and damaged images ValueError; no network ConnectionError.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val' (the test images have no labels), got {split!r}")
    folder = _unpacked(folder, download)
    wnids = sorted(_read(folder, "wnids.txt").split())
    paths, labels = _list_train(folder, wnids) if split == "train" else _list_val(folder, wnids)
    return _pixels(paths, folder / f"{split}-pixels.npy"), torch.tensor(labels), wnids


def class_names(folder, wnids: list[str]) -> list[str]:
    """A readable name for each WordNet id, from Tiny ImageNet's words.txt: the first of its synonyms."""
    lines = _read(_place(folder), "words.txt").splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]


def _place(folder) -> Path:
    """The folder that `folder` means; tiny.zip lies unpacked in tiny."""
    path = Path(os.path.abspath(os.path.expanduser(folder)))
    return path.with_suffix("") if path.suffix == ".zip" else path


def _unpacked(folder, download: bool) -> Path:
    folder = _place(folder)
    archive = folder.with_name(f"{folder.name}.zip")
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    if archive.is_file():
        _check_md5(archive, str(archive), f"remove it and download another, or unpack it to {folder} yourself")
    elif not download:
        yours = f"unpack yours there, or put the zip at {archive}"
        raise FileNotFoundError(f"there is no Tiny ImageNet in {folder}; {yours}, or download=True to fetch 248 MB")
    _unpack(archive, folder)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """`folder` from `archive`, or from the network if that is not there: whole or not at all."""
    from torchvision.datasets.utils import download_and_extract_archive  # its zipfile never writes outside

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as part:
        root = archive.parent if archive.is_file() else part
        try:
            download_and_extract_archive(URL, root, part, archive.name, MD5)
        except OSError as error:  # URLError among them
            yours = f"fetch the zip elsewhere and put it at {archive}; scenes and photos need no download"
            raise ConnectionError(f"{URL} cannot be fetched and unpacked ({error}); {yours}") from error
        except RuntimeError:  # a wrong sum
            _check_md5(Path(root, archive.name), f"what came from {URL}", "it was removed, call again")
            raise
        if folder.is_dir():
            folder.rmdir()  # it is empty; Windows would not replace it
        os.replace(Path(part, _NAME), folder)


def _check_md5(archive: Path, name: str, fix: str) -> None:
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != MD5:
        raise ValueError(f"{name} has the md5 sum {found} instead of {MD5}; {fix}")


def _read(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file() or not path.stat().st_size:
        inner = folder / _NAME
        fix = f"give {inner}" if inner.is_dir() else "unpack it anew"
        raise FileNotFoundError(f"{folder} lacks {name} and is not all of Tiny ImageNet; {fix}")
    return path.read_text(encoding="utf-8")


def _list_train(folder: Path, wnids: list[str]) -> tuple[list[Path], list[int]]:
    found = [sorted((folder / "train" / wnid / "images").glob("*.JPEG")) for wnid in wnids]
    counts = [len(images) for images in found]
    whole = max(counts)  # 500, the same for every class
    if min(counts) < max(whole, 1):
        got = f"{min(counts)} images of {wnids[counts.index(min(counts))]} and {whole} of other classes"
        raise FileNotFoundError(f"{folder}/train holds {got}; Tiny ImageNet was not unpacked whole, unpack it anew")
    labels = [label for label in range(len(wnids)) for _ in range(whole)]
    return [path for images in found for path in images], labels


def _list_val(folder: Path, wnids: list[str]) -> tuple[list[Path], list[int]]:
    name, index = "val/val_annotations.txt", {wnid: label for label, wnid in enumerate(wnids)}
    rows = [line.split("\t") for line in _read(folder, name).splitlines()]
    paths = [folder / "val" / "images" / row[0] for row in rows]
    return paths, [index[row[1]] for row in rows]


def _pixels(paths: list[Path], cache: Path) -> np.ndarray:
    """(N,3,64,64) memory map: the `cache`, decoded from `paths` if it is not there or does not fit."""
    shape = (len(paths), 3, 64, 64)
    try:
        pixels = np.load(cache, mmap_mode="r")
        if pixels.shape == shape and pixels.dtype == np.uint8:
            return pixels
    except (OSError, ValueError, EOFError):  # not there, or cut short
        pass
    _decode(paths, cache)
    return np.load(cache, mmap_mode="r")


def _decode(paths: list[Path], cache: Path) -> None:
    """Write `cache` under a name of its own first: it is never there by half."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), 3, 64, 64)}
    part = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:  # not through a memory map: a full disk would kill the process
            np.lib.format.write_array_header_1_0(file, header)
            for path in tqdm(paths, desc=cache.stem, unit="image", disable=None):
                image = open_image(path)
                if image.size != (64, 64):
                    raise ValueError(f"{path} must have 64x64 pixels, got {image.width}x{image.height}; unpack it anew")
                file.write(np.asarray(image).transpose(2, 0, 1).tobytes())
        os.replace(part, cache)
    finally:
        part.unlink(missing_ok=True)
