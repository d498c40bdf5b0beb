"""Exercises of notebook 12: layers taken out of a list, the order of the ablations, and several networks together."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch

from .. import show
from ..models import Geometry
from ..studies import ablation
from ..studies.ablation import FIVE, paper_errors
from .cases import case, seeded
from .verdict import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict, exercise, in_numbers

# --- a network is a list ----------------------------------------------------------------------------------------------

#: A network whose layers all differ, so that one missing layer cannot pass for another.
_SEVEN = replace(ablation.FULL, hidden=(256, 128), convs=tuple(
    replace(conv, channels=channels) for conv, channels in zip(ablation.FULL.convs, (16, 24, 32, 48, 64))
))  # fmt: skip
_TAKEN = ((3, 4), (7,), (6, 7), (2, 5, 6), (1,), ())


def _keeping(keep: Callable[[int, tuple[int, ...]], bool], *, first: int = 1, fully: int = 6) -> Callable:
    """A way to take layers out: convolutions are counted from `first`, fully connected layers from `fully`."""

    def taken_out(geometry: Geometry, *layers: int) -> Geometry:
        convs = tuple(conv for i, conv in enumerate(geometry.convs, start=first) if keep(i, layers))
        hidden = tuple(width for i, width in enumerate(geometry.hidden, start=fully) if keep(i, layers))
        return replace(geometry, convs=convs, hidden=hidden)

    return taken_out


def _out(i, layers):
    return i not in layers


_MISTAKES = {
    "nothing was taken away": lambda geometry, *layers: geometry,
    "you kept the layers that should go; keep the others": _keeping(lambda i, layers: i in layers),
    "the fully connected layers are all still there; `hidden` holds 6 and 7": _keeping(_out, fully=106),
    "the convolutions are all still there; `convs` holds 1 to 5": _keeping(_out, first=101),
    "you counted from 0; the paper's first convolution is layer 1, its first fully connected one layer 6":
        _keeping(_out, first=0, fully=5),
    "the convolutions are counted from 0; the first one is layer 1": _keeping(_out, first=0),
    "the fully connected layers are counted from 5; the first one is layer 6": _keeping(_out, fully=5),
    "the fully connected layers are counted from 1; the first one is layer 6": _keeping(_out, fully=1),
    "the fully connected layers are counted from 0; the first one is layer 6": _keeping(_out, fully=0),
}  # fmt: skip


@exercise
def without(attempt: Callable) -> Verdict:
    """Whether attempt(geometry, *layers) gives the `Geometry` without these layers, numbered as in the paper."""
    if attempt is None or attempt is ... or not callable(attempt):
        return Verdict(NOT_ATTEMPTED, "pass your function itself: check.without(my_without)")
    try:
        answers = [attempt(_SEVEN, *layers) for layers in _TAKEN]
    except Exception as error:
        return Verdict(WRONG, f"your function raised {type(error).__name__}: {error}")
    if all(answer is None or answer is ... for answer in answers):
        return Verdict(NOT_ATTEMPTED, "replace the ... by your code; the target is drawn here", _taken_out(0, None))
    if not all(isinstance(answer, Geometry) for answer in answers):
        kind = next(type(answer).__name__ for answer in answers if not isinstance(answer, Geometry))
        return Verdict(WRONG, f"your function should return replace(geometry, …), it returned {kind}")
    wrong = [i for i, layers in enumerate(_TAKEN) if not _same(answers[i], ablation.without(_SEVEN, *layers))]
    if not wrong:
        return Verdict(RIGHT, "the same lists as the package's own", _taken_out(0, answers[0]))
    return Verdict(WRONG, _named(answers), _taken_out(wrong[0], answers[wrong[0]]))


without.solution = lambda: print(inspect.getsource(ablation.without))  # as of the other exercises


def _same(one: Geometry, other: Geometry) -> bool:
    """Lists are as good as tuples."""
    plain = [replace(each, convs=tuple(each.convs), hidden=tuple(each.hidden)) for each in (one, other)]
    return plain[0] == plain[1]


def _named(answers: Sequence[Geometry]) -> str:
    """The sentence of the mistake that gives the same networks every time."""
    for sentence, mistake in _MISTAKES.items():
        if all(_same(answer, mistake(_SEVEN, *layers)) for answer, layers in zip(answers, _TAKEN)):
            return sentence
    return "these are not the layers that should stay, in their order; compare them"


def _taken_out(i: int, answer: Geometry | None) -> bytes:
    """PNG of a case: the channels and units of the layers that were given, that were left and that should be."""
    words = f"layers 1 to 7; take away {', '.join(map(str, _TAKEN[i])) or 'none'}"
    mine = None if answer is None else _widths(answer)
    return show.encoded(
        in_numbers({words: _widths(_SEVEN)}, mine, _widths(ablation.without(_SEVEN, *_TAKEN[i]))), "PNG"
    )


def _widths(geometry: Geometry) -> torch.Tensor:
    """(1,layers) channels and units."""
    return torch.tensor([[*(conv.channels for conv in geometry.convs), *geometry.hidden]])


# --- the bet ----------------------------------------------------------------------------------------------------------


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
        return Verdict(WRONG, f"the list should hold each of these once: {', '.join(map(repr, FIVE))}")
    errors = [paper_errors()[name] for name in given]
    right = sum(first < second for first, second in combinations(errors, 2))
    if right == 10:
        return Verdict(RIGHT, "all ten pairs lie as in the paper's top-1 errors")
    return Verdict(WRONG, f"{right} of 10 pairs lie as in the paper's top-1 errors; a random order gets 5 on average")


# --- several networks together ---------------------------------------------------------------------------------------


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
