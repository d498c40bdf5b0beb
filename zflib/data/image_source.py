"""The images that `find_peaks` reads, in batches: from a tensor, a folder, a data set or an iterator."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import multiprocessing, nn
from torch.utils import data as torch_data

from .._arguments import check_dense
from . import crops
from .images import folder, open_image

#: What a data set raises for one damaged image; anything else is a mistake in the data set and is not caught.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
SOON = 5.0  # seconds of reading that are not worth the start of worker processes
WORKERS = 4  # that read ahead, at most
SAMPLES = 16  # images that stand for all of a source


class Skipped(NamedTuple):
    """An image that could not be read: its number in the source, its name, and why."""

    image: int
    name: str
    reason: str


class Unreadable(ValueError):
    """One image that cannot be read; the search goes on without it."""


@dataclass
class Batch:
    """`size` images of the source from number `first` on; `images` (R,3,H,W) are those that could be read."""

    first: int
    size: int
    images: torch.Tensor | None = None  # None: not one of them
    numbers: list[int] = field(default_factory=list)  # R numbers in the source
    names: dict[int, str] = field(default_factory=dict)  # number -> path
    skipped: list[Skipped] = field(default_factory=list)


class Reader:
    """Makes (3,H,W) of an image of any kind: floats in the network's units, or uint8 pixels that `in_units` takes.

    Without the network, unless `preprocess` holds it, so that it can go to worker processes.
    """

    def __init__(self, net: nn.Module, preprocess: Callable | None):
        if preprocess is not None and not callable(preprocess):
            raise TypeError(f"preprocess must be a function from a PIL image, got {type(preprocess).__name__}")
        geometry = getattr(net, "geometry", None) if preprocess is None else None
        self.sides = (geometry.resize, geometry.crop) if geometry else ()
        self.preprocess = self._cropped if geometry else preprocess or getattr(net, "preprocess", None)

    def __call__(self, image) -> torch.Tensor:
        if isinstance(image, np.ndarray) and (image.dtype.kind == "f" or (image.ndim == 3 and image.shape[0] == 3)):
            image = _from_numpy(image)
        if isinstance(image, torch.Tensor):
            check_dense(image)
        if isinstance(image, torch.Tensor) and self.knows(image):
            return self.block(image)
        return self._prepared(_opened(image))

    def knows(self, images: torch.Tensor) -> bool:
        """Whether they are floats, or pixels (…,3,R,R) as many as the network resizes to or takes."""
        sizes = [(3, side, side) for side in self.sides]
        return images.is_floating_point() or (images.dtype == torch.uint8 and tuple(images.shape[-3:]) in sizes)

    def block(self, images: torch.Tensor) -> torch.Tensor:
        """One or many of those that it knows."""
        return images.detach() if images.is_floating_point() else crops.centre_crop(images, self.sides[1])

    def _cropped(self, picture: Image.Image) -> torch.Tensor:
        return self.block(crops.stack(picture, self.sides[0])[0])

    def _prepared(self, picture: Image.Image) -> torch.Tensor:
        if self.preprocess is None:
            raise TypeError("preprocess is missing: this network does not say how it takes files or uint8 pixels; "
                            "give a function from a PIL image to a float tensor (3,H,W), or say it once, "
                            "zflib.models.with_preprocessing(net, resize=…, crop=…)")  # fmt: skip
        try:
            image = self.preprocess(picture)
        except ValueError as error:  # a stripe of an image
            raise Unreadable(str(error)) from error
        if isinstance(image, torch.Tensor):
            check_dense(image)
            image = image[0] if image.dim() == 4 and len(image) == 1 else image
        if not isinstance(image, torch.Tensor) or not (image.is_floating_point() or self.sides):
            raise TypeError(f"preprocess must give a float tensor (3,H,W), got {getattr(image, 'dtype', type(image))}")
        return image.detach()

    def batch(self, first: int, items: list) -> Batch:
        """The batch of these items, the first of which has number `first` in the source."""
        batch, images = Batch(first, len(items)), []
        for number, item in enumerate(items, start=first):
            name = str(item) if isinstance(item, (str, os.PathLike)) else ""
            try:
                image = self(item)
            except Unreadable as error:
                batch.skipped.append(Skipped(number, name or f"image {number}", str(error)))
                continue
            images.append(image)
            batch.numbers.append(number)
            batch.names |= {number: name} if name else {}
            _check_alike(number, images)
        batch.images = torch.stack(images) if images else None
        return batch


def _from_numpy(array: np.ndarray) -> torch.Tensor:
    """A copy, since a memory map is read-only, in this machine's byte order."""
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except TypeError as error:
        fix = "use images.astype(np.float32)"
        raise TypeError(f"images must hold floats or uint8 pixels, got {array.dtype}; {fix}") from error


