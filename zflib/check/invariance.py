"""Exercises of notebook 10: how far is far, a shift that fools, a threshold for each unit, robust and selective."""

import numpy as np
import torch
from torch import nn

from .. import show
from ..studies import firing_rates, moves
from .cases import case, randomised, seeded
from .verdict import Exercise, in_numbers

# --- a distance, compared with that to another picture ----------------------------------------------------------------


def distance_compared(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(N,) how far each picture's features went, from (N,D) before and after the move, in units of another picture.

    The unit: the root of the mean squared distance from a picture's features to those of the N - 1 others, unmoved.
    """
    went = (after - before).square().sum(dim=1).sqrt()  # (N,)
    between = (before[:, None] - before[None]).square().sum(dim=2)  # (N,N), 0 from a picture to itself
    return went / (between.sum(dim=1) / (len(before) - 1)).sqrt()


@seeded(11)
def _features(generator):
    for count, width in ((4, 3), (5, 6)):
        before = torch.randint(0, 8, (count, width), generator=generator).float()
        step = torch.randint(-2, 3, (count, width), generator=generator)
        step[:, 0] = torch.arange(1, count + 1)  # every picture goes another way, and none stays
        yield case(before, (before + step).clamp(min=0))


def _between(before, *, others=None) -> torch.Tensor:
    """(N,N) distances from each to each."""
    others = before if others is None else others
    return (before[:, None] - others[None]).square().sum(dim=2).sqrt()


def _went(before, after) -> torch.Tensor:
    return (after - before).norm(dim=1)


def _mean_distance(before, after):
    return _went(before, after) / (_between(before).sum(dim=1) / (len(before) - 1))


def _draw_features(given, answer, target) -> np.ndarray:
    """The first case: a row for each picture."""
    (before, after), _ = given
    mine = None if answer is None else torch.as_tensor(answer).detach()[:, None]
    return in_numbers({"before, a row for each picture": before, "after": after}, mine, target[:, None])


compared_distance = Exercise(
    "compared_distance", distance_compared, _features,
    mistakes={
        "each distance was divided by the length of the picture's own vector; divide by the distance to the others":
            lambda before, after: _went(before, after) / before.norm(dim=1),
        "each picture counts itself among the others, at distance 0; there are N - 1 others":
            lambda before, after: _went(before, after) / _between(before).square().mean(dim=1).sqrt(),
        "one unit for all pictures; each has its own distance to the others":
            lambda before, after: _went(before, after) * (len(before) * (len(before) - 1)) ** 0.5
            / _between(before).norm(),
        "the mean of the distances; square them, take the mean, then the root": _mean_distance,
        "the distance to the nearest other picture; take the root of the mean of the squares over all others":
            lambda before, after: _went(before, after)
            / (_between(before) + 1e9 * torch.eye(len(before))).amin(dim=1),
        "the unit was measured from the moved pictures; measure it between pictures as they were":
            lambda before, after: _went(before, after)
            / (_between(after).square().sum(dim=1) / (len(before) - 1)).sqrt(),
        "these are squares; the root is missing": lambda before, after: distance_compared(before, after).square(),
        "these are distances without a unit; divide by the distance to the other pictures": _went,
        "this is upside down: divide how far it went by how far the others are":
            lambda before, after: 1 / distance_compared(before, after),
    },
    source=distance_compared,
    success="the same numbers as zflib.invariance(...).compared",
    draw=_draw_features,
)  # fmt: skip


# --- a shift that fools the network -----------------------------------------------------------------------------------


def shortest_shift(net, image, label: int, reach: int) -> torch.Tensor:
    """(2,) down and right: the shortest shift of (3,H,W) within `reach` that changes the first answer, `label`."""
    shortest, found = None, (0, 0)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            answer = int(net(moves.shifted(image, down, right)).argmax())
            length = (down**2 + right**2) ** 0.5
            if answer != label and (shortest is None or length < shortest):
                shortest, found = length, (down, right)
    return torch.tensor(found)


_SEEDS = (86, 16, 2529)  # pictures whose shortest shift is like no other, and no mistake finds it


def _two_classes(generator) -> nn.Module:
    """A network that says one of two classes, for pictures of one colour and 8x8 pixels."""
    net = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 2))
    return randomised(net, generator, std=0.4)


def _small_pictures():
    return [_small_picture(seed) for seed in _SEEDS]


def _small_picture(seed: int):
    generator = torch.Generator().manual_seed(seed)
    net, image = _two_classes(generator), torch.randint(1, 10, (1, 8, 8), generator=generator).float()
    return case(net, image, int(net(image[None]).argmax()), 3)


def _margins(net, image, label: int, reach: int, change=moves.shifted) -> torch.Tensor:
    """(2 reach + 1, 2 reach + 1): the label's score minus the other class's, by shift; below 0 it is fooled."""
    side = range(-reach, reach + 1)
    scores = net(torch.cat([change(image, down, right) for down in side for right in side]))
    return (scores[:, label] - scores[:, 1 - label]).unflatten(0, (len(side), len(side)))


def _nearest(margins: torch.Tensor, *, rows=1.0, columns=1.0) -> torch.Tensor:
    """(2,): the shortest shift with a negative margin, by a length that weighs the two directions."""
    reach = len(margins) // 2
    side = torch.arange(-reach, reach + 1)
    length = (rows * side[:, None] ** 2 + columns * side[None] ** 2).masked_fill(margins >= 0, torch.inf)
    return _shift_at(int(length.argmin()), reach)


def _shift_at(place: int, reach: int) -> torch.Tensor:
    side = 2 * reach + 1
    return torch.tensor([place // side - reach, place % side - reach])


def _along(given, *, right: bool) -> torch.Tensor:
    """The shortest shift in one direction alone; no shift, if none of these fools."""
    *_, reach = given
    margins = _margins(*given)
    line = margins[reach] if right else margins[:, reach]
    away = torch.arange(-reach, reach + 1)
    best = away[away.abs().masked_fill(line >= 0, 99).argmin()] * (line < 0).any()
    return torch.stack([torch.tensor(0), best] if right else [best, torch.tensor(0)])


def _rolled(image, down: int, right: int) -> torch.Tensor:
    return image[None].roll((down, right), dims=(2, 3))


def _forward_only(*given) -> torch.Tensor:
    margins, reach = _margins(*given), given[-1]
    margins[:reach] = margins[:, :reach] = 1
    return _nearest(margins) if (margins < 0).any() else torch.zeros(2)


class _Fooling(Exercise):
    """An answer that fools without being the shortest is told how long it is."""

    def _named_mistake(self, answers: list) -> str | None:
        return super()._named_mistake(answers) or self._score(answers)

    def _score(self, answers: list) -> str | None:
        lengths, best = [], []
        for answer, (given, _) in zip(answers, self.cases()):
            (net, image, label, reach), (down, right) = given, torch.as_tensor(answer).tolist()
            if int(down) != down or int(right) != right or max(abs(down), abs(right)) > reach:
                return f"({down:g}, {right:g}) is not a shift by whole pixels within reach = {reach}"
            if int(net(moves.shifted(image, int(down), int(right))).argmax()) == label:
                return f"({down:g}, {right:g}) does not fool the network: its answer stays {label}"
            lengths.append((down**2 + right**2) ** 0.5)
            best.append(float(shortest_shift(net, image, label, reach).float().norm()))
        told, wanted = (", ".join(f"{length:.1f}" for length in each) for each in (lengths, best))
        return f"all your shifts fool the network; they are {told} pixels long, the shortest ones {wanted}"


def _draw_shift(given, answer, target) -> np.ndarray:
    """The picture, and the margin by shift with the answer framed, and the target."""
    (_, image, _, reach), _ = given
    margins = _margins(*given[0]).round()
    framed = ([] if answer is None else [torch.as_tensor(answer).tolist()]) + [target.tolist()]
    words = (["yours"] if answer is not None else []) + ["target"]
    frames = {i + 1: _cell(shift, reach) for i, shift in enumerate(framed)}
    titles = ["image", *(f"{word}: the label's score minus the other's, by shift" for word in words)]
    return show.axes_pixels(show.matrices([image[0]] + [margins] * len(framed), titles=titles, frames=frames))


def _cell(shift, reach: int) -> tuple[float, float, float, float]:
    down, right = (min(max(part, -reach), reach) + reach for part in shift)
    return down, right, down + 1, right + 1


fooling_shift = _Fooling(
    "fooling_shift", shortest_shift, _small_pictures,
    mistakes={
        "only shifts up and down were tried; try every pair": lambda *given: _along(given, right=False),
        "only shifts to the left and right were tried; try every pair": lambda *given: _along(given, right=True),
        "this is the first shift that was found; look for the shortest one":
            lambda *given: _shift_at(int((_margins(*given) < 0).flatten().int().argmax()), given[-1]),
        "this shift lowers the label's score most; the shortest one that changes the answer is wanted":
            lambda *given: _shift_at(int(_margins(*given).argmin()), given[-1]),
        "roll goes round in a circle; what left the picture must not come in again: use moves.shifted":
            lambda *given: _nearest(_margins(*given, change=_rolled)),
        "down and right are exchanged": lambda *given: shortest_shift(*given).flip(0),
        "this is the opposite of the shift that fools": lambda *given: -shortest_shift(*given),
        "only shifts down and to the right were tried; negative numbers move up and to the left": _forward_only,
    },
    source=shortest_shift,
    success="the shortest shift that changes the answer, in every picture",
    draw=_draw_shift,
)  # fmt: skip


# --- selective: a threshold for each unit (in the deeper notebook) ---------------------------------------------------


@seeded(12)
def _values(generator):
    """As many pictures as units, and every unit at its own strength, without ties."""
    for n, rate in ((12, 0.25), (20, 0.1)):
        orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(n)], dim=1)
        yield case(orders.float().square() * torch.arange(1, n + 1) + torch.arange(n), rate)


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


# --- robust and selective ---------------------------------------------------------------------------------------------


@seeded(13)
def _moved_values(generator):
    """Whole numbers; each unit fires on another share of the pictures, and keeps firing on another share of these."""
    for images, units, amounts in ((8, 3, 1), (5, 3, 2)):
        values = torch.stack([torch.randperm(images, generator=generator) for _ in range(units)], dim=1)
        noise = torch.randint(-4, 5, (amounts, images, units), generator=generator)
        after = (values + noise).clamp(min=0)
        yield case(values, after, torch.tensor([images - 3, images // 2, images // 2 - 1]))


def _overall(values, threshold):
    """(U,) the global rate."""
    return (values > threshold).float().mean(dim=0)


def _draw_values(given, answer, target) -> np.ndarray:
    """The first case: a row for each unit, a column for each picture."""
    (values, after, threshold), _ = given
    mine = None if answer is None else torch.as_tensor(answer).detach()[:, None]
    inputs = {"threshold": threshold[:, None], "values, a row for each unit": values.T}
    inputs |= {f"after move {number}": one.T for number, one in enumerate(after, start=1)}
    return in_numbers(inputs, mine, target[:, None])


invariance_score = Exercise(
    "invariance_score", firing_rates.score, _moved_values,
    mistakes={
        "the local rate was taken over all images; only those on which the unit fired before the move count":
            lambda values, after, threshold: _overall(after.flatten(0, 1), threshold) / _overall(values, threshold),
        "this is the local rate alone (or its hits were divided by N); a unit that always fires would win: divide by G":
            lambda values, after, threshold: firing_rates.score(values, after, threshold) * _overall(values, threshold),
        "this is the difference of the rates; the score is local divided by global":
            lambda values, after, threshold: (
                (firing_rates.score(values, after, threshold) - 1) * _overall(values, threshold)
            ),
        "only the first move counts here; take the mean over all moves":
            lambda values, after, threshold: firing_rates.score(values, after[:1], threshold),
        "this is upside down: the score is local divided by global, so that more is better":
            lambda *given: 1 / firing_rates.score(*given),
    },
    draw=_draw_values,
)  # fmt: skip
