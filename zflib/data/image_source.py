"""The stream of images that `find_peaks` reads: from a tensor, a folder, a data set or an iterator, in fixed chunks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from . import crops
from .images import folder, open_image

#: Images in one forward pass, always: a convolution's last bits depend on how many images pass together.
CHUNK = 64
#: Images by which a saved pass is known again: all of so few, else the first, the last and others evenly between.
SAMPLE = 64
#: What a data set raises for one damaged image; anything else is a mistake in the data set and is not caught.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class Skipped(NamedTuple):
    """An image that could not be read: its number in the source, its name, and why."""

    image: int
    name: str
    reason: str


class Unreadable(Exception):
    """One image that cannot be read; the stream goes on without it."""


@dataclass
class Chunk:
    """Images first … first + size - 1 of the source; image i is always in slot i % CHUNK, other slots are 0."""

    first: int
    size: int
    images: torch.Tensor | None = None  # (CHUNK,3,H,W), None if none could be read
    slots: list[int] = field(default_factory=list)  # those that hold an image
    names: dict[int, str] = field(default_factory=dict)  # image number -> its path
    skipped: list[Skipped] = field(default_factory=list)


@dataclass
class Reader:
    """Makes one image of any kind (3,H,W) floats in the network's units."""

    net: nn.Module
    preprocess: Callable | None = None

    def __call__(self, image) -> torch.Tensor:
        if isinstance(image, Unreadable):
            raise image
        if isinstance(image, np.ndarray) and (image.dtype.kind == "f" or (image.ndim == 3 and image.shape[0] == 3)):
            image = torch.from_numpy(np.array(image))  # a copy: a memory map is read-only
        if isinstance(image, torch.Tensor) and image.is_floating_point():
            return image.detach()
        return self.crop(image) if self.crops(image) else self._prepared(_opened(image))

    def crops(self, pixels) -> bool:
        """Whether (…,3,R,R) uint8 pixels only need cropping and normalising: R is what the network resizes to."""
        sizes = getattr(self.net, "geometry", None)
        if sizes is None or self.preprocess is not None or not isinstance(pixels, torch.Tensor):
            return False
        wanted = [(3, side, side) for side in (sizes.resize, sizes.crop)]
        return pixels.dtype == torch.uint8 and tuple(pixels.shape[-3:]) in wanted

    def crop(self, pixels: torch.Tensor) -> torch.Tensor:
        """(…,3,S,S) in the network's units."""
        return self.net.normalise(crops.centre_crop(pixels, self.net.geometry.crop))

    def _prepared(self, picture: Image.Image) -> torch.Tensor:
        if self.preprocess is not None:
            image = self.preprocess(picture)
        elif hasattr(self.net, "preprocess"):
            try:
                image = self.net.preprocess(picture)
            except ValueError as error:  # a stripe of an image
                raise Unreadable(str(error)) from error
        else:
            raise ValueError(
                f"preprocess is missing: {type(self.net).__name__} does not say how it takes files or uint8 pixels; "
                "give a function from a PIL image to a float tensor (3,H,W)"
            )
        image = image[0] if isinstance(image, torch.Tensor) and image.dim() == 4 and len(image) == 1 else image
        if not isinstance(image, torch.Tensor) or image.dim() != 3 or not image.is_floating_point():
            got = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, torch.Tensor) else type(image).__name__
            raise TypeError(f"preprocess must give a float tensor (3,H,W), got {got}")
        return image.detach()


def _opened(image) -> Image.Image:
    try:
        return open_image(image, name="an image of the source")
    except (OSError, ValueError) as error:
        if isinstance(image, (str, os.PathLike, Image.Image)):
            raise Unreadable(str(error)) from error
        raise  # a wrong shape is no damaged file


def _one(item):
    """The image of a data set's item: the item itself, or the first of (image, label, …)."""
    return item[0] if isinstance(item, (tuple, list)) and item else item


def _each(piece) -> Iterator:
    """The images of what an iterator gives: an image, (image, label), a batch, or (batch, labels)."""
    pictures = isinstance(piece, list) and all(isinstance(p, Image.Image) or _rank(p) == 3 for p in piece)
    image = piece if pictures else _one(piece)
    if pictures or _rank(image) == 4:
        yield from image
    else:
        yield image


def _rank(value) -> int:
    return value.ndim if isinstance(value, (torch.Tensor, np.ndarray)) else 0


