"""Exercises of notebook 12: the order of the ablations, and what several networks say together."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch

from ..studies.ablation import FIVE, KRIZHEVSKY, VARIANTS
from .cases import case, seeded
from .verdict import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict, exercise, in_numbers


@exercise
def order(names: Sequence[str]) -> Verdict:
    """How many of the ten pairs among `names`, the five networks from best to worst, lie as in the paper's Table 3."""
    if names is None or names is ... or (hasattr(names, "__len__") and len(names) == 0):
        return Verdict(NOT_ATTEMPTED, "write the five names into the list, the network with the lowest error first")
    try:
        given = list(names)
        fits = sorted(given) == sorted(FIVE)
    except TypeError:
        given, fits = [], False
    if not fits:
        return Verdict(WRONG, f"the list should hold each of these once: {', '.join(FIVE)}")
    errors = [_paper_error(name) for name in given]
    right = sum(first < second for first, second in combinations(errors, 2))
    if right == 10:
        return Verdict(RIGHT, "all ten pairs lie as in the paper's table")
    return Verdict(WRONG, f"{right} of 10 pairs lie as in the paper's table; a random order gets 5 on average")


def _paper_error(name: str) -> float:
    """Top-1 validation error; all five are Krizhevsky's network, from which the paper took layers away."""
    return KRIZHEVSKY[1] if name == "full" else VARIANTS[name].paper[1]


def mean_vote(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-5 error in per cent of M networks that vote with their mean; (M,N,classes) probabilities, (N,) labels."""
    first = probabilities.mean(dim=0).topk(5).indices
    return 100 - 100 * float((first == labels[:, None]).any(dim=1).float().mean())


@seeded(12)
def _votes(generator):
    for networks, images in ((3, 40), (2, 60)):
        sure = torch.tensor([0.7, 2.5, 1.2])[:networks, None, None]  # networks differ in how sure they are
        scores = sure * torch.randn(networks, images, 12, generator=generator)
        yield case(scores.softmax(dim=-1), torch.randint(0, 12, (images,), generator=generator))


def _each_alone(probabilities, labels):
    return sum(mean_vote(one[None], labels) for one in probabilities) / len(probabilities)


def _best_alone(probabilities, labels):
    return min(mean_vote(one[None], labels) for one in probabilities)


def _top(k):
    def error(probabilities, labels):
        first = probabilities.mean(dim=0).topk(k).indices
        return 100 - 100 * float((first == labels[:, None]).any(dim=1).float().mean())

    return error


def _draw_together(given, answer, target) -> np.ndarray:
    """The first images: the labels' probabilities in each network and in their mean, and the error."""
    (probabilities, labels), _ = given
    rows = torch.cat([probabilities, probabilities.mean(dim=0, keepdim=True)])[:, torch.arange(8), labels[:8]] * 100
    mine = None if answer is None else torch.as_tensor(answer).reshape(1, 1)
    inputs = {"the label's probability, 8 images across; below, the mean": rows.round()}
    return in_numbers(inputs, mine, torch.tensor([[target]]))


together = Exercise(
    "together", mean_vote, _votes,
    mistakes={
        "that is the share that they get right; the error is the rest":
            lambda probabilities, labels: 100 - mean_vote(probabilities, labels),
        "that is the mean of the networks' own errors; average their probabilities first": _each_alone,
        "that is the error of the best network alone; average the probabilities of all": _best_alone,
        "that is the top-1 error: the label may be any of the five most probable classes": _top(1),
        "the surest network decides; take the mean of all":
            lambda probabilities, labels: mean_vote(probabilities.amax(dim=0, keepdim=True), labels),
        "that is a share between 0 and 1; give per cent":
            lambda probabilities, labels: mean_vote(probabilities, labels) / 100,
    },
    draw=_draw_together,
)  # fmt: skip
