"""One channel as Figure 2 shows it: its strongest images, the patches that it sees in them, and their projections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import show
from .._arguments import check_channels, check_choice, check_layer
from ..data.image_source import open_source
from ..deconv import Deconvnet, Unsupported
from ..deconv.receptive_boxes import fields_seen, patches
from ..experiments.peaks import find_peaks
from ..record.hooks import check_layers
from .gallery import check_labels, images_of, middle
from .way_down import WayDown

SIDE = 88  # pixels of one of nine small pictures
TILE, COLUMNS, GAP = 156, 6, 8  # of the explorers' rows: six pictures in 976 pixels
#: How a projection may be drawn: as it is; blurred a little and paler; as light on its patch; without colour.
VIEWS = ("raw", "calm", "lit", "grey")
LUMINANCE = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
BATCH = 64  # images in one forward pass of `Units.strongest`


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

    @property
    def address(self) -> str:
        """What `explore.units(net, unit=…)` takes."""
        return f"{self.layer}:{self.channel}"

    @property
    def maps(self) -> torch.Tensor:
        """(k,h,w): the channel over its images; (k,) of a fully connected layer."""
        return self._looked[0]

    @property
    def projections(self) -> torch.Tensor:
        """(k,3,h,w) cropped to the receptive field; Unsupported where there is no way down."""
        if self.refused:
            raise Unsupported(self.refused)
        return self._looked[1]

    @property
    def refused(self) -> str:
        """Why nothing is projected, "" if there is a way down."""
        return self._looked[2]

    @cached_property
    def _looked(self) -> tuple[torch.Tensor, torch.Tensor | None, str]:
        """Maps and projections, or why there are none, from one forward pass; the pass itself is not kept."""
        way = WayDown(self.net)
        tape = way.record(self.images, self.layer)
        channels = check_channels(self.channel, tape.activations, self.layer)
        owners, positions = torch.arange(len(channels)).to(channels), self.positions.to(channels)
        whole = way.descend(tape, owners, channels, positions)
        projections = None if whole is None else patches(whole.cpu(), self._shown)
        return tape.activations[:, self.channel].clone(), projections, way.refused

    @cached_property
    def patches(self) -> torch.Tensor:
        """(k,3,h,w) of the images, grey (0) beyond them."""
        return patches(self.images, self._shown)

    @property
    def within(self) -> np.ndarray:
        """(k,h,w,1) bool: where the patches lie within their images."""
        inside = patches(torch.ones(len(self.images), 1, *self.images.shape[-2:]), self._shown)
        return inside.bool().permute(0, 2, 3, 1).numpy()

    @property
    def _shown(self) -> torch.Tensor:
        return middle(self.boxes, self.images.shape[-2:])

    @property
    def map(self) -> torch.Tensor:
        """(h,w): the channel over its strongest image; of a fully connected layer one number."""
        return self.maps[0]

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
        self.unit, self._fields = lru_cache(maxsize=64)(self._unit), lru_cache(self._fields)

    def channels(self, layer: str) -> int:
        """How many the layer has."""
        return len(self.peaks[layer].values)

    @property
    def counts(self) -> dict[str, int]:
        """Layer -> how many channels it has."""
        return {layer: self.channels(layer) for layer in self.layers}

    def _unit(self, layer: str, channel: int, count: int | None = None) -> Unit:
        """The channel with its `count` strongest images, by default with all that were found."""
        peaks = self.peaks[layer]
        found = (peaks.images[channel] >= 0).nonzero().flatten()[:count]  # there may be fewer images
        values, numbers, positions = (
            part[channel, found].cpu() for part in (peaks.values, peaks.images, peaks.positions)
        )
        images = images_of(self.net, self.images, numbers, preprocess=self.preprocess)
        boxes = self._fields(layer, tuple(images.shape[-2:]))[channel, found]
        return Unit(self.net, layer, channel, values, numbers, positions, images, boxes)

    def _fields(self, layer: str, size: tuple[int, int]) -> torch.Tensor:
        """(C,k,4) boxes of all the layer's positions, for images of `size`; of a missing image any box."""
        return fields_seen(self.net, layer, self.peaks[layer].positions.cpu().clamp(min=0), size)

    def strongest(self, layer: str, channels: range) -> torch.Tensor:
        """(B,3,h,w): of each of the channels the projection of its strongest image, cropped to its field.

        One forward pass for many images at once: what a wall of tiles needs.
        """
        peaks, deconvnet = self.peaks[layer], Deconvnet(self.net)
        numbers, owners = peaks.images[channels.start : channels.stop, 0].cpu().unique(return_inverse=True)
        drawn: dict[int, torch.Tensor] = {}
        for some in torch.arange(len(numbers)).split(BATCH):
            images = images_of(self.net, self.images, numbers[some], preprocess=self.preprocess)
            tape = deconvnet.record(images, layer)
            mine = ((owners >= some[0]) & (owners <= some[-1])).nonzero().flatten()
            seeds = mine + channels.start
            where = (owners[mine] - some[0], seeds, peaks.positions[seeds, 0].cpu())
            whole = deconvnet.descend(tape, *(part.to(tape.activations.device) for part in where)).cpu()
            boxes = middle(self._fields(layer, tuple(images.shape[-2:]))[seeds, 0], images.shape[-2:])
            drawn.update(zip(mine.tolist(), patches(whole, boxes)))
        return torch.stack([drawn[number] for number in range(len(owners))])

    def names(self, unit: Unit) -> list[str]:
        """The class, or the file, or nothing known of each of the unit's images."""
        if self.labels is not None:
            labels = self.labels[unit.numbers].tolist()
            return [self.classes[label] if self.classes else f"class {label}" for label in labels]
        paths = [self.files[number] for number in unit.numbers.tolist() if number in self.files]
        return [path.replace("\\", "/").rpartition("/")[2] for path in paths]


