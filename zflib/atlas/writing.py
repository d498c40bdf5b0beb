"""From a network and photographs to a folder of pages: search once, write the pages, then draw their pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from .. import _files
from .._arguments import check_integer, layer_path
from ..data.image_source import NumberedImages, Unreadable, in_units, open_source
from ..deconv import Deconvnet
from ..experiments.peaks import find_peaks
from ..record.hooks import check_layers
from . import pages, pictures, state
from .captions import Captions
from .chapters import Chapter, chapters_of, shapes
from .drawing import Photographs, draw_channels
from .pictures import K

COMPARED = 50  # of a channel's strongest photographs are compared with another's, but at most a twentieth of all
PART = 512  # channels are drawn together, for photographs that go forward once: an unfinished sheet takes 2 MB


def write_atlas(
    net: nn.Module, images, out, *, layers=None, names: Sequence[str] | None = None, title: str | None = None,
    preprocess=None, batch_size: int = 64,
) -> Path:  # fmt: skip
    """Write an atlas of `net` to the folder `out` and return the path of its first page, which opens from disk.

    Every channel has a page with the nine of the `images` that excite it most: their patches, the same lit by the
    projections, and the projections; with values, positions and names, and the channels that are most alike. Every
    layer has a page with a wall of its channels. `images` and `preprocess` are as `find_peaks` takes them, but no
    iterator, since winners are read again. The folder holds patches of them: think before you share it.

    `layers`: names or module paths, by default net.conv_names, of other networks all convolutions. `names`: what to
    call each image, its class for example; by default its class where its file or folder is called by one of
    net.wnids, else its file. `title`: the network's name.

    Called again in the same way it goes on where it was stopped, and does nothing once the atlas is finished. A folder
    with other files, or with the atlas of another network, photographs or settings, is refused. Bad input raises
    ValueError or TypeError.
    """
    deconvnet, layers = Deconvnet(net), check_layers(net, _convolutions(net) if layers is None else layers)
    batch_size = check_integer("batch_size", batch_size, "a whole number of images, at least 1", low=1)
    out, source = _outside(Path(out).expanduser(), images), _numbered(open_source(net, images, preprocess))
    captions = Captions(net, images, source.count, names)
    image = _first(net, source)
    sizes = shapes(deconvnet, layers, image)
    k = max(K, min(COMPARED, source.count // 20))
    paths = {str(layer): layer_path(net, layer) for layer in layers}
    state.claim(out, state.run_of(net, source, paths, names, k=k, batch_size=batch_size))
    found = find_peaks(net, images, layers=layers, k=k, batch_size=batch_size, preprocess=preprocess,
                       save=out / "peaks.pt")  # fmt: skip
    chapters = chapters_of(net, found, sizes, tuple(image.shape[-2:]))
    book = pages.Book(title or type(net).__name__, list(getattr(net, "classes", [])), chapters, captions, found, k)
    for path, text in pages.write(book):
        _write(out / path, text.encode("utf-8", "replace"))
    _draw_all(deconvnet, Photographs(net, source), chapters, out)
    return out / "index.html"


def _convolutions(net: nn.Module) -> list[str]:
    """The convolutional layers that the network names, or all its convolutions."""
    found = [path for path, module in net.named_modules() if path and isinstance(module, nn.Conv2d)]
    return getattr(net, "conv_names", None) or found


def _numbered(source) -> NumberedImages:
    if not isinstance(source, NumberedImages):
        raise TypeError("images: an iterator gives each image once; a list, an array, a folder or a data set is needed")
    return source


def _outside(out: Path, images) -> Path:
    """The folder itself; ValueError if its pictures would be taken for photographs the next time."""
    folder = Path(images).expanduser().resolve() if isinstance(images, str | os.PathLike) else None
    if folder and out.resolve().is_relative_to(folder):
        raise ValueError(f"out: {str(out)!r} lies in the folder of the photographs; choose a folder outside it")
    return out


def _first(net: nn.Module, source: NumberedImages) -> torch.Tensor:
    """(3,H,W): the first of the images that can be read."""
    for number in range(source.count):
        try:
            return in_units(net, source[number][None])[0]
        except Unreadable as error:
            reason = error
    raise ValueError(f"images: none of the {source.count} could be read, the last: {reason}" if source.count else
                     "images is empty; give at least one image")  # fmt: skip


def _draw_all(deconvnet: Deconvnet, photographs: Photographs, chapters: list[Chapter], out: Path) -> None:
    """All sheets that are not there yet, and the walls."""
    missing = {chapter.folder: _missing(out, chapter) for chapter in chapters}
    total, left = sum(len(chapter.channels) for chapter in chapters), sum(map(len, missing.values()))
    with tqdm(desc="atlas", total=total, initial=total - left, unit="channel", smoothing=0.05) as bar:
        for chapter in chapters:
            for start in range(0, len(chapter.channels), PART):
                part = chapter.channels[start : start + PART]
                if wanted := missing[chapter.folder] & set(part):
                    _draw_part(deconvnet, photographs, chapter, part, wanted, out, bar)
            _draw_wall(chapter, out)


def _missing(out: Path, chapter: Chapter) -> set[int]:
    return {channel for channel in chapter.channels if not (out / pages.sheet_path(chapter, channel)).is_file()}


def _draw_part(deconvnet, photographs, chapter: Chapter, part: range, wanted: set[int], out: Path, bar: tqdm) -> None:
    """The sheets of a part, always drawn whole: the last bits of a projection depend on what went down with it."""
    sheets, channels = draw_channels(deconvnet, photographs, chapter, part), sorted(wanted)
    with ThreadPoolExecutor() as pool:
        contents = pool.map(pictures.encoded, [sheets[channel] for channel in channels])
        for channel, content in zip(channels, contents):
            _files.write_atomically(out / pages.sheet_path(chapter, channel), content)
            bar.update()


def _draw_wall(chapter: Chapter, out: Path) -> None:
    """Made from the finished sheets, so that a run that was stopped gives the same."""
    path = out / chapter.folder / "wall.webp"
    if not path.is_file():
        sheets = [out / pages.sheet_path(chapter, channel) for channel in chapter.channels]
        _files.write_atomically(path, pictures.encoded(pictures.wall(sheets)))


def _write(path: Path, content: bytes) -> None:
    """Write the file unless it is there already, as it should be."""
    if not (path.is_file() and path.read_bytes() == content):
        path.parent.mkdir(exist_ok=True)
        _files.write_atomically(path, content)
