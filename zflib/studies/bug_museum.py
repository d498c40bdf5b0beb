"""The bug museum: eight broken deconvnets as they are found in the wild, the real one, and the tests that tell them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from .. import show
from ..deconv import Deconvnet, receptive_field, rectify, strongest
from ..deconv.rules import walk
from ..models.response_norm import ResponseNorm
from ..record import steps

# --- the exhibits: each bug is the real deconvnet with one thing changed ----------------------------------------------


class Exhibit:
    """The real deconvnet, attached to `net` for one image (1,3,H,W), from `layer` down.

    `seed(channel)` keeps one activation, `down(signal)` brings any signal (1,C,h,w) of the layer to (1,3,H,W) pixels,
    `picture(channel)` does both. `activations` are the layer's.
    """

    def __init__(self, net: nn.Module, image: torch.Tensor, layer: str):
        self._deconvnet = self._built(net)
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

    def _built(self, net: nn.Module) -> Deconvnet:
        return Deconvnet(net)

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
    def _built(self, net):
        return Deconvnet(net, rule="guided")


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


def _derivative(signal: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """What autograd makes of the signal at a response normalisation with the paper's constants."""
    return torch.func.vjp(ResponseNorm(), before)[1](signal)[0]


class _Differentiated(Exhibit):
    def _built(self, net):
        return Deconvnet(net, rules={ResponseNorm: _derivative})


class _Overwritten(Exhibit):
    def _built(self, net):
        return Deconvnet(net, overlap="last")


def _corners(step: steps.Pool) -> torch.Tensor:
    """(N,C,h,w): the flat position of each window's upper left corner, for pools without padding."""
    (down, across), (height, width) = step.stride, step.switches.shape[-2:]
    rows = torch.arange(height, device=step.switches.device) * down
    columns = torch.arange(width, device=step.switches.device) * across
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
    """Whether the two sides are equal and finite, up to `tolerance` of the larger one's largest value."""
    left, right = torch.as_tensor(left).float(), torch.as_tensor(right).float()
    largest = max(float(left.abs().max()), float(right.abs().max()))
    return largest < float("inf") and float((left - right).abs().max()) <= tolerance * largest


# --- the museum's own tests on its own network ------------------------------------------------------------------------

#: What nobody's weights can change: a network that only pools.
POOL = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True))


def open_inside(maps: torch.Tensor, *, border: int = 3) -> tuple[int, int, int]:
    """Channel, row and column of the largest of (1,C,h,w) activations that is at least `border` from the border."""
    inner = maps[0, :, border:-border, border:-border]
    channel, row, column = (int(index) for index in torch.unravel_index(inner.argmax(), inner.shape))
    return channel, row + border, column + border


def own_tests(net: nn.Module, image: torch.Tensor, *, seed: int = 0) -> dict[str, Callable[[Callable], Sides]]:
    """Column -> test(attach), of a network whose first block is conv1, relu1, pool1, norm1; attach(net, image, layer).

    The nine columns of the score sheet, on one image (1,3,H,W).
    """
    generator = torch.Generator().manual_seed(seed)
    maps = net.relu1(net.conv1(image))
    pooled, switches = F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    x = torch.randn(image.shape, generator=generator)
    y_maps, y, y_pool = (torch.rand(like.shape, generator=generator) for like in (maps, pooled, POOL(image)))
    place = open_inside(maps)

    def field(attach):
        deconvnet = attach(net, image, "conv2")
        channel = int(deconvnet.activations[0].amax(dim=(1, 2)).argmax())
        position = strongest(deconvnet.activations)[0, channel].tolist()
        return nothing_outside(deconvnet.picture(channel), receptive_field(net, "conv2", position))

    return {
        "zero": lambda attach: zero(attach(net, image, "conv3")),
        "homogeneous": lambda attach: homogeneous(hung := attach(net, image, "conv3"), hung.activations),
        "field": field,
        "stamp": lambda attach: stamp(attach(net, image, "conv1"), net.conv1, *place),
        "adjoint conv1": lambda attach: adjoint(attach(net, image, "conv1"), net.conv1, None, y_maps, x),
        "adjoint pool1": lambda attach: adjoint(attach(net, image, "pool1"), net.conv1, switches, y, x),
        "adjoint norm1": lambda attach: adjoint(attach(net, image, "norm1"), net.conv1, switches, y, x),
        "yours": lambda attach: negative(attach(net, image, "conv1"), y_maps),
        "total": lambda attach: total(attach(POOL, image, "0"), y_pool),
    }


