"""Exercises of notebook 01: unpooling with switches."""

from functools import partial

import torch
from torch.nn import functional as F

from .. import deconv
from .cases import case, seeded
from .verdict import Exercise


@seeded(1)
def _pools(generator):
    for kernel, side in ((2, 6), (3, 7)):
        maps = torch.randn(1, 2, side, side, generator=generator)
        pooled, switches = F.max_pool2d(maps, kernel, 2, return_indices=True)
        values = torch.rand(pooled.shape, generator=generator) + 0.5  # different ones where windows share a winner
        yield case(values, switches, size=(side, side))


def _top_left(pooled, switches, *, size):
    maps = pooled.new_zeros(*pooled.shape[:2], *size)
    maps[..., : 2 * pooled.shape[-2] : 2, : 2 * pooled.shape[-1] : 2] = pooled
    return maps


unpool = Exercise(
    "unpool", deconv.unpool, _pools,
    mistakes={
        "the values sit at the top-left of each window; use the switches": _top_left,
        "every place of the window got the value; only the place that won gets it":
            lambda pooled, switches, size: F.interpolate(pooled, size),
        "where two windows share a winner, one value overwrote the other; add them":
            partial(deconv.unpool, overlap="last"),
        "where two windows share a winner, only the larger value is left; add them":
            partial(deconv.unpool, overlap="max"),
    },
)  # fmt: skip


def centre_peak_values() -> torch.Tensor:
    """A 5x5 map with one peak in its centre, pooled 3x3/2: all four windows chose place 12, where 1, 2, 3, 4 meet."""
    under = {"sum": 1 + 2 + 3 + 4, "max": 4, "last": 4}  # in reading order the window of the 4 is the last one
    return torch.tensor([under["sum"], under["max"], under["last"]])


centre_peak = Exercise(
    "centre_peak", centre_peak_values, lambda: [case()],
    mistakes={
        'under "sum" every window adds its value to the place that won: 1 + 2 + 3 + 4': lambda: [4, 4, 4],
        '"last" keeps what is written last in reading order (bottom right), not the first': lambda: [10, 4, 1],
        "the peak is the strongest place of all four windows, so all four values go there": lambda: [1, 1, 1],
        '"last" does not add up: the last window in reading order overwrites the others': lambda: [10, 4, 10],
    },
    success="four windows, one winner: 10 if they add up, 4 if one of them overwrites the rest",
    guess="your three numbers",
)  # fmt: skip


@seeded(2)
def _rectified_pools(generator):
    maps = (torch.randn(2, 3, 7, 7, generator=generator) - 0.9).clamp(min=0)  # about one window in five is all zero
    maps[0, 0, 2, 2], maps[0, 0, 5:, :3] = 3.0, 0.0  # a place that wins four times, and a window that nobody wins
    yield case(*F.max_pool2d(maps, 3, 2, return_indices=True), size=(7, 7))


def count_wins(pooled: torch.Tensor, switches: torch.Tensor, *, size) -> torch.Tensor:
    """(N,C,H,W): how many windows each place won, not counting windows whose maximum is 0."""
    return deconv.unpool((pooled > 0).float(), switches, size=size)


wins = Exercise(
    "wins", count_wins, _rectified_pools,
    mistakes={
        "a window whose maximum is 0 has a switch too, but nothing won there; count the windows with pooled > 0":
            lambda pooled, switches, size: deconv.unpool(torch.ones_like(pooled), switches, size=size),
        "a place that won several windows counts once; scatter_add_ counts it every time":
            lambda pooled, switches, size: (count_wins(pooled, switches, size=size) > 0).float(),
        "you added up the values; add 1 for every window": deconv.unpool,
        "the wins stand at the top-left of each window; use the switches":
            lambda pooled, switches, size: _top_left((pooled > 0).float(), switches, size=size),
    },
    success="every window that has a winner is counted once, at its winner",
)  # fmt: skip


@seeded(3)
def _other_maps(generator):
    for kernel, side in ((2, 6), (3, 7)):
        maps, others = torch.randn(2, 1, 2, side, side, generator=generator)
        yield case(others, F.max_pool2d(maps, kernel, 2, return_indices=True)[1])


def read_switches(maps: torch.Tensor, switches: torch.Tensor) -> torch.Tensor:
    """(N,C,h,w): the values of (N,C,H,W) `maps` at the places that won; linear in the maps, unlike a maximum."""
    return maps.flatten(-2).gather(-1, switches.flatten(-2)).view_as(switches)


pool_again = Exercise(
    "pool_again", read_switches, _other_maps,
    mistakes={
        "you chose new winners; read the values at the places that the switches recorded":
            lambda maps, switches: F.max_pool2d(maps, 2 + maps.shape[-1] % 2, 2),
        "the values come from the top-left of each window; read them at the switches":
            lambda maps, switches: maps[..., : 2 * switches.shape[-2] : 2, : 2 * switches.shape[-1] : 2],
        "every channel was read at the first channel's switches; each map has switches of its own":
            lambda maps, switches: read_switches(maps, switches[:, :1].expand_as(switches)),
        "the switches themselves came back; they are places, read the map's values there":
            lambda maps, switches: switches.float(),
    },
)  # fmt: skip
