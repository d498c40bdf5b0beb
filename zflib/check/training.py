"""Exercises of notebook 05: crops and their vote, dropout, renormalised filters."""

from collections.abc import Callable

import torch
from torch import nn

from ..train import filters
from .cases import case, seeded
from .verdict import Exercise


def ten_places(height: int, width: int, size: int) -> torch.Tensor:
    """(10,3) top, left and mirrored (0 or 1) of four corners and the centre, then of their mirror images."""
    bottom, right = height - size, width - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return torch.tensor([(top, left, mirrored) for mirrored in (0, 1) for top, left in places])


def _moved(move: Callable) -> Callable:
    """`ten_places` with each beginning changed by `move(beginning, side of the image, size)`."""

    def places(height, width, size):
        table = ten_places(height, width, size)
        for column, side in enumerate((height, width)):
            table[:, column] = torch.tensor([move(int(start), side, size) for start in table[:, column]])
        return table

    return places


ten_corners = Exercise(
    "ten_corners", ten_places, lambda: [case(40, 62, 30), case(64, 64, 56)],
    success="these are the ten crops of section 3, and of net.ten_crop",
    mistakes={
        "this is (left, top); rows come first": lambda h, w, size: ten_places(h, w, size)[:, [1, 0, 2]],
        "the last place begins at side - size: counted from 0, one pixel further than yours":
            _moved(lambda start, side, size: start - (start == side - size)),
        "your centre crop begins in the middle of the image; its own middle should lie there":
            _moved(lambda start, side, size: side // 2 if start == (side - size) // 2 else start),
        "these are the last pixels of the crops; the corner where each begins is wanted":
            _moved(lambda start, side, size: start + size - 1),
        "the right crops in another order: first the five as they are, then the five mirrored":
            lambda h, w, size: ten_places(h, w, size).view(2, 5, 3).transpose(0, 1).reshape(10, 3),
        "the sides differ: top comes from the height, left from the width": lambda h, w, size: ten_places(h, h, size),
    },
)  # fmt: skip


def mean_of_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """(N,classes) probabilities of N images from (N,10,classes) scores: every crop's softmax, then their mean."""
    return scores.softmax(dim=-1).mean(dim=1)


@seeded(11)
def _scores(generator):
    yield case(torch.randn(2, 10, 4, generator=generator) * 3)
    yield case(torch.randn(3, 10, 5, generator=generator))


vote = Exercise(
    "vote", mean_of_probabilities, _scores,
    mistakes={
        "each crop gave one whole vote to its first class; it should give its probabilities":
            lambda scores: nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).float().mean(dim=1),
        "the scores were averaged before the softmax; average the probabilities":
            lambda scores: scores.mean(dim=1).softmax(dim=-1),
        "these are mean scores, not probabilities; a softmax is missing": lambda scores: scores.mean(dim=1),
        "the surest crop decides alone; take the mean over the crops":
            lambda scores: scores.softmax(dim=-1).amax(dim=1),
        "ten crops add up to 10; take their mean": lambda scores: scores.softmax(dim=-1).sum(dim=1),
        "the softmax went over the crops; over the classes, every crop's probabilities add up to 1":
            lambda scores: scores.softmax(dim=1).mean(dim=1),
        "only the centre crop was asked": lambda scores: scores.softmax(dim=-1)[:, 4],
    },
)  # fmt: skip


def scaled_survivors(activations: torch.Tensor, stays: torch.Tensor, p: float) -> torch.Tensor:
    """(N,C) activations where `stays` is True, times 1 / (1 - p); 0 elsewhere."""
    return activations * stays / (1 - p)


@seeded(12)
def _activations(generator):
    for p, units in ((0.5, 6), (0.2, 8)):
        stays = torch.rand(4, units, generator=generator) >= p
        stays[0, :2] = torch.tensor([True, False])
        yield case(torch.rand(4, units, generator=generator) + 0.5, stays, p)


dropout = Exercise(
    "dropout", scaled_survivors, _activations,
    mistakes={
        "the right units are zero, but what stays is too weak: on average a share p is missing; divide by 1 - p":
            lambda activations, stays, p: activations * stays,
        "divided by p; p is the share that goes, 1 - p the share that stays":
            lambda activations, stays, p: activations * stays / p,
        "multiplied by 1 - p: that is done at test time if nothing was scaled in training; here divide":
            lambda activations, stays, p: activations * stays * (1 - p),
        "the wrong units are zero: `stays` says which ones are kept":
            lambda activations, stays, p: activations * ~stays / (1 - p),
        "scaled by the share that happened to stay this time; use 1 - p, which is no accident":
            lambda activations, stays, p: activations * stays / stays.float().mean(),
    },
)  # fmt: skip


def renormalised(weight: torch.Tensor, radius: float) -> torch.Tensor:
    """(Cout,Cin,k,k) filters after `zflib.train.renormalise`."""
    conv = nn.Conv2d(*weight.shape[1::-1], weight.shape[-1], bias=False)
    conv.weight = nn.Parameter(weight.clone())
    filters.renormalise(conv, radius)
    return conv.weight.detach()


@seeded(13)
def _filters(generator):
    for spread in ((0.3, 0.02, 0.15, 0.05, 0.6), (0.03, 0.01, 0.02)):  # the second layer has nothing to rescale
        size = torch.tensor(spread)[:, None, None, None]
        colour = torch.rand(len(spread), 3, 1, 1, generator=generator) + 0.3
        yield case(torch.randn(len(spread), 3, 5, 5, generator=generator) * size * colour, 0.1)


def _rms(weight, *dims):
    return weight.square().mean(dim=dims, keepdim=True).sqrt()


def _held(size: Callable) -> Callable:
    """Filters whose `size(weight)` is beyond the radius, brought to it."""
    return lambda weight, radius: weight * (radius / size(weight)).clamp(max=1)


renormalise = Exercise(
    "renormalise", renormalised, _filters, source=filters.renormalise,
    success="the same filters as zflib.train.renormalise leaves",
    mistakes={
        "that is the RMS of the whole layer: one strong filter weakens all; each filter has its own":
            _held(lambda weight: _rms(weight, 0, 1, 2, 3)),
        "each colour of a filter was held by itself, which changes its hue; a filter is all of its channels":
            _held(lambda weight: _rms(weight, 2, 3)),
        "the mean went over the filters (dimension 0); keep that one, and average over the other three":
            _held(lambda weight: _rms(weight, 0, 2, 3)),
        "small filters grew to the radius; only those beyond it are rescaled":
            lambda weight, radius: weight * radius / _rms(weight, 1, 2, 3),
        "the largest weight was held to the radius; it is a limit for the root mean square":
            _held(lambda weight: weight.abs().amax(dim=(1, 2, 3), keepdim=True)),
        "each weight was clipped, which changes the pattern; rescale a filter as a whole":
            lambda weight, radius: weight.clamp(-radius, radius),
        "that is the length (the root of the sum of squares); take the mean of the squares":
            _held(lambda weight: weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()),
        "that is the mean square; its root is missing": _held(lambda weight: _rms(weight, 1, 2, 3) ** 2),
    },
)  # fmt: skip