# --- how alike the pictures are, and the score sheet ------------------------------------------------------------------


def alike(pictures: Sequence[torch.Tensor]) -> torch.Tensor:
    """(n,n) cosines of n pictures with each other: 1 if two are equal up to contrast, whatever their strength."""
    flat = F.normalize(torch.stack([picture.flatten() for picture in pictures]), dim=1)
    return flat @ flat.T


def likeness_sheet(cosines: torch.Tensor) -> show.Axes:
    """Axes of the (9,9) cosines between the exhibits, by their letters."""
    (ax,) = show.axes_at([(0.06, 0.02, 0.93, 0.92)], size=(8.5, 6.2))
    show.numbers(cosines, ax, full=1.0)
    ax.set_aspect("auto")
    for place, letter in enumerate(LETTERS):
        ax.text(place, -0.6, letter, ha="center", va="bottom", fontsize=14)
        ax.text(-0.7, place, letter, ha="right", va="center", fontsize=14)
    return ax


@dataclass(frozen=True)
class ScoreSheet:
    """column -> whether each of the exhibits A to I passed; `museums`: the columns of the museum's own tests."""

    passed: Mapping[str, Sequence[bool]]
    museums: Sequence[str] = ()

    def row(self, letter: str) -> tuple[bool, ...]:
        """What one exhibit passed, column by column."""
        return tuple(column[LETTERS.index(letter)] for column in self.passed.values())

    def not_told_apart(self) -> list[str]:
        """Letters of exhibits with the same row, like ["AB", "CDE"]; [] if every row differs."""
        groups: dict[tuple, str] = {}
        for letter in LETTERS:
            groups[self.row(letter)] = groups.get(self.row(letter), "") + letter
        return [letters for letters in groups.values() if len(letters) > 1]

    def draw(self) -> show.Axes:
        """Axes of the sheet: a row for every exhibit, a column for every test."""
        wide, tall = len(self.passed), len(LETTERS)
        (ax,) = show.axes_at([(0.03, 0.02, 0.96, 0.96)], size=(1.2 + 1.25 * wide, 5.6))
        for place, (column, passed) in enumerate(self.passed.items()):
            grey = column in self.museums
            title = column.replace(" ", "\n") + ("\n(museum's)" if grey else "")
            ax.text(place, -0.7, title, ha="center", va="bottom", fontsize=12, color="#666666" if grey else "black")
            for row, well in enumerate(passed):
                _mark(ax, place, row, well)
        for row, letter in enumerate(LETTERS):
            ax.text(-0.75, row, letter, ha="center", va="center", fontsize=16)
        ax.set(xlim=(-1, wide - 0.45), ylim=(tall - 0.45, -2.4))
        ax.set_axis_off()
        return ax


PASSES, FAILS = "#d9e8f5", "#c2410c"


def _mark(ax: show.Axes, column: int, row: int, passed: bool) -> None:
    """A pale square with a tick, or a dark one with a cross."""
    mark, ground = ("✓", PASSES) if passed else ("✗", FAILS)
    ax.fill_between([column - 0.47, column + 0.47], row - 0.45, row + 0.45, color=ground, lw=0)
    ax.text(column, row, mark, ha="center", va="center", fontsize=15, color=show.black_or_white(ground))


def score(tests: Mapping[str, Callable[[str], Sides | None]], net: nn.Module, image: torch.Tensor) -> ScoreSheet:
    """Each test(letter) of each exhibit; it passes if both sides agree.

    A test that gives None or ... is not written yet: the museum's own of this name takes its place, see `own_tests`.
    ValueError if there is none.
    """
    own, passed, museums = own_tests(net, image), {}, []
    for column, test in tests.items():
        sides = [test(letter) for letter in LETTERS]
        if any(pair is None or pair is ... for pair in sides):
            if column not in own:
                raise ValueError(f"tests: {column!r} gives {sides[0]}, and the museum has no test of this name")
            museums.append(column)
            sides = [own[column](partial(attach, letter)) for letter in LETTERS]
        passed[column] = [agree(*pair) for pair in sides]
    return ScoreSheet(passed, museums)
