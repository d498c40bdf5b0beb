"""Where an activation looks: receptive fields, computed from the layers themselves."""

from __future__ import annotations

import torch
from torch import nn

from .checks import check_layer, layer_path
from .tape import Step, Tape, Unsupported, record


def receptive_field(net: nn.Module, layer: str, position, *, size: int | None = None) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in input pixels of the activation at `position` (row, column) of `layer`.

    Bottom and right are exclusive; the box is not clipped, so it may begin above or left of the image.
    Computed from every stride, kernel, padding and dilation on the way, over all branches. `size` is the
    input's side, by default the network's own crop, 224 for other networks.
    """
    check_layer(net, layer)
    side = size or getattr(getattr(net, "geometry", None), "crop", 224)
    first = next(net.parameters())
    conv = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    blank = torch.zeros(1, conv.in_channels, side, side, device=first.device, dtype=first.dtype)
    tape = record(net, blank, layer_path(net, layer))
    if tape.activations.dim() != 4:
        return 0, 0, side, side  # a fully connected unit sees the whole image
    row, column = (int(p) for p in position)
    height, width = tape.activations.shape[-2:]
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"position ({row}, {column}) is outside the {height}x{width} maps of layer {layer!r}")
    return _trace(tape, row, column)


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
    if step.kind in ("rectify", "scale", "pass", "add", "cat"):
        return box
    if step.kind == "filter" or "kernel" in v:
        kernel = v["weight"].shape[-2:] if step.kind == "filter" else v["kernel"]
        (sy, sx), (py, px), (dy, dx) = v["stride"], v["padding"], v["dilation"]
        top, left, bottom, right = box
        return (top * sy - py, left * sx - px,
                (bottom - 1) * sy - py + dy * (kernel[0] - 1) + 1, (right - 1) * sx - px + dx * (kernel[1] - 1) + 1)  # fmt: skip
    raise Unsupported(f"receptive fields are known for convolutions and pools, not for {v.get('name', step.kind)!r}")


def _union(a: tuple | None, b: tuple) -> tuple[int, int, int, int]:
    return b if a is None else (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
