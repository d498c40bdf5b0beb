"""The exercises of notebook 04: autograd as a witness, every number of bugs, and pictures of photographs."""

import io

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from zflib import check, deconv
from zflib.check import deconvnet

EXERCISES = [check.block_down, check.project, check.swap_switches]


class Clamped(torch.autograd.Function):
    """A ReLU whose backward pass clamps the signal."""

    @staticmethod
    def forward(ctx, maps):
        return maps.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        return signal.clamp(min=0)


def by_autograd(signal, block, image):
    """Autograd with the deconvnet's ReLU and without the normalisation."""
    conv, _, pool, _ = block
    leaf = image.clone().requires_grad_()
    return torch.autograd.grad(pool(Clamped.apply(conv(leaf))), leaf, signal)[0]


def test_autograd_with_two_rules_overridden_is_right():
    assert check.block_down(by_autograd).state == check.RIGHT


def rectified_before_unpooled(signal, block, image):
    conv, relu, _, _ = block
    maps = relu(conv(image))
    _, switches = F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    unpooled = deconv.unpool(deconv.rectify(signal), switches, size=maps.shape[-2:])
    return deconv.transposed_filter(unpooled, conv, size=image.shape[-2:])


def plain_autograd(signal, block, image):
    leaf = image.clone().requires_grad_()
    return torch.autograd.grad(block(leaf), leaf, signal)[0]


@pytest.mark.parametrize(
    ("attempt", "word"), [(rectified_before_unpooled, "before you unpooled"), (plain_autograd, "through the whole")]
)
def test_a_block_written_wrongly_is_named(attempt, word):
    found = check.block_down(attempt)
    assert found.state == check.WRONG and word in found.message


def attempt_of(*, whole_channel: bool, relu: str, overwrite: bool):
    """The exercise's deconvnet as a learner would write it, with any of its bugs."""

    def project(net, image, layer, channel):
        activations, records = deconvnet.go_up(net, image, layer)
        signal = torch.zeros_like(activations)
        signal[:, channel] = activations[:, channel]
        if not whole_channel:
            signal = signal * (signal == signal.max())
        for record in reversed(records):
            module, size = record["module"], record["input"].shape[-2:]
            if isinstance(module, nn.MaxPool2d) and overwrite:
                signal = F.max_unpool2d(signal, record["switches"], 3, 2, output_size=size)
            elif isinstance(module, nn.MaxPool2d):
                signal = deconv.unpool(signal, record["switches"], size=size)
            elif isinstance(module, nn.ReLU):
                signal = signal.clamp(min=0) if relu != "gradient" else signal
                signal = signal * (record["output"] > 0) if relu != "clamp" else signal
            elif isinstance(module, nn.Conv2d):
                signal = deconv.transposed_filter(signal, module, size=size)
        return signal

    return project


@pytest.mark.parametrize("whole_channel", [True, False])
@pytest.mark.parametrize("relu", ["clamp", "gradient", "guided"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_bugs_are_counted_and_the_first_one_is_named(whole_channel, relu, overwrite):
    bugs = whole_channel + (relu != "clamp") + overwrite
    found = check.project(attempt_of(whole_channel=whole_channel, relu=relu, overwrite=overwrite))
    assert found.state == (check.WRONG if bugs else check.RIGHT)
    assert found.message in check.project.mistakes or not bugs
    assert found.message.startswith(f"{bugs} mistakes") == (bugs > 1)
    if bugs > 1:
        first = "at the seed" if whole_channel else "at the ReLU"
        assert f"the first one is {first}" in found.message
        assert ("two masks now" in found.message) == (relu == "guided")


def test_of_several_bugs_only_the_place_is_told():
    counted = [sentence for sentence in check.project.mistakes if sentence[0].isdigit()]
    for hint in ("strongest", "clamp", "max_unpool2d", "gradient"):
        assert not any(hint in sentence for sentence in counted)
        assert any(hint in sentence for sentence in check.project.mistakes)


def test_the_notebooks_way_down_is_the_packages():
    net, image = deconvnet._net(), deconvnet._photo("coffee")
    activations, records = deconvnet.go_up(net, image, "conv5")
    ours = deconvnet.go_down(deconvnet.keep_one(activations, 7), records)
    theirs = deconv.Deconvnet(net).project(image, "conv5", 7)
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_the_picture_shows_photographs_then_yours_then_the_target(exercise):
    inputs = 2 if exercise is check.swap_switches else 1
    for attempt, pictures in ((..., inputs + 1), (exercise.target, inputs + 2)):
        width, height = Image.open(io.BytesIO(exercise(attempt).picture)).size
        assert width == pictures * deconvnet.SIDE + (pictures - 1) * 12 and height > deconvnet.SIDE
