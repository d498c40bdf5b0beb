"""The explorer of layers: a photograph, a layer, a channel, a rule; where the channel is strongest, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import nn

from .. import data, show
from .._arguments import check_choice, check_layer, check_net
from ..deconv import RULES, strongest
from ..deconv.receptive_boxes import fields_seen
from ..record.hooks import check_layers
from ..studies.units import VIEWS, projection_pixels
from ..studies.way_down import WayDown
from .charts import framed_image, framed_map, place
from .panels import Panel, Placing, menu, slider, toggle
from .upload import Upload

Box = tuple[int, int, int, int]
SIDE, GAP = 240, 12  # pixels of each of the four pictures of `activation_pixels`, which is 996 pixels wide
Position = tuple[int, int]


def open_photo(source) -> Image.Image:
    """An RGB image from the name of a shipped photograph ("chelsea") or from whatever `data.open_image` takes."""
    if isinstance(source, str) and source in data.photo_names() and not os.path.exists(source):
        return data.photo(source)
    return data.open_image(source)


class View:
    """One (3,H,W) image, in the units of `net`, seen from `layer` under `rule`: one forward pass for all projections.

    A bad net, rule, image or layer raises what `Deconvnet` raises: one sentence that names it. A network without a way
    down has no projections; `refused` says why.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, layer: str, *, rule: str = "deconvnet"):
        self.net, self.layer, self.rule = net, check_layer(net, layer), rule
        self._way = WayDown(net, rule=rule)
        self._tape = self._way.record(image[None], layer)
        self.image = image
        self.positions = strongest(self._tape.activations)[0]  # (C,2)

    @property
    def activations(self) -> torch.Tensor:
        """(C,h,w) maps, or (C,) for a fully connected layer."""
        return self._tape.activations[0]

    @property
    def spatial(self) -> bool:
        """Whether the layer has maps; a fully connected layer has units without a position."""
        return self.activations.dim() == 3

    @cached_property
    def values(self) -> torch.Tensor:
        """(C,) every channel's strongest activation."""
        return self.activations.flatten(1).amax(dim=1) if self.spatial else self.activations

    def strongest(self, count: int) -> list[int]:
        """The `count` channels with the strongest activations, strongest first."""
        if not 1 <= count <= len(self.values):
            raise ValueError(f"top must be 1 to {len(self.values)}, the channels of layer {self.layer!r}, got {count}")
        return self.values.argsort(descending=True, stable=True)[:count].tolist()

    def check_channel(self, channel: int) -> int:
        """The channel itself; ValueError unless the layer has it."""
        if not 0 <= channel < len(self.values):
            last = len(self.values) - 1
            raise ValueError(f"channel must be 0 to {last}, the channels of layer {self.layer!r}, got {channel}")
        return channel

    def strongest_position(self, channel: int) -> Position:
        """Row and column of the channel's strongest activation; (0, 0) in a fully connected layer."""
        return tuple(self.positions[self.check_channel(channel)].tolist())

    def value(self, channel: int, position: Position | None = None) -> float:
        """The activation there, by default the strongest."""
        if not self.spatial:
            return float(self.values[channel])
        return float(self.activations[channel][position or self.strongest_position(channel)])

    def field(self, channel: int, position: Position | None = None) -> Box:
        """(top, left, bottom, right) that the position, by default the strongest, sees; not clipped to the image."""
        if not self.spatial:
            return 0, 0, *self.image.shape[-2:]
        row, column = position or self.strongest_position(channel)
        return tuple(self._fields[row, column].tolist())

    def box(self, channel: int, position: Position | None = None) -> Box:
        """As `field`, clipped to the image."""
        top, left, bottom, right = self.field(channel, position)
        height, width = self.image.shape[-2:]
        return max(0, top), max(0, left), min(height, bottom), min(width, right)

    @cached_property
    def _fields(self) -> torch.Tensor:
        """(h,w,4) the receptive field of every position; the whole image where it is not known."""
        (rows, columns), whole = self.activations.shape[-2:], tuple(self.image.shape[-2:])
        first = [[row, 0] for row in range(rows)] + [[0, column] for column in range(columns)]
        fields = fields_seen(self.net, self.layer, torch.tensor(first), whole)  # rows do not depend on columns
        top, bottom = fields[:rows, None, [0, 2]].expand(-1, columns, -1).unbind(-1)
        left, right = fields[None, rows:, [1, 3]].expand(rows, -1, -1).unbind(-1)
        return torch.stack([top, left, bottom, right], dim=-1)

    def nearest(self, row: float, column: float) -> Position:
        """The position whose receptive field has its middle nearest to a row and a column of the image."""
        middles = (self._fields[..., :2] + self._fields[..., 2:]) / 2
        away = (middles - torch.tensor([row, column])).square().sum(dim=-1)
        return divmod(int(away.argmin()), away.shape[1])

    @property
    def refused(self) -> str:
        """Why nothing is projected, "" if there is a way down."""
        return self._way.refused

    def projection(self, channel: int, position: Position | None = None) -> torch.Tensor:
        """(3,H,W) one activation, by default the channel's strongest, projected down; zeros if it is 0 or refused."""
        if not self.value(self.check_channel(channel), position):
            return torch.zeros_like(self.image)
        channels = torch.tensor([channel], device=self.positions.device)
        positions = self.positions[channels] if position is None else self.positions.new_tensor([position])
        projected = self._way.descend(self._tape, torch.zeros_like(channels), channels, positions)
        return torch.zeros_like(self.image) if projected is None else projected[0]

    def name(self, channel: int) -> str:
        """What to call it: a channel, a unit of a fully connected layer, or the class of the last one."""
        classes = getattr(self.net, "classes", [])
        if self.layer == getattr(self.net, "layer_names", [None])[-1] and len(classes) == len(self.values):
            return f"{classes[channel]} ({channel})"
        return f"{'channel' if self.spatial else 'unit'} {channel}"


