"""Where an activation looks: receptive fields computed from the layers themselves, and the patches inside them."""

from __future__ import annotations

import torch
from torch import nn

from .._arguments import (
    check_integers,
    check_layer,
    check_positions,
    check_sides,
    layer_path,
    shape_or_type,
)
from ..record import Tape, Unsupported, record
from ..record.inputs import check_images, first_used
from ..record.steps import AdaptivePool, Step

Box = tuple[int, int, int, int]


def receptive_field(net: nn.Module, layer: str, position, *, size=None) -> Box:
    """(top, left, bottom, right) in input pixels of the activation at `position` (row, column) of `layer`.

    Bottom and right are exclusive; the box is not clipped, so it may begin above or left of the image.
    Computed from every stride, kernel, padding and dilation on the way, over all branches. `size` is the
    input's, a side or (H,W), by default the network's own crop, 224 for other networks. A fully connected unit sees
    all of it.
    """
    tape, whole = blank_tape(net, layer, size)
    if tape.activations.dim() != 4:
        return 0, 0, *whole  # a fully connected unit sees the whole image
    row, column = check_positions(position, tape.activations, layer, name="position")[0].tolist()
    return trace(tape, row, column)


def receptive_fields(net: nn.Module, layer: str, positions: torch.Tensor, *, size=None) -> torch.Tensor:
    """(…,4) boxes of (…,2) positions, as `receptive_field` gives them one by one, from one look at the network."""
    tape, whole = blank_tape(net, layer, size)
    positions = check_integers("positions", positions, "(…,2), rows and columns")
    if positions.shape[-1:] != (2,):
        raise ValueError(f"positions must be (…,2), rows and columns, got shape {tuple(positions.shape)}")
    shape, flat = (*positions.shape[:-1], 4), positions.reshape(-1, 2)
    if tape.activations.dim() != 4:
        return torch.tensor([0, 0, *whole], device="cpu").expand(shape).clone()
    different, which = flat.unique(dim=0, return_inverse=True)
    for position in different:
        check_positions(position, tape.activations, layer)
    boxes = [trace(tape, row, column) for row, column in different.tolist()]
    return torch.tensor(boxes, dtype=torch.int64, device="cpu").reshape(-1, 4)[which.cpu()].reshape(shape)


def fields_seen(net: nn.Module, layer: str, positions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(…,4) boxes as from `receptive_fields`; all of an image of `size` where they are not known.

    Behind a group normalisation, for example, whose mean is over the whole map.
    """
    try:
        return receptive_fields(net, layer, positions, size=size)
    except Unsupported:
        return torch.tensor([0, 0, *size], device="cpu").expand(*positions.shape[:-1], 4).clone()


def patches(images: torch.Tensor, boxes, *, fill: float = 0.0) -> torch.Tensor:
    """(N,C,h,w): image n of (N,C,H,W) cut exactly at boxes[n] = (top, left, bottom, right), all of one size.

    What lies outside the image is `fill`; 0 is the mean, grey, in a network's units. The small pictures of Figure 2.
    """
    if not isinstance(images, torch.Tensor) or images.dim() != 4 or not len(images):
        raise ValueError(f"images must be a tensor (N,C,H,W) of at least one image, got {shape_or_type(images)}")
    boxes = check_integers("boxes", boxes, "(N,4), one for each of the images")
    if boxes.shape != (len(images), 4):
        given = f"{tuple(images.shape)} and {tuple(boxes.shape)}"
        raise ValueError(f"boxes must be (N,4), one for each of the images (N,C,H,W), got {given}")
    sizes = sorted(set(map(tuple, (boxes[:, 2:] - boxes[:, :2]).tolist())))
    if len(sizes) > 1 or min(min(size) for size in sizes) < 1:
        raise ValueError(f"boxes must all have one size, at least 1x1, got {sizes[0]} and {sizes[-1]}; cut them apart")
    out = images.new_full((*images.shape[:2], *sizes[0]), fill)
    for patch, image, (top, left, bottom, right) in zip(out, images, boxes.tolist()):
        seen = image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        above, before = max(-top, 0), max(-left, 0)
        patch[:, above : above + seen.shape[1], before : before + seen.shape[2]] = seen
    return out


def blank_tape(net: nn.Module, layer: str, size) -> tuple[Tape, tuple[int, int]]:
    """The network's steps up to `layer`, over an image of nothing, and that image's size."""
    check_layer(net, layer)
    blank = blank_image(net, size)
    return record(net, blank, layer_path(net, layer)), tuple(blank.shape[-2:])


def blank_image(net: nn.Module, size=None) -> torch.Tensor:
    """(1,C,H,W) zeros as the network takes images; `size`: by default its own crop, 224 for other networks."""
    size = getattr(getattr(net, "geometry", None), "crop", 224) if size is None else size
    size = check_sides("size", size)
    blank = check_images(torch.zeros(1, 3, *size, dtype=torch.float32, device="cpu"), net)
    first, given = first_used(net, blank)
    if isinstance(first, nn.Conv2d) and given is not None:  # that takes another number of channels than of colours
        blank = blank[:, :1].expand(-1, 3 * first.in_channels // given.shape[1], -1, -1)
    return blank


def trace(tape: Tape, row: int, column: int) -> Box:
    """The box of pixels that one activation of the tape's layer was computed from, not clipped."""
    boxes = {tape.place: (row, column, row + 1, column + 1)}
    for place in range(tape.place, 0, -1):
        if place in boxes:
            step, box = tape.steps[place], boxes.pop(place)
            before = _before(step, box)
            for source in step.inputs:
                boxes[source] = _union(boxes.get(source), before)
    return boxes[0]


def _before(step: Step, box: Box) -> Box:
    """The box of the step's input that `box` of its output was computed from."""
    if step.window is None and not _adaptive(step):
        name = getattr(step, "name", type(step).__name__)
        raise Unsupported(f"receptive fields are known for convolutions and pools, not for {name!r}")
    starts, ends = zip(_side(step, 0, box[0], box[2]), _side(step, 1, box[1], box[3]))
    return (*starts, *ends)


def _adaptive(step: Step) -> bool:
    return isinstance(step, AdaptivePool) or getattr(step, "adaptive", False)


def _side(step: Step, axis: int, start: int, end: int) -> tuple[int, int]:
    """[start, end) of the step's output along rows (axis 0) or columns (1), traced to its input."""
    if _adaptive(step):
        before, after = step.size[axis - 2], step.shape[axis - 2]
        return start * before // after, -(-end * before // after)
    kernel, stride, padding, dilation = (pair[axis] for pair in step.window)
    return start * stride - padding, (end - 1) * stride - padding + dilation * (kernel - 1) + 1


def _union(a: Box | None, b: Box) -> Box:
    return b if a is None else (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
