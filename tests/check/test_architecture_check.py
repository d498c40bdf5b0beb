"""The exercises of notebook 08 against brute force and numpy."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import check


def test_the_stride_by_trying_every_period():
    def by_hand(energies):
        values = energies.tolist()
        costs = {}
        for period in range(2, len(values) // 2 + 1):
            pairs = [(values[i + period] - values[i]) ** 2 for i in range(len(values) - period)]
            costs[period] = sum(pairs) / len(pairs)
        return torch.tensor(min(costs, key=costs.get))

    assert check.find_stride(by_hand).state == check.RIGHT


def test_the_strides_of_the_cases_are_those_they_were_made_with():
    assert [int(check.find_stride.target(energies)) for (energies,), _ in check.find_stride.cases()] == [4, 3, 2, 6]


def test_the_ruler_in_numpy_is_right():
    def by_hand(weight, low, high, size):
        power = (np.abs(np.fft.fft2(weight.numpy(), s=(size, size))) ** 2).sum(axis=1)
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
        return torch.tensor(power[:, (radius >= low) & (radius < high)].sum(axis=1) / power.sum(axis=(1, 2)))

    assert check.band_share(by_hand).state == check.RIGHT


def test_the_dead_by_looking_at_every_number():
    def by_hand(maps, share):
        tops = [max(float(value) for value in maps[:, channel].flatten()) for channel in range(maps.shape[1])]
        return torch.tensor([top <= share * max(tops) for top in tops])

    assert check.dead(by_hand).state == check.RIGHT


@pytest.mark.parametrize("answer", [0, -3, 1000, 2.5], ids=str)
def test_a_strange_period_is_wrong_and_drawn(answer):
    found = check.find_stride(lambda energies: answer)
    assert found.state == check.WRONG and "stumbled" not in found.message and found.picture


@pytest.mark.parametrize("exercise", [check.find_stride, check.band_share, check.dead], ids=lambda e: e.name)
def test_the_picture_grows_by_the_answer(exercise):
    before, after = exercise(...).picture, exercise(exercise.target).picture
    widths = [Image.open(io.BytesIO(picture)).width for picture in (before, after)]
    assert before != after and widths[0] <= widths[1] <= 1300