def locate(address: str, counts: Mapping[str, int]) -> tuple[str, int]:
    """Layer and channel of a unit's address like "conv5:173", within `counts` (layer -> channels); else ValueError."""
    layer, colon, channel = str(address).rpartition(":")
    if not colon or not channel.isdecimal():
        raise ValueError(f"unit must be a layer and a channel, like '{next(iter(counts))}:0', got {address!r}")
    if layer not in counts:
        raise ValueError(f"unit must be of one of the layers {', '.join(counts)}, got {address!r}")
    if int(channel) >= counts[layer]:
        last = counts[layer] - 1
        raise ValueError(f"unit must be one of the channels 0 to {last} of layer {layer!r}, got {address!r}")
    return layer, int(channel)


def projection_pixels(
    projection: torch.Tensor, side: int = SIDE, *, view: str = "raw", patch=None, net: nn.Module | None = None
) -> np.ndarray:
    """(side,side,3) uint8 of one cut projection, enlarged smoothly; 99 in 100 of its values fit into the range.

    `view` is one of `VIEWS`; "lit" needs the patch of the image, (3,h,w) in the units of `net` or uint8 (h,w,3).
    """
    if view == "lit":
        return show.fit(show.lit(patch, projection, net=net), side, smooth=True)
    if view == "calm":
        projection = show.calm(projection)
    elif view == "grey":
        projection = (projection * LUMINANCE.to(projection)).sum(dim=0, keepdim=True)
    return show.fit(show.signed_pixels(projection, full=show.limit(projection, 99)), side, smooth=True)


def unit_tiles(unit: Unit, view: str, side: int = TILE) -> list[np.ndarray]:
    """k (side,side,3) uint8 pictures: the unit's projections, drawn as one of `VIEWS` says."""
    pairs = zip(unit.patches, unit.projections)
    return [projection_pixels(drawn, side, view=view, patch=patch, net=unit.net) for patch, drawn in pairs]


def patch_tiles(unit: Unit, side: int = TILE) -> list[np.ndarray]:
    """k (side,side,3) uint8 pictures: what the unit sees in its strongest images, beyond them grey."""
    tiles = []
    for patch, within in zip(unit.patches, unit.within):
        pixels = np.where(within, show.image_pixels(patch, unit.net), np.uint8(show.GREY))
        tiles.append(show.fit(pixels, side, smooth=True))
    return tiles


