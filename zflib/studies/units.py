"""One channel as Figure 2 shows it: nine projections, nine image patches, and its map over the strongest image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import show
from .._arguments import check_layer
from ..data.image_source import open_source
from ..deconv import Deconvnet
from ..deconv.receptive_boxes import receptive_fields
from ..experiments.peaks import find_peaks
from ..record.hooks import check_layers
from .gallery import check_labels, crop, images_of

SIDE = 88  # pixels of one of nine small pictures
WHOLE = 3 * SIDE + 2 * 4  # of a sheet of nine


@dataclass(eq=False)
class Unit:
    """A channel and its k strongest images: `values` (k,), `numbers` (k,), `positions` (k,2), `images` (k,3,H,W).

    `boxes` (k,4) are what the activations see, (top, left, bottom, right) in their images, not clipped; of a field
    larger than the image `projections` and `patches` show the middle, as large as the image.
    """

    net: nn.Module
    layer: str
    channel: int
    values: torch.Tensor
    numbers: torch.Tensor
    positions: torch.Tensor
    images: torch.Tensor
    boxes: torch.Tensor

    @cached_property
    def projections(self) -> torch.Tensor:
        """(k,3,h,w) cropped to the receptive field."""
        positions = self.positions if self.spatial else None
        whole = Deconvnet(self.net).project(self.images, self.layer, self.channel, positions=positions)
        return crop(self.net, self.layer, whole.cpu(), self.positions)

    @cached_property
    def patches(self) -> torch.Tensor:
        """(k,3,h,w) of the images, grey (0) beyond them."""
        return crop(self.net, self.layer, self.images, self.positions)

    @cached_property
    def map(self) -> torch.Tensor:
        """(h,w): the channel over its strongest image; of a fully connected layer one number."""
        return Deconvnet(self.net).activations(self.images[:1], self.layer)[0, self.channel]

    @property
    def spatial(self) -> bool:
        """Whether the layer has maps."""
        return self.map.dim() == 2


class Units:
    """Every channel of some layers over a set of images, found once; each `unit` is made when it is asked for.

    `images` as `find_peaks` takes them, but numbered: an array, a tensor, a folder, a data set. `peaks`: what
    `find_peaks` or a gallery found in them before (else it is found now); `labels` (N,): their classes, indices into
    `classes`, by default the network's.
    """

    def __init__(self, net, images, *, layers=None, peaks=None, labels=None, classes=None, preprocess=None):
        self.classes = list(getattr(net, "classes", []) if classes is None else classes)
        self.net, self.images, self.preprocess = net, images, preprocess
        if not (layers := layers or peaks or getattr(net, "conv_names", [])):
            raise ValueError("layers is missing: this network names none; give some module paths of named_modules()")
        self.layers = check_layers(net, layers)
        found = find_peaks(net, images, layers=self.layers, preprocess=preprocess) if peaks is None else peaks
        self.files = getattr(found, "names", {})  # number -> path
        self.peaks = {check_layer(net, layer): found[layer] for layer in self.layers}
        self.layers = list(self.peaks)
        count = open_source(net, images, preprocess).count
        last = max(int(self.peaks[layer].images.max()) for layer in self.layers)
        if count is not None and last >= count:
            raise ValueError(f"peaks are of other images: they name number {last}, and there are {count} images")
        self.labels = None if labels is None else check_labels(labels, count, self.classes)
        self.unit = lru_cache(maxsize=64)(self._unit)

    def channels(self, layer: str) -> int:
        """How many the layer has."""
        return len(self.peaks[layer].values)

    def _unit(self, layer: str, channel: int) -> Unit:
        peaks = self.peaks[layer]
        found = (peaks.images[channel] >= 0).nonzero().flatten()  # fewer than nine if there are fewer images
        values, numbers, positions = (
            part[channel, found].cpu() for part in (peaks.values, peaks.images, peaks.positions)
        )
        images = images_of(self.net, self.images, numbers, preprocess=self.preprocess)
        boxes = receptive_fields(self.net, layer, positions, size=tuple(images.shape[-2:]))
        return Unit(self.net, layer, channel, values, numbers, positions, images, boxes)

    def names(self, unit: Unit) -> list[str]:
        """The class, or the file, or nothing known of each of the unit's images."""
        if self.labels is not None:
            labels = self.labels[unit.numbers].tolist()
            return [self.classes[label] if self.classes else f"class {label}" for label in labels]
        paths = [self.files[number] for number in unit.numbers.tolist() if number in self.files]
        return [path.replace("\\", "/").rpartition("/")[2] for path in paths]