def activation_pixels(
    view: View, channel: int, photo: str, *, position: Position | None = None, drawn: str = "raw"
) -> np.ndarray:
    """(H,W,3) uint8: photograph with receptive field | map with its position | the field | its projection.

    `position`: by default the strongest; `drawn`: one of `studies.units.VIEWS`.
    """
    box = view.box(channel, position)
    image = show.image_pixels(view.image, view.net)
    patch = np.ascontiguousarray(image[box[0] : box[2], box[1] : box[3]])
    seen = show.crop_box(view.projection(channel, position), box)
    side = f"{box[2] - box[0]}×{box[3] - box[1]}"
    last = f"its projection, {drawn}, {side}" if view.value(channel, position) else "projection: silent, nothing"
    last = "projection: refused" if view.refused else last
    titles = [f"{photo}, {image.shape[0]}×{image.shape[1]}", f"{view.layer}, {view.name(channel)}",
              f"what it saw, {side}", last]  # fmt: skip
    pictures = [framed_image(view.image, view.net, box, SIDE), _map(view, channel, position),
                show.fit(patch, SIDE, smooth=True), projection_pixels(seen, SIDE, view=drawn, patch=patch)]  # fmt: skip
    return show.beside(pictures, titles, gap=GAP)


def _map(view: View, channel: int, position: Position | None) -> np.ndarray:
    """The channel's map with the position framed; of a fully connected layer all units, in rows."""
    if view.spatial:
        values, (row, column) = view.activations[channel], position or view.strongest_position(channel)
    else:
        width = int(np.ceil(len(view.values) ** 0.5))
        values = nn.functional.pad(view.values, (0, -len(view.values) % width)).view(-1, width)
        row, column = divmod(channel, width)
    return framed_map(values, row, column, side=SIDE)


def describe(view: View, channel: int, photo: str, *, position: Position | None = None) -> str:
    """The same in words: value, position, receptive field, the strongest channels, and why there is no projection."""
    return _described(view, channel, photo, position) + (f" No projection: {view.refused}." if view.refused else "")