def nine_pixels(pictures: torch.Tensor, net: nn.Module | None = None, *, side: int = SIDE) -> np.ndarray:
    """One sheet of three by three: (k,3,h,w) projections, or with `net` patches of images in its units."""
    if net is None:
        tiles = [projection_pixels(picture, side) for picture in pictures]
    else:
        tiles = [show.fit(show.image_pixels(picture, net), side, smooth=True) for picture in pictures]
    return sheet(tiles, columns=3, rows=3, gap=4)


def sheet(tiles: list[np.ndarray], *, columns: int, rows: int = 1, gap: int = GAP) -> np.ndarray:
    """(H,W,3) uint8: tiles of one size in reading order, white where there are fewer than `columns` times `rows`."""
    blank = np.full_like(tiles[0], 255)
    return show.mosaic(tiles + [blank] * (columns * rows - len(tiles)), columns=columns, gap=gap)


def spotlight(pixels: np.ndarray, activation_map: torch.Tensor) -> np.ndarray:
    """(H,W,3) uint8: the picture, bright where the map is high and half as bright where it is zero."""
    top = activation_map.max().clamp(min=1e-12)
    light = F.interpolate((activation_map / top).clamp(min=0)[None, None].float(), pixels.shape[:2], mode="bilinear")
    return (pixels * (0.5 + 0.5 * light[0, 0, :, :, None].cpu().numpy())).round().astype(np.uint8)


def whole_tiles(unit: Unit, side: int = TILE) -> list[np.ndarray]:
    """k (side,side,3) uint8 pictures: the unit's strongest images under the light of its maps, the fields framed."""
    (height, width), tiles = unit.images.shape[-2:], []
    for image, light, box in zip(unit.images, unit.maps, unit.boxes.tolist()):
        large = show.upscale(show.image_pixels(image, unit.net), side, smooth=True)
        inside = [min(max(edge, 0), end) for edge, end in zip(box, (height, width) * 2)]
        framed = show.framed(spotlight(large, light), inside, scale=side / max(height, width))
        tiles.append(show.fit(framed, side))
    return tiles


TITLES = {
    "raw": "their projections",
    "calm": "their projections, blurred a little and paler",
    "lit": "the patches, lit where their projections are strong",
    "grey": "their projections, brightness only",
}


def unit_pixels(unit: Unit, view: str = "raw") -> np.ndarray:
    """(H,W,3) uint8, rows of six: the strongest images with map and field, the patches, the projections as `view`.

    A fully connected unit has neither map nor field: two rows. Without a way down the projections are left out.
    """
    check_choice("view", view, VIEWS)
    (rows, columns), (top, left, bottom, right) = unit.patches.shape[-2:], unit.boxes[0].tolist()
    part = "" if (bottom - top, right - left) == (rows, columns) else "the middle of "  # a field larger than the image
    titles = {f"what the channel sees there: {part}its field, {rows}×{columns} pixels": patch_tiles(unit)}
    if unit.spatial:
        titles = {f"{unit.address}, its strongest images, bright where its map is high": whole_tiles(unit)} | titles
    if not unit.refused:
        values = [f"{value:.3g}" for value in unit.values.tolist()]
        drawn = [show.caption(tile, value, lines=1) for tile, value in zip(unit_tiles(unit, view), values)]
        titles |= {f"{TITLES[view]}, with the activations": drawn}
    parts = [show.caption(sheet(tiles[:COLUMNS], columns=COLUMNS), title) for title, tiles in titles.items()]
    space = np.full((GAP, parts[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([one for part in parts for one in (part, space)][:-1])


def describe_unit(unit: Unit, names: list[str]) -> str:
    """The same in words: how strong, and what the images are, the most frequent first."""
    values = unit.values.tolist()
    words = ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in Counter(names).most_common())
    first = (
        f"{unit.address}. Channel {unit.channel} of {unit.layer}: {values[0]:.3g} over its strongest image, "
        f"{values[-1]:.3g} over the {_ordinal(len(values))}."
    )
    silent = " It is silent on all of them." if values[0] <= 0 else ""
    refused = f" No projection: {unit.refused}." if unit.refused else ""
    return f"{first}{silent}" + (f" They are: {words}." if words else "") + refused


def _ordinal(number: int) -> str:
    names = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    return names[number - 1] if number <= len(names) else f"{number}th"
