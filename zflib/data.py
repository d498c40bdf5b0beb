"""The images: real photographs without a download, your own, Tiny ImageNet, and how an image becomes numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from .images import check_bytes, folder, open_image
from .photos import credit, photo, photo_names, photos

__all__ = ["centre_crop", "credit", "folder", "open_image", "photo", "photo_names", "photos", "stack", "ten_crop",
           "tiny_imagenet"]  # fmt: skip

_THINNEST = 100  # the centre crop of an image with sides more unequal than 1:100 would show nothing of it
_LAYOUT = "wnids.txt, train/<wnid>/images/*.JPEG, val/val_annotations.txt and val/images/*.JPEG"


def stack(images, size: int) -> torch.Tensor:
    """(N,3,size,size) uint8: smaller side to `size` pixels (bilinear, antialiased), then the centre crop of section 3.

    `images`: one image as `open_image` takes it, any iterable of them, a uint8 array (N,H,W,3) or tensor (N,3,H,W).
    An image that has size x size pixels comes out bit for bit; an empty list or a stripe of an image is a ValueError.
    """
    _check_size(size, None)
    squares = [_square(image, size, name) for name, image in _each(images)]
    if not squares:
        raise ValueError("images is empty; give at least one image")
    return torch.stack(squares)


def _each(images) -> Iterator[tuple[str, object]]:
    """Every image with the name that messages call it."""
    if isinstance(images, Mapping):
        raise TypeError(f"images must be a list of images, got a {type(images).__name__}; pass images.values()")
    one = (str, bytes, os.PathLike, Image.Image, np.ndarray, torch.Tensor)
    is_batch = isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4
    if is_batch:
        _check_batch(images)
    if is_batch or (isinstance(images, Iterable) and not isinstance(images, one)):
        yield from ((f"images[{i}]", image) for i, image in enumerate(images))
    else:
        yield "images", images


def _check_batch(images: np.ndarray | torch.Tensor) -> None:
    check_bytes(images, "images")
    shape = tuple(images.shape)
    if isinstance(images, torch.Tensor) and shape[1] != 3:
        fix = "; turn it with .permute(0, 3, 1, 2)" if shape[3] == 3 else ""
        raise ValueError(f"images must be a tensor (N,3,H,W), got shape {shape}{fix}")
    if isinstance(images, np.ndarray) and shape[3] != 3:
        fix = "; turn it with .transpose(0, 2, 3, 1), or pass torch.tensor(images)" if shape[1] == 3 else ""
        raise ValueError(f"images must be an array (N,H,W,3), got shape {shape}{fix}")


def _square(source, size: int, name: str) -> torch.Tensor:
    """(3,size,size) uint8."""
    image = open_image(source, name=name)
    short, long = sorted(image.size)
    if long > _THINNEST * short:
        what = name if not isinstance(source, (str, os.PathLike)) else os.fsdecode(source)
        raise ValueError(f"{what} is a stripe of {image.width}x{image.height} pixels; crop it to at most 1:{_THINNEST}")
    if short != size:
        width, height = (max(size, round(side * size / short)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return centre_crop(pixels, size).contiguous()


def _check_size(size: int, pixels: torch.Tensor | None) -> None:
    if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, at least 1, got {size!r}")
    if pixels is not None and min(pixels.shape[-2:]) < size:
        raise ValueError(f"size {size} is larger than the images, {tuple(pixels.shape)}; use a smaller crop")


def centre_crop(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """The central size x size pixels of (N,3,H,W)."""
    _check_size(size, pixels)
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[..., top : top + size, left : left + size]


def ten_crop(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """(N,10,3,size,size) from (N,3,H,W): top left, top right, bottom left, bottom right, centre, then mirrored."""
    _check_size(size, pixels)
    bottom, right = pixels.shape[-2] - size, pixels.shape[-1] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = torch.stack([pixels[..., top : top + size, left : left + size] for top, left in corners], dim=1)
    return torch.cat([crops, crops.flip(-1)], dim=1)


def tiny_imagenet(root, split: str = "train") -> tuple[np.ndarray, torch.Tensor, list[str]]:
    """(pixels, labels, wnids): (N,3,64,64) uint8 memory map, (N,) int64, and the 200 WordNet ids, sorted.

    `root` is the unpacked folder and `split` "train" or "val". The first call decodes the images into
    `root`/{split}-pixels.npy. Missing files raise FileNotFoundError, wrong lines and damaged images ValueError.
    """
    root = Path(root)
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val' (the test images have no labels), got {split!r}")
    wnids = sorted(_need(root / "wnids.txt", root).read_text().split())
    paths, labels = _list_train(root, wnids) if split == "train" else _list_val(root, wnids)
    cache = root / f"{split}-pixels.npy"
    pixels = _read_cache(cache, len(paths))
    if pixels is None:
        _decode_all(paths, cache)
        pixels = np.load(cache, mmap_mode="r")
    return pixels, torch.tensor(labels), wnids


def _need(path: Path, root: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"Tiny ImageNet in {root} lacks {path.relative_to(root)}; unpack it whole: {_LAYOUT}")
    return path


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
    rows = [line.split("\t") for line in annotations.read_text().splitlines()]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or row[1] not in index:
            raise ValueError(f"{annotations} line {number} must be an image, a tab and an id of wnids.txt, got {row}")
    if not rows:
        raise ValueError(f"{annotations} is empty; unpack Tiny ImageNet again")
    return [root / "val" / "images" / row[0] for row in rows], [index[row[1]] for row in rows]


def _read_cache(cache: Path, count: int) -> np.ndarray | None:
    """The memory map, or None if there is none or it does not fit: cut short, or of another list of images."""
    try:
        pixels = np.load(cache, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == (count, 3, 64, 64) and pixels.dtype == np.uint8 else None


def _decode_all(paths: list[Path], target: Path) -> None:
    part = target.with_name(f"{target.name}.{os.getpid()}.part")  # two processes that decode at once do not share it
    try:
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(paths), 3, 64, 64))
        for i, path in enumerate(tqdm(paths, desc=target.stem, unit="image", disable=None)):
            image = open_image(path)
            if image.size != (64, 64):
                raise ValueError(f"{path} must have 64x64 pixels, got {image.width}x{image.height}; unpack it again")
            store[i] = np.asarray(image).transpose(2, 0, 1)
        store.flush()
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def class_names(root, wnids: list[str]) -> list[str]:
    """A readable name for each WordNet id, from Tiny ImageNet's words.txt: the first of its synonyms."""
    lines = _need(Path(root) / "words.txt", Path(root)).read_text().splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
