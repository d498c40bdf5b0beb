"""What the machine is drawn from: a photograph's maps on the way up, and one activation's signals on the way down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .._arguments import check_channels, check_layer, layer_path
from ..deconv.rules import Rules
from ..record import Tape, record, steps
from ..record.hooks import plain
from ..record.inputs import check_image

CONVOLUTIONS = 3  # that are drawn if no layer is named
DRAWN = (steps.Filter, steps.Rectify, steps.Pool)
SILENT = (steps.Pass, steps.Scale)  # normalisation and copies: no maps of their own in the drawing


@dataclass(eq=False)
class Stage:
    """One operation: `kind` "filter", "rectify" or "pool" of convolution `name`; `step` as recorded.

    `up` (C,h,w): the maps that it gave on the way up; `down` (C,h,w): the signal there on the way down;
    `channels`: those that are drawn, the strongest on the way down first; `normalised`: whether its input was.
    """

    kind: str
    name: str
    step: steps.Step
    up: torch.Tensor
    down: torch.Tensor
    channels: list[int]
    normalised: bool


@dataclass(eq=False)
class Chain:
    """The image (3,H,W), its projection (3,H,W), and the stages between image and layer, in the order of the way up.

    The way down begins at `channel` and `position` of the last stage.
    """

    image: torch.Tensor
    projection: torch.Tensor
    stages: list[Stage]
    channel: int
    position: tuple[int, int]


def follow(net: nn.Module, image, *, layer: str | None = None, channel: int | None = None, count: int = 4) -> Chain:
    """The stages up to `layer` (default: the third convolution) for one preprocessed (3,H,W) image.

    `channel`: whose strongest activation is projected, by default the layer's strongest. Each stage draws `count`
    channels. A network that branches before `layer`, or has other operations there, raises ValueError.
    """
    image = check_image(image, net)
    tape = _recorded(net, image, layer)
    places = _row(tape, layer)
    recorded = [tape.steps[place] for place in places]
    with plain(image.device):
        ups = [image[None]]
        for step in recorded:
            ups.append(step.again(ups[-1]))
        channel, position = _seed(ups[-1], channel, layer)
        signal = torch.zeros_like(ups[-1])
        signal[0, channel, position[0], position[1]] = ups[-1][0, channel, position[0], position[1]]
        downs = [signal]
        for step in reversed(recorded):
            downs.insert(0, Rules().down(step, downs[0], slice(None))[0])
    stages = _stages(net, recorded, ups[1:], downs[1:], count)
    return Chain(image, downs[0][0], stages, channel, position)


def _recorded(net: nn.Module, image: torch.Tensor, layer: str | None) -> Tape:
    """The record up to the layer, or of the whole network."""
    if layer is not None:
        return record(net, image[None], layer_path(net, check_layer(net, layer)))
    convs = [path for path, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    if not convs:
        raise ValueError("net has no convolution; the machine draws convolutions, ReLUs and max pools in a row")
    return record(net, image[None], convs[0], whole=True)


def _row(tape: Tape, layer: str | None) -> list[int]:
    """The places of the steps that are drawn: from the image on, as long as each takes only what the last one gave."""
    row, before, seen = [], 0, 0
    for place in tape.used(tape.place if layer is not None else len(tape.steps) - 1)[1:]:
        step = tape.steps[place]
        seen += isinstance(step, steps.Filter)
        if step.inputs != (before,) or not isinstance(step, DRAWN + SILENT) or step.again is None:
            break
        if layer is None and (seen > CONVOLUTIONS or (seen == CONVOLUTIONS and isinstance(step, steps.Pool))):
            break
        row.append(place)
        before = place
    if layer is not None and before != tape.place:
        name = type(tape.steps[place]).__name__
        raise ValueError(
            f"layer {layer!r} is reached by more than convolutions, ReLUs and max pools in a row ({name}), and the "
            "machine draws no more than these; choose an earlier layer"
        )
    while row and not isinstance(tape.steps[row[-1]], DRAWN):
        row.pop()
    if not row or seen == 0:
        raise ValueError("net does not begin with a convolution; the machine draws convolutions, ReLUs and max pools")
    return row


def _seed(maps: torch.Tensor, channel: int | None, layer: str | None) -> tuple[int, tuple[int, int]]:
    """The channel and the position of the activation that is projected: the strongest, away from the border."""
    height, width = maps.shape[-2:]
    rows, columns = height // 5, width // 5  # the outer fifth looks beyond the image
    inner = maps[0, :, rows : height - rows, columns : width - columns]
    if channel is None:
        channel = int(inner.flatten(1).max(dim=1).values.argmax())
    channel = int(check_channels(channel, maps, layer or "the last")[0])
    row, column = divmod(int(inner[channel].argmax()), inner.shape[-1])
    return channel, (row + rows, column + columns)


def _stages(net: nn.Module, recorded: list[steps.Step], ups, downs, count: int) -> list[Stage]:
    names = {module.weight.data_ptr(): path for path, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    stages, name, normalised = [], "", False
    for step, up, down in zip(recorded, ups, downs):
        if isinstance(step, steps.Pass | steps.Scale):
            normalised = True
        if not isinstance(step, DRAWN):
            continue
        kind = {steps.Filter: "filter", steps.Rectify: "rectify", steps.Pool: "pool"}[type(step)]
        if kind == "filter":
            name = names.get(step.weight.data_ptr(), "conv")
        stages.append(Stage(kind, name, step, up[0], down[0], [], normalised))
        normalised = False
    _choose(stages, count)
    return stages


def _choose(stages: list[Stage], count: int) -> None:
    """The channels of each convolution's stages: where the signal is strongest on the way down, then up."""
    for name in {stage.name for stage in stages}:
        block = [stage for stage in stages if stage.name == name]
        up, down = (values.flatten(1).abs().amax(dim=1) for values in (block[-1].up, block[-1].down))
        strength = down / down.max().clamp(min=1e-12) * 1e3 + up / up.max().clamp(min=1e-12)
        for stage in block:
            stage.channels = strength.argsort(descending=True, stable=True)[:count].tolist()
