"""Is the object what the network looks at? A square slides over the image, and everything behind it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from tqdm.auto import tqdm

from .._arguments import (
    check_integer,
    check_label,
    check_layer,
    check_sides,
    conv_layers,
    layer_path,
)
from ..record import Tape, record, watched
from ..record.endings import ending, probabilities
from ..record.hooks import check_steady, plain, unchanged
from ..record.inputs import check_image
from .occluders import blocks, check_fill
from .partial_forward import PartialForward, Patches, map_sums

#: Multiply-adds that parts must save all in all; below that, whole images in one batch are as fast.
SAVED = 2**29


@dataclass
class OcclusionMaps:
    """What happened at every position of the square (Figure 7): (rows, cols) each, `corners` (rows, cols, 2).

    `probability` of `label`; `prediction`, the most probable class; `activity`, the sum of the map of `channel`;
    `corners`, the square's top left pixel. `before`: probability and activity without a square.
    """

    probability: torch.Tensor
    prediction: torch.Tensor
    activity: torch.Tensor
    corners: torch.Tensor
    label: int
    channel: int
    before: tuple[float, float]


def occlude(net: nn.Module, image: torch.Tensor, *, size, stride, label: int | None = None, layer: str | None = None,
            fill=0.0, memory: int = 2**28) -> OcclusionMaps:  # fmt: skip
    """Slide a square over a preprocessed (3,H,W) image, `stride` pixels at a time, always inside it (section 4.2).

    `size` and `stride` are pixels or (rows, columns); `label` is a class, by default the most probable one; `fill` is
    what covers the square: a number in the network's units (0: grey), "grey", "mean", "blur", "noise", "border", or a
    (3,H,W) image. The activity is that of the layer's strongest map, chosen without a square; `layer` is by default the
    last convolutional one, such as conv5, of a network that names its layers; others have to be given one. Exact: what
    the square does not reach is not computed again (Nakandala 2019).
    `memory`: about how many bytes a batch may take.
    """
    image = check_image(image, net)
    layer = check_layer(net, conv_layers(net)[-1] if layer is None else layer)
    size, stride = check_sides("size", size, tuple(image.shape[1:])), check_sides("stride", stride)
    check_fill(image, fill)
    memory = check_integer("memory", memory, "a number of bytes, at least 1", low=1)
    corners = _corners(image.shape[1:], size, stride)
    with unchanged(net), plain(image.device):
        run = OcclusionRun(net, image, layer)
        label = int(run.scores.argmax()) if label is None else check_label(label, len(run.scores))
        scores, activity = run.measure(corners.flatten(0, 1), size, fill, memory)
    shape = corners.shape[:2]
    probability = probabilities(scores, run.ending)[:, label]
    return OcclusionMaps(
        probability.view(shape), scores.argmax(-1).view(shape), activity.view(shape), corners, label, run.channel,
        (float(probabilities(run.scores[None], run.ending)[0, label]), float(run.activity)),
    )  # fmt: skip


class OcclusionRun:
    """A network at one image, ready to say what it gives where squares of the image are covered."""

    def __init__(self, net: nn.Module, image: torch.Tensor, layer: str):
        self.net, self.image, self.layer = net, image, layer
        maps, scores = self._watch(image[None])
        self.tape = self._record()
        self.ending = ending(net, image[None], self.tape)
        check_steady(net, image[None], [layer_path(net, layer)])
        if maps.dim() not in (2, 4):
            raise ValueError(f"layer {layer!r} gives {tuple(maps.shape)}; choose one of maps (N,C,h,w) or units (N,C)")
        self.scores, strongest = scores[0], maps[0].flatten(1).amax(1) if maps.dim() == 4 else maps[0]
        self.channel = int(strongest.argmax())
        self.activity = map_sums(maps, self.channel)[0]

    def measure(self, corners: torch.Tensor, size, fill, memory: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,classes) scores and (P,) activities with squares of `size` at (P,2) corners."""
        run, order, each = self.whole, torch.arange(len(corners), device=corners.device), 2 * 40 * self.image.numel()
        if partial := self.partial(corners, size, fill):
            run, order = self._patches(partial), partial.classes(corners, size).argsort(stable=True)
            each = 2 * partial.numbers(corners, size)  # with what an operation keeps for itself
        some = max(1, min(256, memory // (each * self.image.element_size())))
        found = [run(self._covered(batch, size, fill)) for batch in _batches(corners[order], some)]
        scores, activity = (torch.cat(part)[order.argsort()] for part in zip(*found))
        return scores, activity

    def _record(self) -> Tape | None:
        """None for a network that is no fixed sequence of operations."""
        try:
            return record(self.net, self.image[None], layer_path(self.net, self.layer), whole=True)
        except (ValueError, RuntimeError):
            return None

    def partial(self, corners: torch.Tensor, size, fill) -> PartialForward | None:
        """The partial forward for such squares; None if it would save too little, cannot be, or is not exact."""
        if self.tape is None:
            return None
        try:
            partial = PartialForward(self.tape, self.image[None])
            if partial.choose(corners, size) * len(corners) < SAVED or partial.cut == 0:
                return None
            squares = self._covered(corners[[0, len(corners) // 2]], size, fill)
            pairs = zip(self._patches(partial)(squares), self.whole(squares))
            return partial if all(_agree(one, other) for one, other in pairs) else None
        except (ValueError, RuntimeError):  # operations on whole batches
            return None

    def _patches(self, partial: PartialForward):
        return lambda squares: partial(squares, self.channel)

    def whole(self, squares: Patches) -> tuple[torch.Tensor, torch.Tensor]:
        """(P,classes) scores and (P,) activities: whole images through the network."""
        maps, scores = self._watch(squares.inside(self.image))
        return scores, map_sums(maps, self.channel)

    def _covered(self, corners: torch.Tensor, size, fill) -> Patches:
        return Patches(blocks(self.image, corners, size, fill), corners)

    def _watch(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with watched(self.net, [self.layer]) as look:
            found, scores = look(images)
        return found[self.layer], scores


def _agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they differ by rounding alone."""
    close = 100 * torch.finfo(other.dtype).eps * float(other.abs().max())
    return one.shape == other.shape and bool(((one - other).abs() <= close).all())


def _batches(corners: torch.Tensor, some: int) -> Iterator[torch.Tensor]:
    with tqdm(total=len(corners), desc="occlude", unit="square", disable=None, leave=False) as bar:
        for batch in corners.split(some):
            yield batch
            bar.update(len(batch))


def _corners(whole, size: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    rows, columns = (torch.arange(0, n - s + 1, step, device="cpu") for n, s, step in zip(whole, size, stride))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
