"""Exercises of notebook 10: move a picture, measure how far its features go, when a unit fires, and is it invariant?"""

import torch

from ..studies import firing_rates
from .cases import case, seeded
from .verdict import Exercise


@seeded(10)
def _pictures(generator):
    """As high as wide, without zeros, so that every wrong row shows; the last one is moved by nothing."""
    for count, pixels in ((1, 2), (2, 3), (3, 0)):
        yield case(0.5 + torch.rand(count, 1, 7, 7, generator=generator), pixels)


def _shift_down(images, pixels):
    """(N,C,H,W) with everything `pixels` (0 or more) rows lower; grey, 0, comes in at the top."""
    moved = torch.zeros_like(images)
    moved[:, :, pixels:] = images[:, :, : images.shape[2] - pixels]
    return moved


shift_down = Exercise(
    "shift_down", _shift_down, _pictures,
    mistakes={
        "what left at the bottom came in again at the top: roll goes round in a circle; fill those rows with 0":
            lambda images, pixels: images.roll(pixels, 2),
        "this moved up; row r of the result is row r - pixels of the picture":
            lambda images, pixels: _shift_down(images.flip(2), pixels).flip(2),
        "this moved to the right; dimension 2 of (N,C,H,W) counts the rows":
            lambda images, pixels: _shift_down(images.mT, pixels).mT,
        "the first row was repeated; here the rows that come in are grey, 0":
            lambda images, pixels: images[:, :, (torch.arange(images.shape[2]) - pixels).clamp(min=0)],
    },
)  # fmt: skip


@seeded(11)
def _maps(generator):
    for shape in ((5, 4, 3, 3), (6, 3, 2, 4)):
        before, after = torch.randn(2, *shape, generator=generator)
        yield case(before, after * torch.linspace(0.2, 2, shape[0])[:, None, None, None])


def _feature_distance(before, after):
    """(N,) Euclidean distances after the ReLU, from (N,C,h,w) outputs of a convolution before it."""
    return (after.relu() - before.relu()).flatten(1).norm(dim=1)


feature_distance = Exercise(
    "feature_distance", _feature_distance, _maps,
    mistakes={
        'these are distances before the ReLU; "layer 1" means after it':
            lambda before, after: (after - before).flatten(1).norm(dim=1),
        "the difference was rectified; rectify both, then take the difference":
            lambda before, after: (after - before).relu().flatten(1).norm(dim=1),
        "these are squared distances; a Euclidean distance is the root of the sum of squares":
            lambda before, after: _feature_distance(before, after).square(),
        "this is the root of the mean square; a Euclidean distance has the sum under the root":
            lambda before, after: _feature_distance(before, after) / before[0].numel() ** 0.5,
        "absolute differences were added; square them, add, take the root":
            lambda before, after: (after.relu() - before.relu()).abs().flatten(1).sum(dim=1),
        "a difference of lengths is not the length of the difference: two vectors may be equally long and far apart":
            lambda before, after: (after.relu().flatten(1).norm(dim=1) - before.relu().flatten(1).norm(dim=1)).abs(),
    },
)  # fmt: skip


@seeded(12)
def _values(generator):
    """As many images as units; every unit at its own strength."""
    for n, rate in ((12, 0.25), (20, 0.1)):
        yield case(torch.rand(n, n, generator=generator) * torch.linspace(1, 3, n) + torch.linspace(0, 2, n), rate)


firing_threshold = Exercise(
    "firing_threshold", firing_rates.thresholds, _values,
    mistakes={
        "above this threshold lies all but that share: it is the quantile of the wrong side":
            lambda values, rate: -firing_rates.thresholds(-values, rate),
        "this is one threshold for the whole layer; each unit has its own":
            lambda values, rate: firing_rates.thresholds(values.reshape(-1, 1), rate).expand(values.shape[1]),
        "this is a threshold for each image, over the units; each unit needs one, over the images":
            lambda values, rate: firing_rates.thresholds(values.T, rate),
        "this is a share of the largest value, not of the images; sort a unit's values and count":
            lambda values, rate: (1 - rate) * values.amax(dim=0),
        "one image too few fires: a unit fires ABOVE its threshold, so the threshold is the next value below":
            lambda values, rate: values.topk(int(rate * len(values)), dim=0).values[-1],
    },
)  # fmt: skip


@seeded(13)
def _moved_values(generator):
    for images, units, amounts in ((20, 4, 3), (30, 6, 2)):
        values = torch.rand(images, units, generator=generator)
        noise = torch.rand(amounts, images, units, generator=generator)
        after = values + (noise - 0.5) * torch.linspace(0.1, 1.5, units)
        yield case(values, after, firing_rates.thresholds(values, 0.2))


def _overall(values, threshold):
    """(U,) the global rate."""
    return (values > threshold).float().mean(dim=0)


invariance_score = Exercise(
    "invariance_score", firing_rates.score, _moved_values,
    mistakes={
        "the local rate was taken over all images; only those on which the unit fired before the move count":
            lambda values, after, threshold: _overall(after.flatten(0, 1), threshold) / _overall(values, threshold),
        "this is the local rate alone; a unit that always fires would win: divide by the global rate":
            lambda values, after, threshold: firing_rates.score(values, after, threshold) * _overall(values, threshold),
        "this is the difference of the rates; the score is local divided by global":
            lambda values, after, threshold: (
                (firing_rates.score(values, after, threshold) - 1) * _overall(values, threshold)
            ),
        "this is upside down: the score is local divided by global, so that more is better":
            lambda *given: 1 / firing_rates.score(*given),
    },
)  # fmt: skip
