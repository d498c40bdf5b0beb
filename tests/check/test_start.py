"""The exercises of notebook 00: what they draw, and answers that the shared tests do not try."""

import io

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zflib import check, deconv
from zflib.check import start


def size_of(picture):
    return Image.open(io.BytesIO(picture)).size


def in_place(maps, channel):
    kept = maps[channel].max()
    keep = maps[channel] == kept
    maps.zero_()
    maps[channel][keep] = kept
    return maps


def test_torchs_convolution_is_the_right_answer():
    assert check.filter_image(lambda image, weights: F.conv2d(image[None], weights[None, None])[0]).state == check.RIGHT


def test_the_seed_is_the_one_that_the_deconvnet_starts_from():
    for maps, channel in (args for args, _ in start.single_activation.cases()):
        row, column = deconv.strongest(maps[None])[0, channel].tolist()
        alone = start.keep_strongest(maps, channel)
        assert alone.count_nonzero() == 1 and alone[channel, row, column] == maps[channel].max()


def test_a_right_answer_that_writes_into_its_maps_is_wrong():
    found = check.single_activation(in_place)
    assert found.state == check.WRONG and "`maps` was changed" in found.message
    assert check.single_activation(lambda maps, channel: in_place(maps.clone(), channel)).state == check.RIGHT


def by_loop(maps, channel, *, too_far):
    """Zeros but for the channel's largest value, `too_far` rows and columns beyond where it was."""
    _, row, column = max((float(maps[channel, r, c]), r, c) for r, c in torch.cartesian_prod(
        *map(torch.arange, maps.shape[1:])).tolist())  # fmt: skip
    alone = torch.zeros_like(maps)
    alone[channel, (row + too_far) % maps.shape[1], (column + too_far) % maps.shape[2]] = maps[channel, row, column]
    return alone


def test_one_activation_by_brute_force_is_right_and_counted_from_one_it_is_named():
    assert check.single_activation(lambda maps, channel: by_loop(maps, channel, too_far=0)).state == check.RIGHT
    assert "counted from 0" in check.single_activation(lambda maps, channel: by_loop(maps, channel, too_far=1)).message


def test_row_and_column_exchanged_is_named():
    def attempt(maps, channel):
        row, column = divmod(int(maps[channel].argmax()), maps.shape[2])
        alone = torch.zeros_like(maps)
        alone[channel, column, row] = maps[channel, row, column]
        return alone

    assert "exchanged" in check.single_activation(attempt).message


def test_cases_are_small_whole_numbers():
    for exercise in (check.filter_image, check.single_activation):
        for (values, *_), _ in exercise.cases():
            assert values.equal(values.round()) and values.abs().max() < 10


@pytest.mark.parametrize("exercise", [check.filter_image, check.single_activation], ids=lambda e: e.name)
def test_the_picture_has_the_input_and_grows_by_the_answer(exercise):
    before, after = exercise(...).picture, exercise(exercise.target).picture
    assert before != after
    assert size_of(after)[0] <= 1300