def _described(view: View, channel: int, photo: str, position: Position | None) -> str:
    name, value = view.name(channel), view.value(channel, position)
    top = ", ".join(view.name(c) if not view.spatial else str(c) for c in view.strongest(min(5, len(view.values))))
    strongest = f"Strongest {'channels ' if view.spatial else ''}here: {top}."
    if not value and position is None:
        return f"{photo}: {name} of {view.layer} is silent, its projection is empty. {strongest}"
    if not view.spatial:
        return f"{photo}: {name} of {view.layer} has the value {value:.3g} and sees the whole image. {strongest}"
    row, column = position or view.strongest_position(channel)
    what = f"has the value {value:.3g}" if position else f"is strongest, {value:.3g},"
    (height, width), image = view.activations.shape[-2:], view.image.shape[-2:]
    top, left, bottom, right = view.field(channel, position)
    return (
        f"{photo}: {name} of {view.layer} {what} at row {row}, column {column} of its "
        f"{height}×{width} map. It sees rows {top} to {bottom - 1} and columns {left} to {right - 1} of the "
        f"{image[0]}×{image[1]} image. {strongest if position is None else _at_position(view, row, column)}"
    )


def _at_position(view: View, row: int, column: int) -> str:
    order = view.activations[:, row, column].argsort(descending=True, stable=True)[:5]
    return f"Strongest channels at this position: {', '.join(map(str, order.tolist()))}."


def layers(
    net: nn.Module, images=None, *, layer: str | None = None, rule: str = "deconvnet", layers=None, preprocess=None,
    view: str = "calm",
) -> Panel:  # fmt: skip
    """Explore `net`: choose photograph, layer, channel and rule; see where the channel is strongest, and why.

    A click in the photograph or in the map, or the sliders, choose another position, which is then projected. `view` is
    how the projection is drawn first: "raw", "calm", "lit" or "grey". A photograph of yours can be loaded in the panel.
    `images`: dict name -> image, a list, or None for the shipped photographs; an image is a photograph's name, a path,
    a PIL image, a uint8 array or an already prepared float tensor (3,H,W). For a network that is not ours give
    `preprocess`, from one PIL image to (3,H,W) or (1,3,H,W), and `layers`, the module paths to choose from.
    `layer` is the first one shown, by default the last convolutional one or the last choice. Of a network without a way
    down everything but the projection is shown, and the words say why. Bad input raises ValueError or TypeError.
    """
    check_net(net)
    names = check_layers(net, _layers_of(net) if layers is None else layers)
    layer = layer or next((name for name in reversed(getattr(net, "conv_names", [])) if name in names), names[-1])
    names = list(dict.fromkeys(check_layer(net, layer) for layer in check_layers(net, [*names, layer])))
    layer = check_layer(net, layer)
    check_choice("rule", rule, RULES)
    check_choice("view", view, VIEWS)
    sources, preprocess = _named(images), preprocess or getattr(net, "preprocess", None)
    read = lru_cache(maxsize=16)(lambda photo: _prepared(sources[photo], preprocess))

    @lru_cache(maxsize=8)  # so that a step of the channel's slider only projects down
    def seen(photo: str, layer: str, rule: str) -> View:
        return View(net, read(photo), layer, rule=rule)

    photo = next(iter(sources))
    first = seen(photo, layer, rule)
    channels = slider("channel", 0, len(first.values) - 1, first.strongest(1)[0])
    spot = Spot()
    menus = {"photo": (sources, photo), "layer": (names, layer), "rule": (RULES, rule)}

    upload = Upload(preprocess) if preprocess else None  # only then photographs can be prepared

    def draw(photo, layer, rule, channel, strongest, row, column, view, own=()) -> tuple[np.ndarray, str]:
        if upload and (image := upload.new(own)) is not None:
            photo = _added(sources, upload.name, image)
            controls["photo"].options = list(sources)
            controls["photo"].value = photo
        looked = seen(photo, layer, rule)
        channels.max = last = len(looked.values) - 1
        channel = min(channel, last)
        position = spot.placed(looked, channel, strongest, row, column)
        pixels = activation_pixels(looked, channel, photo, position=position, drawn=view)
        return pixels, describe(looked, channel, photo, position=position)

    def pointer(x: int, y: int, start: tuple[int, int]) -> dict:
        looked = seen(*(panel.controls[name].value for name in menus))
        return pointed(looked, x, y - (len(panel.pixels) - SIDE), start[0])

    controls = {name: menu(name, values, start) for name, (values, start) in menus.items()}
    controls |= {"channel": channels} | spot.controls | {"view": toggle("view", VIEWS, view)}
    if upload:
        controls["own"] = upload.control
    panel = Panel(draw, controls, pointer=pointer)
    return panel


