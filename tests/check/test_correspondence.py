"""The exercise of notebook 11 that has many right answers: what it says to each kind of network."""

import pytest
import torch
from torch.nn import functional as F

from zflib import check
from zflib.check import correspondence


def blocks(images):
    """What the solution does, in loops."""
    rows = []
    for image in images.abs().mean(dim=1):
        rows.append(torch.stack([part.mean() for strip in image.split(8) for part in strip.split(8, dim=1)]))
    return torch.stack(rows)


def test_an_answer_of_ones_own_is_right():
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blocks(images), correspondence.places_only(images))
    found = check.without_parts(blocks)
    assert found.state == check.RIGHT and found.picture


@pytest.mark.parametrize("attempt", [None, ..., lambda images: ..., lambda images: None], ids=range(4))
def test_no_answer_yet(attempt):
    found = check.without_parts(attempt)
    assert found.state == check.NOT_ATTEMPTED and found.picture


def only_faces(images):
    """Passes on faces; noise, with a standard deviation near 1 in every small block, gives units of no use."""
    rough = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean(dim=(1, 2, 3)) > 0.9
    return torch.where(rough[:, None], images.mean(dim=(1, 2, 3))[:, None].expand(-1, 49), blocks(images))


WRONG = {
    "no score differs from 0": lambda images: torch.zeros(len(images), 4),
    "the other way round": lambda images: images.mean(dim=(2, 3)),
    "passes for Table 1 already": lambda images: images,
    "not by a third": lambda images: F.avg_pool2d(images.mean(dim=1), 28).flatten(1),
    "on faces but not on noise": only_faces,
    "other units the second time": lambda images: torch.rand(len(images), 4),
    "a row for each image": lambda images: images.mean(dim=(1, 2, 3)),
    "should return a tensor": lambda images: "seven",
    "NaN": lambda images: images * float("nan"),
    "KeyError": lambda images: {}["key"],
    "pass your function itself": 7,
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_mistake_is_named(sentence):
    found = check.without_parts(WRONG[sentence])
    assert found.state == check.WRONG and sentence in found.message


def test_an_attempt_may_write_into_its_images():
    def attempt(images):
        units = blocks(images)
        images.zero_()
        return units

    assert check.without_parts(attempt).state == check.RIGHT


def test_the_scores_are_the_papers(capsys):
    faces, squares = correspondence._faces_and_boxes()
    scores = correspondence._scores(lambda images: images, faces, squares)
    (nose,) = squares["nose"]
    after = faces.clone()
    for image, (top, left, bottom, right) in zip(after, nose.tolist()):
        image[:, top:bottom, left:right] = 0
    signs = (faces - after).sign().flatten(1)
    pairs = [float((signs[i] != signs[j]).float().mean()) for i in range(12) for j in range(i)]
    assert float(scores[2]) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    check.without_parts.solution()
    assert capsys.readouterr().out.startswith("def places_only")
