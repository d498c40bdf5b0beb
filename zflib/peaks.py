"""Where an activation looks: receptive fields, computed from the layers themselves."""

from __future__ import annotations

import torch
from torch import nn

from .checks import check_images, check_layer, check_positions, layer_path
from .steps import Step
from .tape import Tape, Unsupported, record


def receptive_field(net: nn.Module, layer: str, position, *, size: int | None = None) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in input pixels of the activation at `position` (row, column) of `layer`.

    Bottom and right are exclusive; the box is not clipped, so it may begin above or left of the image.
    Computed from every stride, kernel, padding and dilation on the way, over all branches. `size` is the
    input's side, by default the network's own crop, 224 for other networks. A fully connected unit sees it all.
    """
    check_layer(net, layer)
    side = size or getattr(getattr(net, "geometry", None), "crop", 224)
    tape = record(net, _blank(net, side), layer_path(net, layer))
    if tape.activations.dim() != 4:
        return 0, 0, side, side  # a fully connected unit sees the whole image
    tape.check()
    row, column = check_positions(position, tape.activations, layer)[0].tolist()
    return _trace(tape, row, column)


def _blank(net: nn.Module, side: int) -> torch.Tensor:
    conv = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    return check_images(torch.zeros(1, conv.in_channels if conv else 3, side, side), net)


def _trace(tape: Tape, row: int, column: int) -> tuple[int, int, int, int]:
    boxes = {len(tape.steps) - 1: (row, column, row + 1, column + 1)}
    for place in range(len(tape.steps) - 1, 0, -1):
        if place in boxes:
            step, box = tape.steps[place], boxes.pop(place)
            for source in step.inputs:
                boxes[source] = _union(boxes.get(source), _source(step, box))
    return boxes[0]


def _source(step: Step, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The box of the step's input that `box` of its output was computed from."""
    v = step.values
    unmoved = step.kind == "reshape" and step.shape[-2:] == v["size"][-2:]
    if step.kind in ("rectify", "scale", "pass", "add", "cat") or unmoved:
        return box
    if step.kind != "filter" and not {"kernel", "adaptive"} & v.keys():
        raise Unsupported(
            f"receptive fields are known for convolutions and pools, not for {v.get('name', step.kind)!r}"
        )
    starts, ends = zip(_side(step, 0, box[0], box[2]), _side(step, 1, box[1], box[3]))
    return (*starts, *ends)


def _side(step: Step, axis: int, start: int, end: int) -> tuple[int, int]:
    """[start, end) of the step's output along rows (axis 0) or columns (1), traced to its input."""
    v = step.values
    if "adaptive" in v:
        before, after = v["size"][axis - 2], step.shape[axis - 2]
        return start * before // after, -(-end * before // after)
    kernel = v["weight"].shape[axis - 2] if step.kind == "filter" else v["kernel"][axis]
    stride, padding, dilation = v["stride"][axis], v["padding"][axis], v["dilation"][axis]
    return start * stride - padding, (end - 1) * stride - padding + dilation * (kernel - 1) + 1


def _union(a: tuple | None, b: tuple) -> tuple[int, int, int, int]:
    return b if a is None else (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
