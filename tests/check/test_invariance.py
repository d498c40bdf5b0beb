"""The exercises of notebook 10 against the package's own functions and loops."""

import io

import pytest
import torch
from PIL import Image
from torch import nn

import zflib
from zflib import check
from zflib.experiments.transforms import Move, moved
from zflib.studies import moves


class Table(nn.Module):
    """Looks its features up: picture n says n in its first row, and moved down by one pixel, in its second."""

    def __init__(self, before: torch.Tensor, after: torch.Tensor):
        super().__init__()
        self.before, self.after = before, after
        self.features, self.scores = nn.Identity(), nn.Linear(before.shape[1], 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, second = images[:, 0, 0, 0].long(), images[:, 0, 1, 0].long()
        table, number = torch.stack([self.after, self.before]), torch.maximum(first, second) - 1
        return self.scores(self.features(table[(first > 0).long(), number % len(self.before)]))


def by_the_package(before, after):
    images = torch.zeros(len(before), 3, 2, 2)
    images[:, :, 0] = torch.arange(1.0, len(before) + 1)[:, None, None]
    net = Table(before, after).eval()
    found = zflib.invariance(net, images, 0, transform="translate", amounts=(1,), layers=["features"])
    return found.compared["features"][0]


def test_the_compared_distance_is_the_packages():
    assert check.compared_distance(by_the_package).state == check.RIGHT


def test_the_shortest_shift_is_found_by_the_studies_too():
    def attempt(net, image, label, reach):
        return moves.shortest_fooling_shift(net, image, label, reach)

    assert check.fooling_shift(attempt).state == check.RIGHT


def test_a_longer_shift_that_fools_is_scored():
    def second_shortest(net, image, label, reach):
        fooled = [
            shift
            for shift in moves.shifts_within(reach).tolist()
            if int(net(moved(image[None], Move(*shift))).argmax()) != label
        ]
        return fooled[1]

    found = check.fooling_shift(second_shortest)
    assert found.state == check.WRONG and "all your shifts fool the network" in found.message
    assert "the shortest ones 2.2, 2.2, 1.4" in found.message


@pytest.mark.parametrize("answer, words", [
    ((0, 0), "does not fool the network"), ((9, 0), "within reach = 3"), ((0.5, 1), "whole pixels"),
])  # fmt: skip
def test_a_shift_that_does_not_count_is_told_why(answer, words):
    found = check.fooling_shift(lambda *given: answer)
    assert found.state == check.WRONG and words in found.message


@pytest.mark.parametrize("exercise", [check.compared_distance, check.fooling_shift, check.invariance_score],
                         ids=lambda exercise: exercise.name)  # fmt: skip
def test_the_picture_has_the_input_and_grows_by_the_answer(exercise):
    widths = [Image.open(io.BytesIO(exercise(answer).picture)).size[0] for answer in (..., exercise.target)]
    assert 250 < widths[0] <= widths[1] <= 1300