class Source:
    """What both kinds of sources share: `count` images (None until known), `kind` for saved files, a reader."""

    def __init__(self, images, reader: Reader, kind: str):
        self.images, self.reader, self.kind = images, reader, kind
        self.count: int | None = None

    def chunks(self, start: int, step: int) -> Iterator[Chunk]:
        """Chunks number start, start + step, …"""
        raise NotImplementedError

    def samples(self) -> Iterable[Callable[[], torch.Tensor]]:
        """What reads each image that stands for all: `SAMPLE` evenly spaced ones, of an iterator the first."""
        raise NotImplementedError

    def digest(self) -> str:
        """SHA-256 of the `samples`, as the network gets them."""
        digest = hashlib.sha256()
        for read in self.samples():
            try:
                feed(digest, "image", read())
            except Exception as error:  # the pass will name it, should it come to this image
                digest.update(type(error).__name__.encode())
        return digest.hexdigest()

    def _chunk(self, first: int, items: list) -> Chunk:
        chunk = Chunk(first, len(items))
        for slot, item in enumerate(items):
            name = str(item) if isinstance(item, (str, os.PathLike)) else ""
            if name:
                chunk.names[first + slot] = name
            try:
                self._put(chunk, slot, self.reader(item))
            except Unreadable as error:
                chunk.skipped.append(Skipped(first + slot, name or f"image {first + slot}", str(error)))
        return chunk

    def _put(self, chunk: Chunk, slot: int, image: torch.Tensor) -> None:
        if chunk.images is None and image.dim() == 3:
            chunk.images = image.new_zeros(CHUNK, *image.shape)
        if chunk.images is None or image.shape != chunk.images.shape[1:]:
            wanted = "(3,H,W)" if chunk.images is None else f"{tuple(chunk.images.shape[1:])} as those before it"
            raise ValueError(
                f"images: image {chunk.first + slot} must be {wanted}, got {tuple(image.shape)}; "
                "bring all images to one size"
            )
        chunk.images[slot] = image
        chunk.slots.append(slot)


class Indexed(Source):
    """A tensor, an array, a list or a map-style data set: goes straight to the chunk it is asked for."""

    def __init__(self, images, reader: Reader, kind: str):
        super().__init__(images, reader, kind)
        self.count = len(images)

    def chunks(self, start: int, step: int) -> Iterator[Chunk]:
        for first in range(start * CHUNK, self.count, step * CHUNK):
            last = min(first + CHUNK, self.count)
            block = self._block(first, last) if _rank(self.images) == 4 else None
            if block is None:
                yield self._chunk(first, [self._item(i) for i in range(first, last)])
            else:
                images = block.new_zeros(CHUNK, *block.shape[1:])
                images[: last - first] = block
                yield Chunk(first, last - first, images, list(range(last - first)))

    def samples(self) -> Iterable[Callable[[], torch.Tensor]]:
        wanted = min(self.count, SAMPLE)
        return [partial(self.one, i * (self.count - 1) // max(wanted - 1, 1)) for i in range(wanted)]

    def _block(self, first: int, last: int) -> torch.Tensor | None:
        """All images of a chunk at once where they are numbers already; None: one by one."""
        block = self.images[first:last]
        block = torch.from_numpy(np.array(block)) if isinstance(block, np.ndarray) else block.detach()
        if block.is_floating_point():
            return block
        return self.reader.crop(block) if self.reader.crops(block) else None

    def one(self, index: int) -> torch.Tensor:
        """(3,H,W) in the network's units: image number `index`."""
        return self.reader(self._item(index))

    def _item(self, index: int):
        try:
            return _one(self.images[index])
        except DAMAGED as error:
            return Unreadable(f"{type(error).__name__}: {error}")


class Stream(Source):
    """An iterator: read once, in order, by every process; what another process computes is only passed over."""

    def chunks(self, start: int, step: int) -> Iterator[Chunk]:
        images, number, read = (image for piece in self.images for image in _each(piece)), 0, 0
        while items := list(islice(images, CHUNK)):
            if number >= start and (number - start) % step == 0:
                yield self._chunk(read, items)
            number, read = number + 1, read + len(items)
        self.count = read

    def samples(self) -> Iterable[Callable[[], torch.Tensor]]:
        pieces = iter(self.images)
        first = list(islice(pieces, 1))
        self.images = chain(first, pieces)
        return [partial(self.reader, image) for piece in first for image in islice(_each(piece), 1)]


def open_source(net: nn.Module, images, preprocess: Callable | None = None) -> Source:
    """The stream of any images that `find_peaks` takes; TypeError or ValueError for what is none."""
    reader = Reader(net, preprocess)
    if preprocess is not None and not callable(preprocess):
        raise TypeError(f"preprocess must be a function from a PIL image, got {type(preprocess).__name__}")
    if isinstance(images, (str, Path)):
        paths = [os.fspath(path) for path in folder(images)]
        return Indexed(paths, reader, "folder " + hashlib.sha256("\n".join(paths).encode()).hexdigest())
    if isinstance(images, (torch.Tensor, np.ndarray)) and images.ndim != 4:
        fix = "; pass images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images must be (N,3,H,W), got shape {tuple(images.shape)}{fix}")
    if isinstance(images, (Mapping, bytes, Image.Image)) or not (_is_indexed(images) or isinstance(images, Iterable)):
        raise TypeError(
            "images must be a tensor or array (N,3,H,W), a folder's path, a data set or an iterable of images, "
            f"got {type(images).__name__}"
        )
    return Indexed(images, reader, "numbered") if _is_indexed(images) else Stream(images, reader, "iterator")


def feed(digest, name: str, value: torch.Tensor) -> None:
    """Takes a tensor's bytes, type and shape into a digest of hashlib."""
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _is_indexed(images) -> bool:
    return hasattr(images, "__getitem__") and hasattr(images, "__len__")
