"""The exercises of notebook 01: what they draw, and every answer that keeps the winners and guesses well is right."""

import io

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zflib import check, deconv
from zflib.check import unpooling


def size_of(picture):
    return Image.open(io.BytesIO(picture)).size


def loop(pooled, switches, *, size):
    """Brute force: one value after the other."""
    maps = torch.zeros(*pooled.shape[:2], *size)
    for index in torch.cartesian_prod(*map(torch.arange, pooled.shape)):
        place = int(switches[tuple(index)])
        maps[index[0], index[1], place // size[1], place % size[1]] += pooled[tuple(index)]
    return maps


def fraction(share):
    """Winners as they were, and for the losers a share of the blow-up."""

    def attempt(pooled, switches, *, size):
        winners = deconv.unpool(pooled, switches, size=size, overlap="max")
        return torch.where(winners > 0, winners, share * F.interpolate(pooled, size))

    return attempt


def test_unpool_by_brute_force_is_right():
    assert check.unpool(loop).state == check.RIGHT


def test_unpool_is_tried_on_whole_numbers_and_a_winner_of_four_windows():
    (pooled, switches), named = unpooling.unpool.cases()[0]
    assert pooled.equal(pooled.round()) and named["size"][0] != named["size"][1]
    assert switches[0, 0].flatten().bincount().max() == 4
    assert all(args[1][0, 0].min() > 0 for args, _ in unpooling.unpool.cases())  # zeros are not written


@pytest.mark.parametrize("exercise", [check.unpool, check.losers, check.pool_again], ids=lambda e: e.name)
def test_the_picture_has_the_input_and_grows_by_the_answer(exercise):
    before, after = exercise(...).picture, exercise(exercise.target).picture
    assert before != after
    assert size_of(before)[0] <= size_of(after)[0] <= 1300


def test_a_loser_is_never_above_the_bound_and_the_guess_is_half_of_it():
    for maps, (args, named) in zip(unpooling._photo_maps(), unpooling._photo_pools()):
        guess = unpooling.guess_losers(*args, **named)
        lost = guess != maps
        windows = F.pad(args[0], (1, 1, 1, 1), value=float("inf"))  # of zfnet56: 14x14 windows over 28x28 positions
        for row, column in ((4, 6), (5, 7), (27, 27), (0, 0), (10, 3)):
            rows = [row // 2] + [row // 2 - 1] * (row % 2 == 0)
            columns = [column // 2] + [column // 2 - 1] * (column % 2 == 0)
            bound = torch.stack([windows[..., r + 1, c + 1] for r in rows for c in columns]).amin(0)
            assert (maps[..., row, column] <= bound + 1e-5).all()
            where = lost[..., row, column]
            assert torch.allclose(guess[..., row, column][where], bound[where] / 2)


def test_another_good_guess_is_right_and_a_bad_one_is_told_its_score():
    assert check.losers(fraction(0.3)).state == check.RIGHT
    found = check.losers(fraction(0.5))
    assert found.state == check.WRONG and "70%" in found.message and found.message not in check.losers.mistakes


def test_a_guess_that_loses_a_winner_is_wrong():
    def attempt(pooled, switches, *, size):
        guess = fraction(0.3)(pooled, switches, size=size)
        guess[guess == guess.amax()] *= 0.9
        return guess

    found = check.losers(attempt)
    assert found.state == check.WRONG and "winners" in found.message


def test_the_energy_is_a_closed_form():
    maps = torch.tensor([3.0, 4.0])
    assert unpooling.energy(torch.tensor([3.0, 0.0]), maps) == pytest.approx(9 / 25)
    assert unpooling.energy(maps, maps) == 1
