"""Exercises of notebook 00: one activation of one map."""

import torch

from .cases import case, seeded
from .verdict import Exercise


@seeded(3)
def _a_map(generator):
    for height, width in ((5, 7), (7, 4), (6, 6)):
        yield case(torch.rand(height, width, generator=generator))


@seeded(4)
def _some_maps(generator):
    one, other = torch.rand(3, 4, 5, generator=generator) + 0.5, torch.rand(2, 6, 6, generator=generator)
    yield case(one, 0, 2, 3)
    yield case(other, 1, 0, 4)


def _strongest_position(map):
    """(2,) row and column of the largest value of one (h,w) map."""
    place = map.argmax()
    return torch.stack([place // map.shape[1], place % map.shape[1]])


def _single_activation(maps, channel, row, column):
    """(C,h,w) zeros but for the activation at (channel, row, column)."""
    alone = torch.zeros_like(maps)
    alone[channel, row, column] = maps[channel, row, column]
    return alone


strongest_position = Exercise(
    "strongest_position", _strongest_position, _a_map,
    mistakes={
        "this is (column, row); rows come first": lambda map: _strongest_position(map).flip(0),
        "the map was divided by its height; a row holds as many places as the map is wide":
            lambda map: torch.stack([map.argmax() // map.shape[0], map.argmax() % map.shape[0]]),
    },
)  # fmt: skip

single_activation = Exercise(
    "single_activation", _single_activation, _some_maps,
    mistakes={
        "the whole channel is left; one activation of it is wanted":
            lambda maps, channel, row, column: _single_activation(maps, channel, slice(None), slice(None)),
        "this position is left in every channel; only one channel is wanted":
            lambda maps, channel, row, column: _single_activation(maps, slice(None), row, column),
        "the place is right, but its value became 1; keep the activation's own value":
            lambda *args: _single_activation(*args).sign(),
    },
)  # fmt: skip
