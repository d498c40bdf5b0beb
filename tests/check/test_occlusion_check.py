"""The exercises of notebook 09 against plain loops and the package's own functions."""

import io

import pytest
import torch
from PIL import Image

import zflib
from zflib import check
from zflib.studies import localisation


def size_of(picture):
    return Image.open(io.BytesIO(picture)).size


def test_a_square_over_the_edge_is_told_by_its_shape():
    def over(net, image, size, stride, label):
        rows = range(0, image.shape[1], stride)
        return torch.zeros(len(rows), len(rows))

    found = check.slide(over)
    assert found.state == check.WRONG and "(4, 4), the target (3, 3)" in found.message


def test_the_images_are_whole_numbers_of_one_colour():
    for (_, image, *_), _ in check.slide.cases():
        assert torch.equal(image, image.round()) and torch.equal(image[0], image[2])


def test_a_cheater_by_occlude_alone_is_right():
    def by_hand(nets, images, labels, masks):
        shares = []
        for net in nets:
            drops = localisation.study(net, images, labels.tolist(), size=4, stride=2, layer="conv5").pixels
            shares.append(localisation.energy_in_mask(drops, masks).mean())
        return 0 if shares[0] < shares[1] else 1

    assert check.cheater(by_hand).state == check.RIGHT


def test_both_suspects_are_right_about_every_image():
    for (nets, images, labels, _), _ in check.cheater.cases():
        assert all(torch.equal(net(images).argmax(dim=1), labels) for net in nets)


def test_pixel_means_are_captums_where_the_squares_fit():
    (drop, corners, size, shape), _ = check.pixel_means.cases()[0]
    cells = [[[] for _ in range(shape[1])] for _ in range(shape[0])]
    for value, (top, left) in zip(drop.flatten().tolist(), corners.flatten(0, 1).tolist()):
        for row in range(top, top + size):
            for column in range(left, left + size):
                cells[row][column].append(value)
    means = torch.tensor([[sum(cell) / len(cell) for cell in row] for row in cells])
    assert check.pixel_means(check.pixel_means.target).state == check.RIGHT
    torch.testing.assert_close(check.pixel_means.target(drop, corners, size, shape), means)


@pytest.mark.parametrize("exercise", [check.slide, check.cheater, check.pixel_means], ids=lambda e: e.name)
def test_the_picture_grows_by_the_answer(exercise):
    before, after = exercise(...).picture, exercise(exercise.target).picture
    assert before != after
    assert size_of(before)[0] <= size_of(after)[0] <= 1300


def test_slide_is_what_occlude_gives():
    (net, image, size, stride, label), _ = check.slide.cases()[0]
    maps = zflib.occlude(net, image, size=size, stride=stride, label=label, layer="0")
    torch.testing.assert_close(check.slide.target(net, image, size, stride, label), maps.probability)
