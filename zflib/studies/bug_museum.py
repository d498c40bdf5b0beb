"""The bug museum: eight broken deconvnets as they are found in the wild, the real one, and the tests that tell them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from .. import show
from ..deconv import Deconvnet, receptive_field, rectify, strongest, unpool
from ..deconv.rules import walk
from ..models.response_norm import ResponseNorm
from ..record import steps

# --- the exhibits: each bug is the real deconvnet with one thing changed ----------------------------------------------


class Exhibit:
    """The real deconvnet, attached to `net` for one image (1,3,H,W), from `layer` down.

    `seed(channel)` keeps one activation, `down(signal)` brings any signal (1,C,h,w) of the layer to (1,3,H,W) pixels,
    `picture(channel)` does both. `activations` are the layer's.
    """

    rule, overlap, rules = "deconvnet", "sum", {}

    def __init__(self, net: nn.Module, image: torch.Tensor, layer: str):
        self._deconvnet = Deconvnet(net, rule=self.rule, overlap=self.overlap, rules=self.rules)
        self._tape = self._deconvnet.record(image, layer)
        self.activations = self._tape.activations

    def seed(self, channel: int) -> torch.Tensor:
        """(1,C,h,w): zeros but for the channel's strongest activation."""
        row, column = strongest(self.activations)[0, channel].tolist()
        kept = torch.zeros_like(self.activations)
        kept[0, channel, row, column] = self.activations[0, channel, row, column]
        return kept

    def down(self, signal: torch.Tensor) -> torch.Tensor:
        """(1,3,H,W) pixels of a signal (1,C,h,w) at the layer."""
        return walk(self._tape, signal, self._below)

    def picture(self, channel: int) -> torch.Tensor:
        """(1,3,H,W): the channel's strongest activation, projected down."""
        return self.down(self.seed(channel))

    def _below(self, step: steps.Step, signal: torch.Tensor) -> list[torch.Tensor]:
        return self._deconvnet.rules.down(step, signal, slice(None))


class _Biases(Exhibit):
    def _below(self, step, signal):
        if isinstance(step, steps.Filter):
            signal = rectify(signal + step.bias[:, None, None])
        return super()._below(step, signal)


class _NoReLU(Exhibit):
    def _below(self, step, signal):
        return [signal] if isinstance(step, steps.Rectify) else super()._below(step, signal)


class _Guided(Exhibit):
    rule = "guided"


class _NoSwitches(Exhibit):
    def _below(self, step, signal):
        if isinstance(step, steps.Pool):
            step = replace(step, switches=_corners(step))
        return super()._below(step, signal)


class _Unflipped(Exhibit):
    def _below(self, step, signal):
        if isinstance(step, steps.Filter):
            step = replace(step, weight=step.weight.flip(-1, -2))
        return super()._below(step, signal)


class _WholeChannel(Exhibit):
    def seed(self, channel):
        kept = torch.zeros_like(self.activations)
        kept[:, channel] = self.activations[:, channel]
        return kept


class _Differentiated(Exhibit):
    rules = {ResponseNorm: lambda signal, before, after: torch.func.vjp(ResponseNorm(), before)[1](signal)[0]}


class _Overwritten(Exhibit):
    overlap = "last"


def _corners(step: steps.Pool) -> torch.Tensor:
    """(N,C,h,w): the flat position of each window's upper left corner, for pools without padding."""
    (down, across), (height, width) = step.stride, step.switches.shape[-2:]
    rows, columns = torch.arange(height) * down, torch.arange(width) * across
    return (rows[:, None] * step.size[1] + columns).expand_as(step.switches)


#: What a visitor may call each exhibit, and the exhibit.
EXHIBITS: dict[str, type[Exhibit]] = {
    "the real one": Exhibit,
    "forward biases": _Biases,
    "no ReLU": _NoReLU,
    "guided": _Guided,
    "no switches": _NoSwitches,
    "unflipped": _Unflipped,
    "whole channel": _WholeChannel,
    "differentiated": _Differentiated,
    "overwritten": _Overwritten,
}

LETTERS = "ABCDEFGHI"
#: letter -> label, in a fixed order that gives nothing away. To read this is to peek: use the tests.
_HUNG = dict(zip(LETTERS, random.Random(1311).sample(sorted(EXHIBITS), len(EXHIBITS))))


def attach(letter: str, net: nn.Module, image: torch.Tensor, layer: str) -> Exhibit:
    """The deconvnet that hangs under `letter`, "A" to "I", attached to `net` for one image (1,3,H,W).

    ValueError for another letter.
    """
    if letter not in _HUNG:
        raise ValueError(f"letter must be one of {', '.join(LETTERS)}, got {letter!r}")
    return EXHIBITS[_HUNG[letter]](net, image, layer)


def rightly_labelled(labels: Mapping[str, str]) -> int:
    """How many of the letters have their own label."""
    return sum(labels[letter] == label for letter, label in _HUNG.items())


# --- the tests: each gives two things, its left and its right side, that must be equal --------------------------------

Sides = tuple[torch.Tensor, torch.Tensor]