def _check_alike(number: int, images: list[torch.Tensor]) -> None:
    """ValueError unless the last of the images, `number` in the source, is (3,H,W) and of the first one's kind."""
    first, last = images[0], images[-1]
    if last.dim() != 3 or last.shape != first.shape:
        wanted = f"{tuple(first.shape)} as those before it" if images[1:] else "(3,H,W)"
        raise ValueError(f"images: image {number} must be {wanted}, got {tuple(last.shape)}; "
                         "bring all images to one size")  # fmt: skip
    if last.dtype != first.dtype:
        raise ValueError(f"images: image {number} holds {last.dtype}, those before it {first.dtype}; give one kind")


def _opened(image) -> Image.Image:
    if isinstance(image, Unreadable):
        raise image
    try:
        return open_image(image, name="an image of the source")
    except (OSError, ValueError) as error:
        if isinstance(image, (str, os.PathLike, Image.Image)):
            raise Unreadable(str(error)) from error
        raise  # a wrong shape is no damaged file


def in_units(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a Reader made, in the network's units."""
    return images if images.is_floating_point() else net.normalise(images)


class NumberedImages(torch_data.Dataset):
    """A tensor, an array, a list, a folder's files or a map-style data set: each image can be read by its number."""

    def __init__(self, images, reader: Reader, collate: Callable | None = None):
        self.images, self.reader, self.collate, self.count = images, reader, collate, len(images)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.reader(self._item(number))

    def __getitems__(self, numbers: range) -> Batch:
        """How a DataLoader asks for a batch."""
        if isinstance(self.images, (torch.Tensor, np.ndarray)) and self.collate is None:
            block = self.images[numbers.start : numbers.stop]
            block = _from_numpy(block) if isinstance(block, np.ndarray) else block
            if self.reader.knows(block):
                return Batch(numbers.start, len(numbers), self.reader.block(block), list(numbers))
        return self.reader.batch(numbers.start, [self._item(number) for number in numbers])

    def _item(self, number: int):
        try:
            item = self.images[number]
        except DAMAGED as error:
            return Unreadable(f"{type(error).__name__}: {error}")
        except LookupError as error:
            if isinstance(error, KeyError) and error.args != (number,):  # a mistake in the data set
                raise
            raise ValueError(f"images: no image {number} of {self.count}; mend the data set's length") from error
        return next(_each(_collated(self.collate, item))) if self.collate else _one(item)

    def batches(self, size: int, start: int = 0, step: int = 1) -> Iterator[Batch]:
        """Batches number start, start + step, … of `size` images; how long the first one takes decides on workers."""
        firsts = range(start * size, self.count, step * size)
        numbers = [range(first, min(first + size, self.count)) for first in firsts]
        began = time.monotonic()
        yield from (shown := [self.__getitems__(some) for some in numbers[:1]])
        seconds = (time.monotonic() - began) * len(numbers[1:])
        yield from self._loaded(numbers[1:], _workers(self, shown) if seconds > SOON else 0)

    def _loaded(self, numbers: list[range], workers: int) -> Iterator[Batch]:
        loader = torch_data.DataLoader(self, batch_sampler=numbers, collate_fn=_as_it_is, num_workers=workers,
                                       generator=torch.Generator())  # fmt: skip
        with torch.device("cpu"):  # wherever torch makes tensors by default: the loader draws a seed on the CPU
            batches = iter(loader)
        try:
            yield from batches
        except (TypeError, ValueError) as error:
            if not workers:
                raise
            sentence = str(error).strip().splitlines()[-1].partition(": ")[2]  # below the worker's own traceback
            raise type(error)(sentence) from error

    def samples(self) -> list[torch.Tensor | None]:
        """Some of the images, evenly spaced, as the network gets them; None for one that cannot be read."""
        numbers = np.linspace(0, self.count - 1, min(self.count, SAMPLES), dtype=int).tolist()
        return [self.reader.batch(number, [self._item(number)]).images for number in numbers]


class ImageStream:
    """An iterator: read once, in order, by every process; what another process computes is only passed over."""

    def __init__(self, images: Iterable, reader: Reader, collate: Callable | None = None):
        self.claimed = len(images) if isinstance(images, torch_data.IterableDataset) and _has_length(images) else None
        self.images = (_collated(collate, item) for item in images) if collate else images
        self.reader, self.count = reader, None

    def batches(self, size: int, start: int = 0, step: int = 1) -> Iterator[Batch]:
        """Batches number start, start + step, … of `size` images; `count` is known afterwards."""
        images, number, read = (image for piece in self._pieces() for image in _each(piece)), 0, 0
        while items := list(islice(images, size)):
            if number >= start and (number - start) % step == 0:
                yield self.reader.batch(read, items)
            number, read = number + 1, read + len(items)
        self.count = read

    def _pieces(self) -> Iterator:
        """What the iterator gives; ValueError if it is a data set that ends before its own length."""
        given = 0
        for piece in self.images:
            given += 1
            yield piece
        if self.claimed is not None and given != self.claimed:
            raise ValueError(f"images: the data set gives {given} and says it has {self.claimed}; mend its length")

    def samples(self) -> list[torch.Tensor | None]:
        """The first image: nothing else can be had without reading."""
        pieces = iter(self.images)
        first = list(islice(pieces, 1))
        self.images = chain(first, pieces)
        return [self.reader.batch(0, [image]).images for piece in first for image in islice(_each(piece), 1)]


def _has_length(images) -> bool:
    try:
        return len(images) >= 0
    except (TypeError, NotImplementedError):  # none, or none that is known, as of a chain of streams
        return False


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _workers(images: NumberedImages, shown: list[Batch]) -> int:
    """How many processes should read `images`, of which `shown` was read here: none from memory, or with a GPU."""
    if isinstance(images.images, (torch.Tensor, np.ndarray)):
        return 0
    on_gpu = any(batch.images is not None and batch.images.device.type != "cpu" for batch in shown)
    if on_gpu or (multiprocessing.get_start_method() != "fork" and not _can_be_sent(images)):
        return 0
    return min(WORKERS, (os.cpu_count() or 1) - 1)


def _can_be_sent(images: NumberedImages) -> bool:
    """Whether a process that is not forked (macOS, Windows) can read them.

    It runs a script from its beginning, gets the images pickled, and does not know what a notebook's cells define.
    """
    script = hasattr(sys.modules["__main__"], "__file__")
    if script or isinstance(getattr(images.reader.preprocess, "__self__", None), nn.Module):
        return False
    try:
        return b"__main__" not in pickle.dumps(images)
    except Exception:  # what cannot be pickled raises all sorts of things
        return False


def _one(item):
    """The image of a data set's item: the item itself, or the first of (image, label, …) or {"image": …, …}."""
    item = tuple(item.values()) if isinstance(item, Mapping) else item
    return item[0] if isinstance(item, (tuple, list)) and item else item


def _collated(collate: Callable, item):
    """What a `collate_fn` of yours makes of one item; one that it leaves out cannot be read."""
    try:
        made = collate([item])
    except Exception as error:  # of an empty batch, all sorts of things
        return Unreadable(f"collate_fn: {type(error).__name__}: {error}")
    left_out = made is None or (hasattr(made, "__len__") and not len(made))
    return Unreadable("collate_fn leaves it out") if left_out else made


def _each(piece) -> Iterator:
    """The images of what an iterator gives: an image, (image, label), a batch, or (batch, labels)."""
    pictures = isinstance(piece, list) and all(isinstance(p, Image.Image) or getattr(p, "ndim", 0) == 3 for p in piece)
    image = piece if pictures else _one(piece)
    if pictures or getattr(image, "ndim", 0) == 4:
        yield from image
    else:
        yield image


def open_source(net: nn.Module, images, preprocess: Callable | None = None) -> NumberedImages | ImageStream:
    """Any images that `find_peaks` takes; TypeError or ValueError for what is none."""
    reader, collate = Reader(net, preprocess), None
    if isinstance(images, torch_data.dataloader._BaseDataLoaderIter):
        raise TypeError("images: an iterator of a DataLoader counts in the order in which the loader reads; "
                        "give the DataLoader itself, and numbers are those of its data set")  # fmt: skip
    if isinstance(images, torch_data.DataLoader):
        images, collate = _unloaded(images)
    if isinstance(images, (str, Path)):
        return NumberedImages([os.fspath(path) for path in folder(images)], reader)
    if isinstance(images, torch.Tensor):
        check_dense(images)
    if isinstance(images, (torch.Tensor, np.ndarray)) and images.ndim != 4:
        fix = "; pass images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images must be (N,3,H,W), got shape {tuple(images.shape)}{fix}")
    numbered = hasattr(images, "__getitem__") and hasattr(images, "__len__")
    if isinstance(images, (Mapping, bytes, Image.Image)) or not (numbered or isinstance(images, Iterable)):
        raise TypeError("images must be a tensor or array (N,3,H,W), a folder's path, a data set or an iterable of "
                        f"images, got {type(images).__name__}")  # fmt: skip
    if numbered and not isinstance(images, torch_data.IterableDataset):  # whose __getitem__ only raises
        return NumberedImages(images, reader, collate)
    return ImageStream(images, reader, collate)


