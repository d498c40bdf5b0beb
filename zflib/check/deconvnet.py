"""Exercises of notebook 04: the deconvnet put together."""

from collections import namedtuple
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .. import deconv, models
from ..models.response_norm import ResponseNorm
from .cases import case, randomised, seeded
from .verdict import Exercise

# The notebook's own functions, so that a solution reads as the notebook does.
Step = namedtuple("Step", "module before after switches")


def climb(net, image, layer=None):
    """The activations of `layer` (default: of the last one) and the steps on the way up to it."""
    steps, maps = [], image
    for name, module in net.named_children():
        before, switches = maps, None
        if isinstance(module, nn.MaxPool2d):
            maps, switches = F.max_pool2d(before, 3, 2, ceil_mode=True, return_indices=True)
        else:
            maps = module(before)
        steps.append(Step(module, before, maps, switches))
        if layer and name == net.layer_path(layer):
            break
    return maps, steps


RULES = {
    nn.Conv2d: lambda signal, step: deconv.transposed_filter(signal, step.module, size=step.before.shape[-2:]),
    nn.ReLU: lambda signal, step: deconv.rectify(signal),
    nn.MaxPool2d: lambda signal, step: deconv.unpool(signal, step.switches, size=step.before.shape[-2:]),
    ResponseNorm: lambda signal, step: signal,
}


def descend(signal, steps, rules=RULES):
    """The signal at the last step, brought down through all of them."""
    for step in reversed(steps):
        signal = rules[type(step.module)](signal, step)
    return signal


def whole_channel(activations, channel):
    """Zeros but for one channel."""
    seed = torch.zeros_like(activations)
    seed[:, channel] = activations[:, channel]
    return seed


def seed_of(activations, channel):
    """Zeros but for the strongest activation of one channel."""
    seed = whole_channel(activations, channel)
    return seed * (seed == seed.amax())


@seeded(9)
def _blocks(generator):
    for channels, kernel, stride, side in ((4, 3, 1, 11), (3, 5, 2, 17)):
        conv = randomised(nn.Conv2d(channels, channels, kernel, stride, padding=1), generator)
        block = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), ResponseNorm())
        image = torch.randn(1, channels, side, side, generator=generator)
        yield case(torch.randn(block(image).shape, generator=generator), block, image)


def _block_answer(signal, block, image):
    """(N,Cin,H,W): the signal at a block's output, brought down to the image that went in."""
    conv, relu, _, _ = block
    maps = relu(conv(image))  # the way up, for its switches
    _, switches = F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    unpooled = deconv.unpool(signal, switches, size=maps.shape[-2:])  # response normalisation: passed unchanged
    return deconv.transposed_filter(deconv.rectify(unpooled), conv, size=image.shape[-2:])


def _block_with(rules: dict[type, Callable]) -> Callable:
    """The same with other rules for some of the block's modules."""
    return lambda signal, block, image: descend(signal, climb(block, image)[1], RULES | rules)


_UNCHANGED = {nn.ReLU: lambda signal, step: signal}
_GRADIENT = {nn.ReLU: lambda signal, step: signal * (step.after > 0)}


def _add_bias_first(signal, step):
    return RULES[nn.Conv2d](deconv.rectify(signal + step.module.bias[:, None, None]), step)


def _differentiate(signal, step):
    before = step.before.detach().requires_grad_()
    return torch.autograd.grad(step.module(before), before, signal)[0]


