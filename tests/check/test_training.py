"""The exercises of notebook 05: their targets are torch's own, and answers that students give get their sentence."""

import io

import pytest
import torch
from PIL import Image
from torch import nn

from zflib import check
from zflib.check import training


def by_torch(gradient, start, *, lr, momentum, steps):
    """The path that `torch.optim.SGD` takes, which is handed the gradient."""
    position = nn.Parameter(start.clone())
    optimiser = torch.optim.SGD([position], lr=lr, momentum=momentum)
    path = [position.detach().clone()]
    for _ in range(steps):
        position.grad = gradient(position.detach())
        optimiser.step()
        path.append(position.detach().clone())
    return torch.stack(path)


def test_the_descent_is_that_of_torch():
    assert check.descend(by_torch).state == check.RIGHT


def test_a_list_of_one_tensor_changed_in_place_is_named():
    def attempt(gradient, start, *, lr, momentum, steps):
        velocity, path = torch.zeros_like(start), [start]
        for _ in range(steps):
            velocity = momentum * velocity + gradient(start)
            start -= lr * velocity
            path.append(start)
        return torch.stack(path)

    assert "append position.clone()" in check.descend(attempt).message


def test_momentum_gets_further_than_none_and_both_end_within_the_picture():
    (gradient, start), settings = training.descend.cases()[0]
    with_momentum = training.roll_down(gradient, start, **settings)
    without = training.roll_down(gradient, start, **settings | {"momentum": 0.0})
    assert with_momentum[-1].norm() < without[-1].norm() / 2
    assert (with_momentum.abs() <= torch.tensor(training.VIEW)).all()


@pytest.mark.parametrize("exercise", [check.vote, check.descend, check.dropout], ids=lambda e: e.name)
def test_the_picture_has_the_input_and_grows_by_the_answer(exercise):
    widths = [Image.open(io.BytesIO(exercise(answer).picture)).size[0] for answer in (..., exercise.target)]
    assert 300 < widths[0] <= widths[1] <= 1300


def test_dropout_agrees_with_torch_on_average():
    torch.manual_seed(0)
    (activations, _, p), _ = training.dropout.cases()[0]
    own = torch.stack(
        [training.scaled_survivors(activations, torch.rand_like(activations) >= p, p) for _ in range(4000)]
    )
    theirs = torch.stack([nn.Dropout(p)(activations) for _ in range(4000)])
    assert torch.allclose(own.mean(0), theirs.mean(0), rtol=0.05)
    assert set(own.flatten().unique().tolist()) == set(theirs.flatten().unique().tolist())


def test_doubling_is_named_although_it_is_right_for_one_half():
    found = check.dropout(lambda activations, stays, p: activations * stays * 2)
    assert found.state == check.WRONG and "1 - p" in found.message and "twice" in found.message


def test_a_renormalised_filter_that_is_not_returned_is_told_so():
    def in_place(weight, radius):
        rms = weight.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        weight.mul_((radius / rms).clamp(max=1))

    found = check.renormalise(in_place)
    assert (found.state, found.message) == (check.WRONG, "your function returned None; return the filters")
    assert check.renormalise(lambda weight, radius: None).state == check.NOT_ATTEMPTED

    def returned(weight, radius):
        in_place(weight, radius)
        return weight

    assert check.renormalise(returned).state == check.RIGHT