def _unloaded(loader: torch_data.DataLoader) -> tuple[Iterable, Callable | None]:
    """The loader's data set, whose numbers count in whatever order the loader reads it, and a `collate_fn` of yours.

    ValueError for a loader that chooses some of the images, or some of them twice.
    """
    batches = loader.batch_sampler  # None: images come one by one; one of the caller's own may have no sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", batches)
    if not isinstance(loader.dataset, torch_data.IterableDataset) and not _takes_all(sampler, loader.dataset):
        raise ValueError(f"images: this DataLoader chooses images by a {type(sampler).__name__}; give its data set, or "
                         "a torch.utils.data.Subset of it")  # fmt: skip
    own = loader.collate_fn not in (torch_data.default_collate, torch_data.default_convert)
    return loader.dataset, loader.collate_fn if own else None


def _takes_all(sampler, images) -> bool:
    """Whether the processes that share a sampler get every image once, in whatever order."""
    if isinstance(sampler, torch_data.DistributedSampler):
        return len(sampler.dataset) == len(images)
    plain = isinstance(sampler, (torch_data.SequentialSampler, torch_data.RandomSampler))
    return plain and not getattr(sampler, "replacement", False) and len(sampler) == len(images)


def images_of(net: nn.Module, images, numbers: torch.Tensor, *, preprocess: Callable | None = None) -> torch.Tensor:
    """(…,3,H,W) in the network's units: images number `numbers` (…) of a source as `find_peaks` takes them."""
    source = open_source(net, images, preprocess)
    if not isinstance(source, NumberedImages):
        raise TypeError("images: an iterator gives each image once; a list, an array, a folder or a data set is needed")
    wanted = numbers.flatten().tolist()
    if wrong := [number for number in wanted if not 0 <= number < source.count]:
        raise ValueError(f"numbers must be images from 0 to {source.count - 1}, got {wrong[0]}")
    some = torch.stack([source[number] for number in wanted])
    return in_units(net, some).unflatten(0, numbers.shape)
