"""Exercises of notebook 01: unpooling with switches, a guess for what they do not bring back, and what pools again."""

from functools import cache, partial

import numpy as np
import torch
from torch.nn import functional as F

from .. import data, deconv, models, show
from .cases import case, seeded
from .verdict import RIGHT, WRONG, Exercise, Verdict, in_numbers


@seeded(1)
def _pools(generator):
    for kernel, size in ((3, (5, 7)), (2, (4, 6))):
        numbers = torch.stack([torch.randperm(size[0] * size[1], generator=generator) for _ in range(4)])
        maps = numbers.view(2, 2, *size).float()  # whole numbers, no two of a map alike
        maps[0, 0, 2, 2] = 40.0  # of 3x3 windows the winner of four
        pooled, switches = F.max_pool2d(maps, kernel, 2, return_indices=True)
        order = torch.arange(pooled[0].numel()).view(pooled[0].shape) + 1  # what comes down is not what went up
        yield case(torch.stack([order, order.flip(-1)]).float(), switches, size=size)


def _top_left(pooled, switches, *, size):
    maps = pooled.new_zeros(*pooled.shape[:2], *size)
    maps[..., : 2 * pooled.shape[-2] : 2, : 2 * pooled.shape[-1] : 2] = pooled
    return maps


def _row_and_column_exchanged(pooled, switches, *, size):
    rows, columns = switches % size[1], switches // size[1]
    return deconv.unpool(pooled, (rows * size[1] + columns) % (size[0] * size[1]), size=size)


def _height_for_width(pooled, switches, *, size):
    maps = pooled.new_zeros(*pooled.shape[:2], *size)
    for image in range(len(pooled)):
        for channel in range(pooled.shape[1]):
            for value, position in zip(pooled[image, channel].flatten(), switches[image, channel].flatten()):
                maps[image, channel, position // size[0] % size[0], position % size[0]] += value
    return maps


def _only_the_first(pooled, switches, *, size):
    maps = pooled.new_zeros(*pooled.shape[:2], *size)
    maps[0, 0] = deconv.unpool(pooled, switches, size=size)[0, 0]
    return maps


def _draw_unpool(given, answer, target) -> np.ndarray:
    (pooled, switches), _ = given
    return in_numbers({"pooled": pooled, "switches": switches}, answer, target, blank=0)


unpool = Exercise(
    "unpool", deconv.unpool, _pools,
    mistakes={
        "the values are at the top-left of each window; use the switches": _top_left,
        "every position of the window got the value; only the winner's gets it":
            lambda pooled, switches, size: F.interpolate(pooled, size),
        "where two windows share a winner, one value overwrote the other; add them":
            partial(deconv.unpool, overlap="last"),
        "where two windows share a winner, only the larger value is left; add them":
            partial(deconv.unpool, overlap="max"),
        "every map was written at the first map's switches; each map has switches of its own":
            lambda pooled, switches, size: deconv.unpool(pooled, switches[:1, :1].expand_as(switches), size=size),
        "only the first map came back; do the same for every image and every channel": _only_the_first,
        "row and column are exchanged: row = position // width, column = position % width": _row_and_column_exchanged,
        "a row has as many positions as the map is wide: divide by the width, not by the height": _height_for_width,
        "the switches are where they belong, but you wrote them themselves; write the values":
            lambda pooled, switches, size: deconv.unpool(switches.float(), switches, size=size),
    },
    success="every value is at its winner's position, and where several meet they add up",
    draw=_draw_unpool,
)  # fmt: skip


# --- a guess for the losers ------------------------------------------------------------------------------------------

ENOUGH = 0.70  # of the maps' energy
SHOWN = 42  # a channel in which the cat's eyes and nose can be seen


@cache
def _photo_maps() -> list[torch.Tensor]:
    """(1,64,28,28) each: zfnet56's conv1 on two photographs."""
    net = models.load("zfnet56").requires_grad_(False)
    return [net.conv1(net.preprocess(data.photo(name))).clamp(min=0) for name in ("chelsea", "coffee")]


def _photo_pools():
    for maps in _photo_maps():
        yield case(*F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True), size=tuple(maps.shape[-2:]))


def guess_losers(pooled: torch.Tensor, switches: torch.Tensor, *, size) -> torch.Tensor:
    """(N,C,H,W) from the 3x3/2 pool of (N,C,H,W) maps: winners as they were, a guess everywhere else.

    A loser is at most as large as the smallest maximum of the windows that contain it. The guess is half of that.
    """
    height, width = pooled.shape[-2:]
    bound = pooled.new_full((*pooled.shape[:2], 2 * height + 1, 2 * width + 1), float("inf"))
    for row in range(3):
        for column in range(3):  # this position of every window
            part = bound[..., row : row + 2 * height : 2, column : column + 2 * width : 2]
            part.copy_(torch.minimum(part, pooled))
    winners = deconv.unpool(pooled, switches, size=size, overlap="max")
    return torch.where(winners > 0, winners, bound[..., : size[0], : size[1]] / 2)


