"""Exercises of notebook 15: a rule for GELU, and the channel of an unknown network that fires on something."""

import math
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from .. import show
from .cases import case, seeded
from .verdict import Exercise, in_numbers


def gelu_rule(signal: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The signal below a GELU from the one above it: times the slope of x * P(x), where P is the normal distribution.

    All three have the shape of the maps (N,C,h,w); `before` is what went into the GELU, `after` what came out.
    """
    share = (1 + torch.erf(before / math.sqrt(2))) / 2  # P(x): how much of x passes
    density = torch.exp(-before.square() / 2) / math.sqrt(2 * math.pi)  # the slope of P
    return signal * (share + before * density)


@seeded(15)
def _signals(generator):
    for spread in (1.0, 3.0):
        before = torch.randn(1, 2, 4, 4, generator=generator) * spread
        yield case(torch.randint(-5, 6, before.shape, generator=generator).float(), before, F.gelu(before))


def _draw_signal(given, answer, target) -> np.ndarray:
    (signal, before, _), _ = given
    planes = {"the signal above": signal, "what went in, x": before.mul(100).round() / 100}
    return in_numbers(planes, None if answer is None else torch.as_tensor(answer).detach().cpu(), target)


def _share(before):
    return (1 + torch.erf(before / math.sqrt(2))) / 2


hand_a_rule = Exercise(
    "hand_a_rule", gelu_rule, _signals,
    mistakes={
        "the signal comes down unchanged; multiply it by the slope of the GELU": lambda signal, before, after: signal,
        "this is the rule of a ReLU, open or shut; a GELU's slope has every value between":
            lambda signal, before, after: signal * (before > 0),
        "you clamped the signal, as the deconvnet does at a ReLU; here the gradient is wanted, which has both signs":
            lambda signal, before, after: signal.clamp(min=0),
        "you sent the signal through the GELU itself; take the slope at what went in on the way up":
            lambda signal, before, after: F.gelu(signal),
        "you took the slope at what came out; take it at what went in, `before`":
            lambda signal, before, after: gelu_rule(signal, after, after),
        "half of the product rule: the slope of x * P(x) is P(x) + x * (slope of P)":
            lambda signal, before, after: signal * _share(before),
        "this multiplies by the GELU's output; multiply by its slope": lambda signal, before, after: signal * after,
        "this is the slope of the sigmoid form, x * sigmoid(1.702 x); torch's GELU takes the normal distribution":
            lambda signal, before, after: signal * _sigmoid_slope(before),
    },
    success="the slope of the GELU: with this rule, projections are autograd's gradients",
    draw=_draw_signal,
)  # fmt: skip


def _sigmoid_slope(before: torch.Tensor) -> torch.Tensor:
    gate = torch.sigmoid(1.702 * before)
    return gate + before * 1.702 * gate * (1 - gate)


# --- which channel fires on X -----------------------------------------------------------------------------------------


def best_detector(with_x, without_x) -> torch.Tensor:
    """(2,): layer and channel that tell images with X from those without it best.

    `with_x` and `without_x`: a list with the maps (N,C,h,w) of each layer. An image counts by the largest value of the
    channel's map; a channel's score is the share of all pairs, one image with X and one without, in which the one with
    X is stronger, a tie counting as half (the area under the ROC curve, which has no units and knows no threshold).
    """
    best, found = -1.0, (0, 0)
    for layer, (yes, no) in enumerate(zip(with_x, without_x)):
        yes, no = yes.amax(dim=(2, 3)), no.amax(dim=(2, 3))  # (N,C), (M,C)
        wins = (yes[:, None] > no[None]).float() + 0.5 * (yes[:, None] == no[None]).float()  # (N,M,C)
        score, channel = wins.mean(dim=(0, 1)).max(dim=0)
        if score > best:
            best, found = float(score), (layer, int(channel))
    return torch.tensor(found)


def _chosen(with_x, without_x, *, score, strength=lambda maps: maps.amax(dim=(2, 3))) -> torch.Tensor:
    """(2,): layer and channel with the largest score(yes (N,C), no (M,C)) -> (C,)."""
    scores = [score(strength(yes), strength(no)) for yes, no in zip(with_x, without_x)]
    layer = max(range(len(scores)), key=lambda number: float(scores[number].max()))
    return torch.tensor([layer, int(scores[layer].argmax())])


def _auc(yes: torch.Tensor, no: torch.Tensor, *, ties: float = 0.5) -> torch.Tensor:
    pairs = yes[:, None], no[None]
    return ((pairs[0] > pairs[1]).float() + ties * (pairs[0] == pairs[1]).float()).mean(dim=(0, 1))


#: The largest values of each channel with X | without X, three images each; a name for what the channel is.
_CHANNELS = {
    "detector": ([7, 6, 9], [4, 5, 2]),
    "loud": ([90, 80, 10], [20, 30, 5]),  # the largest difference of means; wins 7 of 9
    "strong everywhere": ([99, 98, 97], [99, 98, 97]),
    "silent on X": ([1, 0, 2], [8, 9, 7]),
    "tied": ([3, 3, 3], [3, 3, 3]),
    "outlier": ([70, 1, 1], [2, 3, 4]),
    "nearly": ([5, 6, 4], [4, 3, 5]),  # wins 7 and ties 2 of 9
}
_WIDE = ([1, 2, 1], [2, 1, 2])  # fills the whole map with a weak answer where X is: the mean is fooled


@seeded(151)
def _layers(generator):
    for names in (
        (("loud", "tied", "nearly"), ("silent on X", "detector", "outlier")),
        (("strong everywhere", "silent on X"), ("nearly", "loud", "tied"), ("outlier", "wide")),
    ):
        yield case(*([_maps(layer, side, generator) for layer in names] for side in (0, 1)))


def _maps(names, side: int, generator) -> torch.Tensor:
    """(3,C,2,2) maps with the channels' largest values somewhere, and 0 elsewhere; a wide one everywhere."""
    maps = torch.zeros(3, len(names), 2, 2)
    for channel, name in enumerate(names):
        values = torch.tensor((_WIDE if name == "wide" else _CHANNELS[name])[side]).float()
        places = torch.randint(4, (3,), generator=generator)
        flat = maps[:, channel].flatten(1)
        flat.scatter_(1, places[:, None], values[:, None])
        if name == "wide" and side == 0:
            flat[:] = values[:, None]
        maps[:, channel] = flat.view(3, 2, 2)
    return maps


def _draw_detector(given, answer, target) -> np.ndarray:
    """The strongest activations of every layer, channels in columns; below them the answer and the target."""
    (with_x, without_x), _ = given
    planes, titles = [], []
    for layer, (yes, no) in enumerate(zip(with_x, without_x)):
        planes += [yes.amax(dim=(2, 3)), no.amax(dim=(2, 3))]
        titles += [f"layer {layer}, with X", f"layer {layer}, without"]
    above = show.axes_pixels(show.matrices(planes, titles=titles))
    above = show.caption(above, "the largest value in each channel's map: images in rows, channels in columns", size=18)
    rows = {} if answer is None else {"yours": torch.as_tensor(answer).detach().cpu()}
    blank = np.zeros((0, above.shape[1], 3), np.uint8)
    lines = [f"{name}: layer {row[0]:g}, channel {row[1]:g}" for name, row in (rows | {"target": target}).items()]
    return np.concatenate([above, *(show.caption(blank, line, size=18) for line in lines)])


find_detector = Exercise(
    "find_detector", best_detector, _layers,
    mistakes={
        "you compared the means of the maps; X may be small: take the largest value of each map":
            partial(_chosen, score=_auc, strength=lambda maps: maps.mean(dim=(2, 3))),
        "a difference of means has the units of its layer, and the loudest layer wins; count the pairs that are won":
            partial(_chosen, score=lambda yes, no: yes.mean(0) - no.mean(0)),
        "this channel is the strongest on X, and as strong without it; compare the two sets":
            partial(_chosen, score=lambda yes, no: yes.mean(0)),
        "this channel falls silent where X is; wanted is one that fires":
            partial(_chosen, score=lambda yes, no: _auc(no, yes)),
        "a tie counted as a win; it says nothing, so it counts as half":
            partial(_chosen, score=partial(_auc, ties=1.0)),
        "one image decided: you compared the largest of all; every pair of images counts":
            partial(_chosen, score=lambda yes, no: yes.amax(0) - no.amax(0)),
        "these are channel and layer; the layer comes first":
            lambda with_x, without_x: best_detector(with_x, without_x).flip(0),
    },
    success="the channel that wins most pairs, in whatever layer it is",
    guess="",
    draw=_draw_detector,
)  # fmt: skip