def _added(sources: dict[str, object], name: str, image: torch.Tensor) -> str:
    """The name under which the image now is among the sources: its own, with a number where that is taken."""
    names = [name, *(f"{name} {number}" for number in range(2, len(sources) + 2))]
    free = next(name for name in names if name not in sources)
    sources[free] = image
    return free


class Spot:
    """The controls that choose the position: the channel's strongest while `strongest` is ticked, else row and column.

    Whoever moves row or column takes the tick away.
    """

    def __init__(self):
        self.strongest = widgets.Checkbox(value=True, description="strongest position", indent=False)
        self.row, self.column = slider("row", 0, 0, 0), slider("column", 0, 0, 0)
        self.controls = {"strongest": self.strongest, "row": self.row, "column": self.column}
        self._placing = Placing()
        for control in (self.row, self.column):
            control.observe(self._let_go, names="value")

    def _let_go(self, change: dict) -> None:
        if not self._placing.now:
            self.strongest.value = False

    def placed(self, view: View, channel: int, strongest: bool, row: int, column: int) -> Position | None:
        """The position to show, None for the strongest; the sliders follow."""
        if not view.spatial:
            return None
        height, width = view.activations.shape[-2:]
        chosen = min(row, height - 1), min(column, width - 1)
        with self._placing:
            self.row.max, self.column.max = height - 1, width - 1
            self.row.value, self.column.value = view.strongest_position(channel) if strongest else chosen
        return None if strongest else chosen


def pointed(view: View, x: int, y: int, start: int) -> dict:
    """What a pointer at column x, row y below the titles sets that went down at column `start`.

    In the photograph the position that sees most of the same, in the map the position itself; elsewhere nothing. Of a
    fully connected layer the unit.
    """
    number = start // (SIDE + GAP)
    if number > 1 or (number == 0 and not view.spatial):
        return {}
    shape = view.image.shape[-2:] if number == 0 else view.activations.shape[-2:]
    if not view.spatial:
        width = int(np.ceil(len(view.values) ** 0.5))
        shape = -(-len(view.values) // width), width
    row, column = place(x - number * (SIDE + GAP), y, shape, side=SIDE)
    if not view.spatial:
        return {"channel": min(int(row) * width + int(column), len(view.values) - 1)}
    row, column = view.nearest(row, column) if number == 0 else (int(row), int(column))
    return {"strongest": False, "row": row, "column": column}


SEEN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Linear)  # modules offered as layers of a network that names none


def _layers_of(net: nn.Module) -> list[str]:
    return getattr(net, "layer_names", None) or [p for p, m in net.named_modules() if p and isinstance(m, SEEN)]


def _named(images) -> dict[str, object]:
    """name -> image as it was given; none is opened before it is chosen."""
    images = data.photo_names() if images is None else images
    if isinstance(images, Mapping):
        named = {str(name): image for name, image in images.items()}
    else:
        one = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 0) == 3
        images = [images] if one else list(images)
        labels = [_label(image, number) for number, image in enumerate(images, start=1)]
        if len(set(labels)) < len(labels):  # two files of one name in different folders
            labels = [f"{number} {label}" for number, label in enumerate(labels, start=1)]
        named = dict(zip(labels, images))
    if not named:
        raise ValueError("images is empty; give at least one image, or leave it out for the shipped photographs")
    return named


def _label(image, number: int) -> str:
    return os.path.basename(os.fsdecode(image)) if isinstance(image, str | os.PathLike) else f"image {number}"


def _prepared(source, preprocess: Callable | None) -> torch.Tensor:
    """(3,H,W) in the network's units: a float tensor as it is, anything else opened and preprocessed."""
    if isinstance(source, torch.Tensor) and source.is_floating_point():
        return source
    if preprocess is None:
        raise ValueError("preprocess is needed for this network: a function from one PIL image to (3,H,W), or say "
                         "it once, zflib.models.with_preprocessing(net, resize=…, crop=…)")  # fmt: skip
    image = preprocess(open_photo(source))
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"preprocess must give one tensor (3,H,W) for one PIL image, got {type(image).__name__}")
    return image[0] if image.dim() == 4 else image