def zero(deconvnet: Exhibit) -> Sides:
    """D(0) and 0, (1,3,H,W) each."""
    drawn = deconvnet.down(torch.zeros_like(deconvnet.activations))
    return drawn, torch.zeros_like(drawn)


def homogeneous(deconvnet: Exhibit, y: torch.Tensor) -> Sides:
    """D(3 y) and 3 D(y), (1,3,H,W) each, for a signal (1,C,h,w)."""
    return deconvnet.down(3 * y), 3 * deconvnet.down(y)


def nothing_outside(picture: torch.Tensor, box) -> Sides:
    """What a picture (1,3,H,W) draws outside a receptive field (top, left, bottom, right), and 0."""
    top, left, bottom, right = (max(0, edge) for edge in box)
    outside = picture.clone()
    outside[..., top:bottom, left:right] = 0
    return outside, torch.zeros_like(picture)


def stamp(deconvnet: Exhibit, conv: nn.Conv2d, channel: int, row: int, column: int) -> Sides:
    """What one activation of 1 draws through a convolution, and what it should draw: its filter, (1,3,H,W) each.

    `deconvnet` is attached to the maps of `conv`; the position is far from the border.
    """
    signal = torch.zeros_like(deconvnet.activations)
    signal[0, channel, row, column] = 1
    drawn = deconvnet.down(signal)

    top = row * conv.stride[0] - conv.padding[0]
    left = column * conv.stride[1] - conv.padding[1]
    height, width = conv.kernel_size
    filter_alone = torch.zeros_like(drawn)
    filter_alone[0, :, top : top + height, left : left + width] = conv.weight[channel]
    return drawn, filter_alone


def adjoint(deconvnet: Exhibit, conv: nn.Conv2d, switches, y: torch.Tensor, x: torch.Tensor) -> Sides:
    """<D(y), x> and <y, F(x)>: two numbers, for a signal y (1,C,h,w) >= 0 and any pixels x (1,3,H,W).

    F is the way up, made linear: `conv` without its bias, read at given switches (1,C,h,w), or not pooled if they are
    None. Where y is nowhere negative, the ReLU below it has nothing to clamp, so D is linear, too.
    """
    maps = F.conv2d(x, conv.weight, stride=conv.stride, padding=conv.padding)
    if switches is not None:
        maps = maps.flatten(2).gather(2, switches.flatten(2)).view_as(y)
    return (deconvnet.down(y) * x).sum(), (y * maps).sum()


def negative(deconvnet: Exhibit, y: torch.Tensor) -> Sides:
    """D(-y) and 0, (1,3,H,W) each, for y >= 0 just above a ReLU: it lets nothing negative through."""
    drawn = deconvnet.down(-y)
    return drawn, torch.zeros_like(drawn)


def total(deconvnet: Exhibit, y: torch.Tensor) -> Sides:
    """The sums of D(y) and of y, through nothing but a pool: a value may come down elsewhere, but none is lost."""
    return deconvnet.down(y).sum(), y.sum()


def agree(left, right, *, tolerance: float = 1e-3) -> bool:
    """Whether the two sides are equal, up to `tolerance` of the larger one's largest value."""
    left, right = torch.as_tensor(left).float(), torch.as_tensor(right).float()
    largest = max(float(left.abs().max()), float(right.abs().max()))
    return float((left - right).abs().max()) <= tolerance * largest


# --- the museum's own tests on its own network ------------------------------------------------------------------------

#: What nobody's weights can change: a network that only pools.
POOL = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True))


def own_tests(net: nn.Module, image: torch.Tensor, *, seed: int = 0) -> dict[str, Callable[[Callable], Sides]]:
    """Column -> test(attach), of a network whose first block is conv1, relu1, pool1, norm1; attach(net, image, layer).

    The nine columns of the score sheet, on one image (1,3,H,W).
    """
    generator = torch.Generator().manual_seed(seed)
    maps = net.relu1(net.conv1(image))
    pooled, switches = F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    x, y_maps, y = (torch.rand(like.shape, generator=generator) for like in (image, maps, pooled))
    y_pool = torch.rand(POOL(image).shape, generator=generator)

    def field(attach):
        deconvnet = attach(net, image, "conv2")
        channel = int(deconvnet.activations[0].amax(dim=(1, 2)).argmax())
        position = strongest(deconvnet.activations)[0, channel].tolist()
        return nothing_outside(deconvnet.picture(channel), receptive_field(net, "conv2", position))

    return {
        "zero": lambda attach: zero(attach(net, image, "conv5")),
        "homogeneous": lambda attach: homogeneous(hung := attach(net, image, "conv5"), hung.activations),
        "field": field,
        "stamp": lambda attach: stamp(attach(net, image, "conv1"), net.conv1, 7, 12, 9),
        "adjoint conv1": lambda attach: adjoint(attach(net, image, "conv1"), net.conv1, None, y_maps, x),
        "adjoint pool1": lambda attach: adjoint(attach(net, image, "pool1"), net.conv1, switches, y, x),
        "adjoint norm1": lambda attach: adjoint(attach(net, image, "norm1"), net.conv1, switches, y, x),
        "yours": lambda attach: negative(attach(net, image, "conv1"), y_maps),
        "total": lambda attach: total(attach(POOL, image, "0"), y_pool),
    }
