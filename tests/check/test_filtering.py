"""The exercises of notebook 03: their cases, mistakes of a wrong size, and what they draw."""

import io

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from zflib import check
from zflib.check import filtering

EXERCISES = [check.stamps, check.transposed_filter, check.missing_rows]


def size_of(picture):
    return Image.open(io.BytesIO(picture)).size


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_the_picture_has_the_input_and_grows_by_the_answer(exercise):
    before, after = exercise(...).picture, exercise(exercise.target).picture
    assert before != after
    assert 300 <= size_of(before)[0] <= size_of(after)[0] <= 1300


@pytest.mark.parametrize("exercise", [check.stamps, check.transposed_filter], ids=lambda e: e.name)
def test_the_numbers_are_whole_and_the_first_case_is_one_map(exercise):
    for args, named in exercise.cases():
        maps, weight = args[0], getattr(args[1], "weight", args[1])
        assert maps.equal(maps.round()) and weight.equal(weight.round())
        assert exercise.target(*args, **named).abs().max() < 400
    (maps, weight), _ = exercise.cases()[0]
    assert maps.numel() <= 9 and getattr(weight, "weight", weight).flatten().tolist() == list(range(1, 10))


def test_autograd_is_right():
    """The transpose of a convolution is its gradient; of a bias nothing comes back."""

    def attempt(maps, conv, *, size):
        image = torch.zeros(1, conv.in_channels, *size, requires_grad=True)
        with torch.enable_grad():
            return torch.autograd.grad(conv(image), image, maps)[0]

    assert check.transposed_filter(attempt).state == check.RIGHT


def test_torch_stamps_as_well():
    found = check.stamps(lambda maps, weight, *, stride: F.conv_transpose2d(maps[None], weight, stride=stride)[0])
    assert found.state == check.RIGHT


def test_a_padding_of_the_way_up_is_told_at_once():
    """For odd filters that keep the size, k - 1 - p = p: with those alone it would be right."""

    def attempt(maps, conv, *, size):
        return F.conv2d(maps, conv.weight.flip(-2, -1).transpose(0, 1), padding=conv.padding)

    found = check.transposed_filter(attempt)
    assert found.state == check.WRONG and found.message.startswith("this is the same padding as on the way up")
    assert found.picture is not None
    same = [conv.kernel_size[0] - 1 == 2 * conv.padding[0] for (_, conv), _ in filtering.transposed_filter.cases()]
    assert not same[0] and any(same)


def test_mistakes_of_size_are_told_apart_and_get_their_sentence():
    exercise = check.transposed_filter
    for sentence, mistake in exercise.sizes.items():
        assert exercise(mistake).message == sentence
    other = exercise(lambda maps, conv, size: torch.zeros(1, conv.in_channels, *size)[..., 1:])
    assert other.state == check.WRONG and other.message.startswith("your result has shape")


@pytest.mark.parametrize(
    "size, kernel, stride, padding", [(12, 4, 3, 0), (224, 7, 2, 1), (223, 7, 2, 1), (14, 3, 1, 1)]
)
def test_the_missing_rows_are_what_torch_lacks(size, kernel, stride, padding):
    up = F.conv2d(torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel, kernel), None, stride, padding)
    down = F.conv_transpose2d(up, torch.zeros(1, 1, kernel, kernel), None, stride, padding)
    found = check.missing_rows.target(size, kernel=kernel, stride=stride, padding=padding)
    assert found == size - down.shape[-1]


def test_rows_that_no_window_reaches_are_drawn_as_zeros():
    assert filtering._reached(12, kernel=4, stride=3, padding=0).tolist() == [[1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 0, 0]]
