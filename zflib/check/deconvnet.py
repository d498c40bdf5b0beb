"""Exercises of notebook 04: the deconvnet put together."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from .. import deconv, models
from ..models.response_norm import ResponseNorm
from .verdict import Exercise


def _blocks() -> list[tuple[tuple, dict]]:
    generator = torch.Generator().manual_seed(9)
    cases = []
    for channels, kernel, stride, side in ((4, 3, 1, 11), (3, 5, 2, 17)):
        conv = torch.nn.Conv2d(channels, channels, kernel, stride, padding=1)
        pool, norm = torch.nn.MaxPool2d(3, 2, ceil_mode=True), ResponseNorm()
        block = torch.nn.Sequential(conv, torch.nn.ReLU(), pool, norm).requires_grad_(False)
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        image = torch.randn(1, channels, side, side, generator=generator)
        cases.append(((torch.randn(block(image).shape, generator=generator), block, image), {}))
    return cases


def _block_down(signal, block, image, *, at_relu=lambda signal, conv, maps: deconv.rectify(signal)):
    conv, relu, _, _ = block
    maps = relu(conv(image))
    _, switches = torch.nn.functional.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    signal = at_relu(deconv.unpool(signal, switches, size=maps.shape[-2:]), conv, maps)
    return deconv.transposed_filter(signal, conv, size=image.shape[-2:])


def _block_answer(signal, block, image):
    """(N,Cin,H,W): the signal at a block's output, brought down to the image that went in."""
    conv, relu, _, _ = block
    maps = relu(conv(image))  # the way up, for its switches
    _, switches = torch.nn.functional.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    unpooled = deconv.unpool(signal, switches, size=maps.shape[-2:])  # response normalisation: passed unchanged
    return deconv.transposed_filter(deconv.rectify(unpooled), conv, size=image.shape[-2:])


def _block_through_norm(signal, block, image):
    pooled = block[:3](image).requires_grad_()
    (through,) = torch.autograd.grad(block[3](pooled), pooled, signal)
    return _block_answer(through, block, image)


def _block_without_switches(signal, block, image):
    maps = torch.nn.functional.interpolate(signal, block[0](image).shape[-2:])
    return deconv.transposed_filter(deconv.rectify(maps), block[0], size=image.shape[-2:])


def _at_relu(rule: Callable) -> Callable:
    return lambda signal, block, image: _block_down(signal, block, image, at_relu=rule)


block_down = Exercise(
    "block_down", _block_answer, _blocks,
    mistakes={
        "the ReLU is missing: negative values of the reconstruction become 0": (
            _at_relu(lambda signal, conv, maps: signal)
        ),
        "this ReLU lets through what the forward ReLU let through: that is the gradient; clamp the reconstruction": (
            _at_relu(lambda signal, conv, maps: signal * (maps > 0))
        ),
        "two masks at the ReLU: that is guided backprop; clamp the reconstruction and nothing else": (
            _at_relu(lambda signal, conv, maps: signal.clamp(min=0) * (maps > 0))
        ),
        "the forward bias was added on the way down; the way down has none": (
            _at_relu(lambda signal, conv, maps: (signal + conv.bias[:, None, None]).clamp(min=0))
        ),
        "the response normalisation was differentiated; on the way down it is skipped": _block_through_norm,
        "the signal was normalised once more; on the way down nothing is normalised": (
            lambda signal, block, image: _block_answer(block[3](signal), block, image)
        ),
        "no switches: every place of a window got the value; only the place that won gets it": _block_without_switches,
    },
)  # fmt: skip


def _small_net() -> tuple[models.ZFNet, torch.Tensor]:
    """A random three-layer network of the paper's kind and two random images: (2,3,24,24)."""
    convs = (
        models.Conv(6, 5, stride=2, padding=2, pool=True, norm=True),
        models.Conv(8, 3, padding=1, pool=True),
        models.Conv(8, 3, padding=1),
    )
    generator = torch.Generator().manual_seed(10)
    net = models.ZFNet(5, geometry=models.Geometry(28, 24, convs, hidden=(12,))).requires_grad_(False).eval()
    for parameter in net.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return net, torch.randn(2, 3, 24, 24, generator=generator)


def _projections() -> list[tuple[tuple, dict]]:
    net, images = _small_net()
    peaks = deconv.Deconvnet(net).activations(images[:1], "conv3")[0].amax(dim=(1, 2))
    return [((net, images[:1].clone(), "conv3", channel), {}) for channel in peaks.topk(2).indices.tolist()]


def _projection(net, image, layer, channel):
    return deconv.Deconvnet(net).project(image, layer, channel)