def _blow_up(pooled, switches, *, size):
    return F.interpolate(pooled, size)


def _unscaled(pooled, switches, *, size):
    winners = deconv.unpool(pooled, switches, size=size, overlap="max")
    return torch.where(winners > 0, winners, _blow_up(pooled, switches, size=size))


def energy(guess: torch.Tensor, maps: torch.Tensor) -> float:
    """The share of the maps' energy, their sum of squares, that the guess brings back: 1 - |maps - guess|²/|maps|²."""
    return 1 - float((maps - guess).square().sum() / maps.square().sum())


class _Losers(Exercise):
    """Right is whatever keeps the winners and comes close enough to the maps, not only the target."""

    def _compare_answers(self, answers: list, targets: list) -> Verdict:
        answers = [torch.as_tensor(answer).detach().float().cpu() for answer in answers]
        scores = [energy(answer, maps) for answer, maps in zip(answers, _photo_maps())]
        worst = scores.index(min(scores))
        picture = self._picture(worst, answers[worst], targets[worst])
        sentence = self._named_mistake(answers)
        if sentence is None and not all(map(_keeps_winners, answers, self.cases())):
            sentence = "the winners are known exactly: keep every one of them, at its switch"
        if sentence is None and scores[worst] < ENOUGH:
            sentence = (
                f"the winners are exact, but your guess gives {scores[worst]:.0%} of the energy: reach {ENOUGH:.0%}"
            )
        return Verdict(RIGHT, self.success, picture) if sentence is None else Verdict(WRONG, sentence, picture)


def _keeps_winners(answer: torch.Tensor, given: tuple) -> bool:
    (pooled, switches), _ = given
    return torch.allclose(answer.flatten(2).gather(2, switches.flatten(2)), pooled.flatten(2), atol=1e-4)


def _draw_losers(given, answer, target) -> np.ndarray:
    """One channel: the winners alone, yours, and what was there."""
    (pooled, switches), named = given
    maps = next(maps for maps, other in zip(_photo_maps(), _photo_pools()) if torch.equal(other[0][0], pooled))
    pictures = {"winners alone": deconv.unpool(pooled, switches, **named, overlap="max")}
    pictures |= {} if answer is None else {"yours": answer}
    titles = [f"{title}: {energy(values, maps):.0%} of the energy" for title, values in pictures.items()]
    views = [values[0, SHOWN] for values in (*pictures.values(), maps)]
    pixels = [show.upscale(show.map_pixels(view, full=float(views[-1].max())), 300) for view in views]
    return show.beside(pixels, [*titles, f"what was there (channel {SHOWN})"])


losers = _Losers(
    "losers", guess_losers, lambda: list(_photo_pools()),
    mistakes={
        "all losers are 0; they were not: put a guess there":
            partial(deconv.unpool, overlap="max"),
        "here the values that meet at one position are one value, the winner's: add nothing up, use overlap='max'":
            deconv.unpool,
        "a blow-up alone moves the winners: keep them at their switches, and use the blow-up for the losers": _blow_up,
        "no loser is larger than its window's winner, and most are far smaller: use a fraction of it": _unscaled,
    },
    success=f"the winners are exact, and with your guess more than {ENOUGH:.0%} of the energy is back",
    draw=_draw_losers,
)  # fmt: skip


# --- reading at the switches: the notebook on pools that overlap ------------------------------------------------------


@seeded(3)
def _other_maps(generator):
    for kernel, side in ((2, 6), (3, 7)):
        numbers = torch.stack([torch.randperm(side * side, generator=generator) + 1 for _ in range(4)])
        maps, others = numbers.view(2, 1, 2, side, side).float()
        yield case(others, F.max_pool2d(maps, kernel, 2, return_indices=True)[1])


def read_switches(maps: torch.Tensor, switches: torch.Tensor) -> torch.Tensor:
    """(N,C,h,w): the values of (N,C,H,W) `maps` at the positions that won; linear in the maps, unlike a maximum."""
    return maps.flatten(-2).gather(-1, switches.flatten(-2)).view_as(switches)


def _draw_read(given, answer, target) -> np.ndarray:
    (maps, switches), _ = given
    return in_numbers({"maps": maps, "switches": switches}, answer, target)


pool_again = Exercise(
    "pool_again", read_switches, _other_maps,
    mistakes={
        "you chose new winners; read the values at the positions that the switches recorded":
            lambda maps, switches: F.max_pool2d(maps, 2 + maps.shape[-1] % 2, 2),
        "the values come from the top-left of each window; read them at the switches":
            lambda maps, switches: maps[..., : 2 * switches.shape[-2] : 2, : 2 * switches.shape[-1] : 2],
        "every channel was read at the first channel's switches; each map has switches of its own":
            lambda maps, switches: read_switches(maps, switches[:, :1].expand_as(switches)),
        "the switches themselves came back; they are positions, read the map's values there":
            lambda maps, switches: switches.float(),
    },
    draw=_draw_read,
)  # fmt: skip
