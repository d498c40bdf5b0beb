"""The exercises of notebook 06 against brute force and the package's own functions."""

import io

import pytest
import torch
from PIL import Image

from zflib import check, experiments
from zflib.check import layer_by_layer
from zflib.experiments.top_k import Peaks


def size_of(picture):
    return Image.open(io.BytesIO(picture)).size


def by_sorting(chunks, k):
    """Brute force: all images in memory, each channel's sorted by their largest value."""
    images = [image for maps in chunks for image in maps]
    rows = []
    for channel in range(len(images[0])):
        order = sorted(range(len(images)), key=lambda number, c=channel: -float(images[number][c].max()))
        rows.append(order[:k])
    return torch.tensor(rows)


def test_the_strongest_images_by_sorting_are_right():
    assert check.top_images(by_sorting).state == check.RIGHT


def test_chunks_may_come_from_a_generator():
    for (chunks, k), _ in check.top_images.cases():
        assert torch.equal(check.top_images.target(iter(chunks), k), by_sorting(chunks, k))


def test_different_places_are_those_of_the_package():
    for (boxes,), _ in check.different_places.cases():
        strengths, numbers = torch.arange(len(boxes), 0, -1.0)[None], torch.arange(len(boxes))[None]
        peaks = Peaks(strengths, numbers, torch.zeros(1, len(boxes), 2, dtype=torch.int64))
        found = experiments.suppress_overlaps(peaks, torch.zeros_like(numbers), boxes[None], k=len(boxes)).images[0]
        kept = check.different_places.target(boxes).nonzero().flatten()
        assert found[found >= 0].tolist() == kept.tolist()


def test_eight_of_the_nine_are_one_eye():
    (boxes,), _ = check.different_places.cases()[0]
    assert check.different_places.target(boxes).nonzero().flatten().tolist() == [0, 7]


def test_the_overlap_of_a_box_with_one_beside_it_is_a_closed_form():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 3, 4, 7], [0, 2, 4, 6], [9, 9, 12, 12]])
    shares = [layer_by_layer._overlap_of(boxes[0], other) for other in boxes[1:]]
    assert shares == [pytest.approx(4 / 28), pytest.approx(8 / 24), 0]
    assert layer_by_layer.keep_places(boxes).tolist() == [True, True, False, True]


@pytest.mark.parametrize("exercise", [check.top_images, check.different_places, check.field_box], ids=lambda e: e.name)
def test_the_picture_grows_by_the_answer(exercise):
    before, after = exercise(...).picture, exercise(exercise.target).picture
    assert before != after
    assert size_of(before)[0] <= size_of(after)[0] <= 1300