def _climb(net, image, layer):
    """The activations, and (module, maps before, maps after, switches) of every step."""
    steps, target = [], net.get_submodule(net.layer_path(layer))
    for module in net.children():
        before, switches = image, None
        if isinstance(module, torch.nn.MaxPool2d):
            image, switches = torch.nn.functional.max_pool2d(before, 3, 2, ceil_mode=True, return_indices=True)
        else:
            image = module(before)
        steps.append((module, before, image, switches))
        if module is target:
            return image, steps
    raise ValueError(f"layer {layer!r} is not in this network")


_BUGS = {
    "seed": "the whole channel is the seed; keep its strongest activation alone",
    "relu": "the ReLU asks the forward maps: that is the gradient; clamp the reconstruction",
    "pool": "max_unpool2d overwrites where windows overlap; add",
}


def _descend(signal, steps, bugs=()):
    """Down through the steps of `_climb`; normalisation and dropout are passed unchanged."""
    for module, before, after, switches in reversed(steps):
        if isinstance(module, torch.nn.Conv2d):
            signal = deconv.transposed_filter(signal, module, size=before.shape[-2:])
        elif isinstance(module, torch.nn.ReLU):
            signal = signal * (after > 0) if "relu" in bugs else deconv.rectify(signal)
        elif isinstance(module, torch.nn.MaxPool2d) and "pool" in bugs:
            signal = torch.nn.functional.max_unpool2d(signal, switches, 3, 2, output_size=before.shape[-2:])
        elif isinstance(module, torch.nn.MaxPool2d):
            signal = deconv.unpool(signal, switches, size=before.shape[-2:])
    return signal


def _project_answer(net, image, layer, channel):
    """(1,3,H,W): the strongest activation of one channel, projected down to pixels."""
    activations, steps = _climb(net, image, layer)
    seed = torch.zeros_like(activations)
    seed[:, channel] = activations[:, channel]
    seed[seed < seed.amax()] = 0  # one activation, not the channel
    return _descend(seed, steps)  # clamped at every ReLU, added where windows overlap


def _buggy(*bugs: str) -> Callable:
    """`_project_answer` with some of its exercise's bugs still in it."""

    def project(net, image, layer, channel):
        activations, steps = _climb(net, image, layer)
        seed = torch.zeros_like(activations)
        seed[:, channel] = activations[:, channel]
        return _descend(seed if "seed" in bugs else seed * (seed == seed.amax()), steps, bugs)

    return project


def _left(bugs: tuple[str, ...]) -> str:
    """What is said about the bugs that are left: the last one by name, of more the number and where to begin."""
    places = {"seed": "the seed", "relu": "the ReLU", "pool": "the pool"}
    right = [place for bug, place in places.items() if bug not in bugs]
    if len(bugs) == 1:
        return _BUGS[bugs[0]]
    done = f"{right[0]} is right, " if right else ""
    return f"{len(bugs)} mistakes; {done}the first one is at {places[bugs[0]]}"


project = Exercise(
    "project", _projection, _projections, source=_project_answer,
    success="all three bugs are gone; the same numbers as Deconvnet.project",
    mistakes={
        _left(bugs): _buggy(*bugs)
        for count in (1, 2, 3) for bugs in itertools.combinations(_BUGS, count)
    },
)  # fmt: skip


def _pairs() -> list[tuple[tuple, dict]]:
    net, images = _small_net()
    channel = int(deconv.Deconvnet(net).activations(images, "conv3").amax(dim=(2, 3)).amin(dim=0).argmax())
    orders = (images, images.flip(0))  # every case has images of its own: an attempt may write into them
    return [((net, *order.clone().split(1), "conv3", channel), {}) for order in orders]


def _swap_answer(net, image, other, layer, channel):
    """(1,3,H,W): the strongest activation of `image` in one channel, brought down with the switches of `other`."""
    activations, steps = _climb(net, image, layer)
    _, others = _climb(net, other, layer)
    seed = torch.zeros_like(activations)
    seed[:, channel] = activations[:, channel]
    seed[seed < seed.amax()] = 0
    return _descend(seed, [(*step[:3], foreign[3]) for step, foreign in zip(steps, others)])


swap_switches = Exercise(
    "swap_switches", _swap_answer, _pairs,
    mistakes={
        "nothing was swapped: the switches are still the first image's own": (
            lambda net, image, other, layer, channel: _projection(net, image, layer, channel)
        ),
        "activation and switches both come from the second image; the activation is the first image's": (
            lambda net, image, other, layer, channel: _projection(net, other, layer, channel)
        ),
        "the wrong way round: the activation is the first image's, the switches are the second's": (
            lambda net, image, other, layer, channel: _swap_answer(net, other, image, layer, channel)
        ),
    },
)  # fmt: skip