block_down = Exercise(
    "block_down", _block_answer, _blocks,
    mistakes={
        "the ReLU is missing: negative values of the reconstruction become 0":
            _block_with(_UNCHANGED),
        "this ReLU lets through what the forward ReLU let through: that is the gradient; clamp the reconstruction":
            _block_with(_GRADIENT),
        "two masks at the ReLU: that is guided backprop; clamp the reconstruction and nothing else":
            _block_with({nn.ReLU: lambda signal, step: signal.clamp(min=0) * (step.after > 0)}),
        "the forward bias was added on the way down; the way down has none":
            _block_with(_UNCHANGED | {nn.Conv2d: _add_bias_first}),
        "the response normalisation was differentiated; on the way down it is skipped":
            _block_with({ResponseNorm: _differentiate}),
        "the signal was normalised once more; on the way down nothing is normalised":
            _block_with({ResponseNorm: lambda signal, step: step.module(signal)}),
        "no switches: every place of a window got the value; only the place that won gets it":
            _block_with({nn.MaxPool2d: lambda signal, step: F.interpolate(signal, step.before.shape[-2:])}),
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
    net = randomised(models.ZFNet(5, geometry=models.Geometry(28, 24, convs, hidden=(12,))), generator, std=0.3)
    return net, torch.randn(2, 3, 24, 24, generator=generator)


def _project_answer(net, image, layer, channel):
    """(1,3,H,W): the strongest activation of one channel, projected down to pixels."""
    activations, steps = climb(net, image, layer)
    seed = seed_of(activations, channel)  # one activation, not the channel
    return descend(seed, steps)  # clamped at every ReLU, added where windows overlap


def _project_with(rules: dict[type, Callable], seed: Callable = seed_of) -> Callable:
    """The same with other rules for some modules, or another seed: the exercise's bugs."""

    def project(net, image, layer, channel):
        activations, steps = climb(net, image, layer)
        return descend(seed(activations, channel), steps, RULES | rules)

    return project


_OVERWRITTEN = {
    nn.MaxPool2d: lambda signal, step: F.max_unpool2d(signal, step.switches, 3, 2, output_size=step.before.shape[-2:])
}


def _projections():
    net, images = _small_net()
    peaks = deconv.Deconvnet(net).activations(images[:1], "conv3")[0].amax(dim=(1, 2))
    return [case(net, images[:1].clone(), "conv3", channel) for channel in peaks.topk(2).indices.tolist()]


def _projection(net, image, layer, channel):
    return deconv.Deconvnet(net).project(image, layer, channel)


project = Exercise(
    "project", _projection, _projections, source=_project_answer,
    success="all three bugs are gone; the same numbers as Deconvnet.project",
    mistakes={
        "the whole channel is the seed; keep its strongest activation alone": _project_with({}, whole_channel),
        "the ReLU asks the forward maps: that is the gradient; clamp the reconstruction": _project_with(_GRADIENT),
        "max_unpool2d overwrites where windows overlap; add": _project_with(_OVERWRITTEN),
        "2 mistakes; the pool is right, the first one is at the seed": _project_with(_GRADIENT, whole_channel),
        "2 mistakes; the ReLU is right, the first one is at the seed": _project_with(_OVERWRITTEN, whole_channel),
        "2 mistakes; the seed is right, the first one is at the ReLU": _project_with(_GRADIENT | _OVERWRITTEN),
        "3 mistakes; the first one is at the seed": _project_with(_GRADIENT | _OVERWRITTEN, whole_channel),
    },
)  # fmt: skip


def _pairs():
    net, images = _small_net()
    channel = int(deconv.Deconvnet(net).activations(images, "conv3").amax(dim=(2, 3)).amin(dim=0).argmax())
    orders = (images, images.flip(0))  # every case has images of its own: an attempt may write into them
    return [case(net, *order.clone().split(1), "conv3", channel) for order in orders]


def _swap_answer(net, image, other, layer, channel):
    """(1,3,H,W): the strongest activation of `image` in one channel, brought down with the switches of `other`."""
    activations, steps = climb(net, image, layer)
    _, others = climb(net, other, layer)
    mixed = [step._replace(switches=other.switches) for step, other in zip(steps, others)]
    return descend(seed_of(activations, channel), mixed)


swap_switches = Exercise(
    "swap_switches", _swap_answer, _pairs,
    mistakes={
        "nothing was swapped: the switches are still the first image's own":
            lambda net, image, other, layer, channel: _projection(net, image, layer, channel),
        "activation and switches both come from the second image; the activation is the first image's":
            lambda net, image, other, layer, channel: _projection(net, other, layer, channel),
        "the wrong way round: the activation is the first image's, the switches are the second's":
            lambda net, image, other, layer, channel: _swap_answer(net, other, image, layer, channel),
    },
)  # fmt: skip