def projection_pixels(projection: torch.Tensor, side: int = SIDE) -> np.ndarray:
    """(side,side,3) uint8 of one cut projection, enlarged smoothly; 99 in 100 of its values fit into the range."""
    return show.fit(show.signed_pixels(projection, full=show.limit(projection, 99)), side, smooth=True)


def nine_pixels(pictures: torch.Tensor, net: nn.Module | None = None, *, side: int = SIDE) -> np.ndarray:
    """One sheet of three by three: (k,3,h,w) projections, or with `net` patches of images in its units."""
    if net is None:
        tiles = [projection_pixels(picture, side) for picture in pictures]
    else:
        tiles = [show.fit(show.image_pixels(picture, net), side, smooth=True) for picture in pictures]
    blank = np.full((side, side, 3), 255, np.uint8)
    return show.mosaic(tiles + [blank] * (9 - len(tiles)), columns=3, gap=4)


def spotlight(pixels: np.ndarray, activation_map: torch.Tensor) -> np.ndarray:
    """(H,W,3) uint8: the picture, bright where the map is high and half as bright where it is zero."""
    top = activation_map.max().clamp(min=1e-12)
    light = F.interpolate((activation_map / top).clamp(min=0)[None, None].float(), pixels.shape[:2], mode="bilinear")
    return (pixels * (0.5 + 0.5 * light[0, 0, :, :, None].cpu().numpy())).round().astype(np.uint8)


def unit_pixels(unit: Unit) -> np.ndarray:
    """(H,W,3) uint8: nine projections | nine patches | the map as light on the strongest image, the field framed."""
    image = show.image_pixels(unit.images[0], unit.net)
    large = show.upscale(image, WHOLE, smooth=True)
    height, width = image.shape[:2]
    box = [min(max(edge, 0), end) for edge, end in zip(unit.boxes[0].tolist(), (height, width) * 2)]
    lit = spotlight(large, unit.map) if unit.spatial else large
    whole = show.framed(lit, box, scale=WHOLE / max(height, width))
    sheets = [nine_pixels(unit.projections), nine_pixels(unit.patches, unit.net), show.fit(whole, WHOLE)]
    (rows, columns), (top, left, bottom, right) = unit.patches.shape[-2:], unit.boxes[0].tolist()
    part = "" if (bottom - top, right - left) == (rows, columns) else "middle "  # a field larger than the image
    titles = [
        f"{unit.layer}, channel {unit.channel}: projections",
        f"the patches, {part}{rows}×{columns} pixels",
        "its map over the strongest",
    ]
    return show.beside(sheets, titles)


def describe_unit(unit: Unit, names: list[str]) -> str:
    """The same in words: how strong, and what the images are, the most frequent first."""
    values = unit.values.tolist()
    words = ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in Counter(names).most_common())
    first = (
        f"Channel {unit.channel} of {unit.layer}: {values[0]:.3g} over its strongest image, {values[-1]:.3g} over the "
        f"{_ordinal(len(values))}."
    )
    silent = " It is silent on all of them." if values[0] <= 0 else ""
    return f"{first}{silent}" + (f" They are: {words}." if words else "")


def _ordinal(number: int) -> str:
    names = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    return names[number - 1] if number <= len(names) else f"{number}th"
