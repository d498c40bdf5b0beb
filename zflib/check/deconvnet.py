"""Exercises of notebook 04: one block down, a deconvnet with three bugs, and one image's switches for another's."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import data, deconv, models, show
from ..models.response_norm import ResponseNorm
from .cases import case, randomised, seeded
from .verdict import Exercise

SIDE = 180  # pixels of a picture in a check

# --- the notebook's own functions, so that a solution reads as the notebook does --------------------------------------


def go_up(net, image, layer=None):
    """The activations of `layer` (default: of the last module), and a record of every module on the way there."""
    maps, records = image, []
    for name, module in net.named_children():
        record = {"module": module, "input": maps, "switches": None}
        if isinstance(module, nn.MaxPool2d):
            maps, record["switches"] = F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
        else:
            maps = module(maps)
        record["output"] = maps
        records.append(record)
        if layer is not None and name == net.layer_path(layer):
            break
    return maps, records


def keep_one(activations, channel):
    """Zeros but for the strongest activation of one channel."""
    kept = torch.zeros_like(activations)
    strongest = activations[0, channel].argmax()  # its position, in reading order
    kept[0, channel].view(-1)[strongest] = activations[0, channel].max()
    return kept


def go_down(signal, records):
    """The signal at the last record's output, brought down to the first one's input."""
    for record in reversed(records):
        module, size = record["module"], record["input"].shape
        if isinstance(module, nn.MaxPool2d):
            signal = deconv.unpool(signal, record["switches"], size=size[-2:])
        elif isinstance(module, nn.ReLU):
            signal = deconv.rectify(signal)
        elif isinstance(module, nn.Conv2d):
            signal = deconv.transposed_filter(signal, module, size=size[-2:])
        elif isinstance(module, nn.Linear):
            signal = signal @ module.weight
        elif isinstance(module, nn.Flatten):
            signal = signal.view(size)
    return signal


# --- other rules for some modules: what mistakes are made of ----------------------------------------------------------


def _down_with(rules: dict[type[nn.Module], Callable]) -> Callable:
    """`go_down` with other rules, rule(signal, record), for some kinds of modules."""

    def down(signal, records):
        for record in reversed(records):
            rule = rules.get(type(record["module"]))
            signal = rule(signal, record) if rule else go_down(signal, [record])
        return signal

    return down


def _masked(signal, record):
    return signal * (record["output"] > 0)


def _add_bias_first(signal, record):
    return go_down(deconv.rectify(signal + record["module"].bias[:, None, None]), [record])


def _differentiate(signal, record):
    before = record["input"].detach().requires_grad_()
    return torch.autograd.grad(record["module"](before), before, signal)[0]


_NO_RELU = {nn.ReLU: lambda signal, record: signal}
_GRADIENT = {nn.ReLU: _masked}
_GUIDED = {nn.ReLU: lambda signal, record: _masked(signal.clamp(min=0), record)}
_RECTIFIED_FIRST = _NO_RELU | {nn.MaxPool2d: lambda signal, record: go_down(signal.clamp(min=0), [record])}
_BLOWN_UP = {nn.MaxPool2d: lambda signal, record: F.interpolate(signal, record["input"].shape[-2:])}
_OVERWRITTEN = {
    nn.MaxPool2d: lambda signal, record: F.max_unpool2d(
        signal, record["switches"], 3, 2, output_size=record["input"].shape[-2:]
    )
}


@cache
def _net() -> models.ZFNet:
    return models.load("zfnet56").requires_grad_(False)


def _photo(name: str) -> torch.Tensor:
    """(1,3,56,56), a fresh one at every call: an attempt may write into it."""
    return _net().preprocess(data.photo(name))


def _strongest(image: torch.Tensor, layer: str) -> int:
    return int(deconv.Deconvnet(_net()).activations(image, layer)[0].amax(dim=(1, 2)).argmax())


def _drawn(images: dict[str, torch.Tensor], answer, target) -> np.ndarray:
    """(H,W,3) uint8 of *photographs | yours | target*: projections calmed, both at the target's contrast."""
    full = show.limit(show.calm(target[0]), 99)
    tiles = {title: show.image_pixels(image[0], _net()) for title, image in images.items()}
    for title, values in {"yours": answer, "target": target}.items():
        if values is not None:
            tiles[title] = show.signed_pixels(show.calm(torch.as_tensor(values)[0]), full=full)
    return show.beside([show.fit(tile, SIDE, smooth=True) for tile in tiles.values()], list(tiles), size=16)


# --- one block down ---------------------------------------------------------------------------------------------------


@seeded(9)
def _blocks(generator):
    net, cat, coffee = _net(), _photo("chelsea"), _photo("coffee")
    activations, records = go_up(net, cat, "conv5")
    signal = go_down(keep_one(activations, _strongest(cat, "conv5")), records[4:])  # at the output of norm1
    yield case(signal, nn.Sequential(net.conv1, net.relu1, net.pool1, net.norm1), cat)
    conv = randomised(nn.Conv2d(3, 8, 5, 2, padding=1), generator, std=3.0)  # large maps, as the normalisation needs
    block = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), ResponseNorm())
    yield case(torch.randn(block(coffee).shape, generator=generator), block, coffee)


def _block_answer(signal, block, image):
    """(N,3,H,W): the signal at a block's output, brought down to the image that went in."""
    conv, relu, _, _ = block
    maps = relu(conv(image))  # up once more, for the switches
    _, switches = F.max_pool2d(maps, 3, 2, ceil_mode=True, return_indices=True)
    unpooled = deconv.unpool(signal, switches, size=maps.shape[-2:])  # the normalisation is skipped
    return deconv.transposed_filter(deconv.rectify(unpooled), conv, size=image.shape[-2:])


def _block_with(rules: dict[type[nn.Module], Callable]) -> Callable:
    return lambda signal, block, image: _down_with(rules)(signal, go_up(block, image)[1])


def _block_by_autograd(signal, block, image):
    leaf = image.clone().requires_grad_()
    return torch.autograd.grad(block(leaf), leaf, signal)[0]


def _draw_block(given, answer, target) -> np.ndarray:
    return _drawn({"the photograph": given[0][2]}, answer, target)


block_down = Exercise(
    "block_down", _block_answer, _blocks,
    mistakes={
        "that is autograd through the whole block: its ReLU asks the forward maps, and it differentiates the "
        "normalisation; take the steps down yourself":
            _block_by_autograd,
        "you rectified before you unpooled; where windows share a winner the values add up first, so unpool first":
            _block_with(_RECTIFIED_FIRST),
        "the ReLU is missing: negative values of the reconstruction become 0":
            _block_with(_NO_RELU),
        "this ReLU lets through what the forward ReLU let through: that is the gradient; clamp the reconstruction":
            _block_with(_GRADIENT),
        "two masks at the ReLU: that is guided backpropagation; clamp the reconstruction and nothing else":
            _block_with(_GUIDED),
        "the forward bias was added on the way down; the way down has none":
            _block_with(_NO_RELU | {nn.Conv2d: _add_bias_first}),
        "the response normalisation was differentiated; on the way down it is skipped":
            _block_with({ResponseNorm: _differentiate}),
        "the signal was normalised once more; on the way down nothing is normalised":
            _block_with({ResponseNorm: lambda signal, record: record["module"](signal)}),
        "no switches: every position of a window got the value; only the winner's position gets it":
            _block_with(_BLOWN_UP),
        "where two windows share a winner, one value overwrote the other; add them":
            _block_with(_OVERWRITTEN),
    },
    success="up for the switches, then unpool, rectify, filter: one block of the deconvnet",
    draw=_draw_block,
)  # fmt: skip


# --- three bugs -------------------------------------------------------------------------------------------------------


def _projections():
    for name, layer in (("chelsea", "conv3"), ("coffee", "conv4")):
        yield case(_net(), _photo(name), layer, _strongest(_photo(name), layer))


def _projection(net, image, layer, channel):
    return deconv.Deconvnet(net).project(image, layer, channel)


def _project_answer(net, image, layer, channel):
    """(1,3,H,W): the strongest activation of one channel, projected down to pixels."""
    activations, records = go_up(net, image, layer)
    signal = keep_one(activations, channel)  # one activation, not the channel
    for record in reversed(records):
        module, size = record["module"], record["input"].shape[-2:]
        if isinstance(module, nn.MaxPool2d):
            signal = deconv.unpool(signal, record["switches"], size=size)  # added where windows share a winner
        elif isinstance(module, nn.ReLU):
            signal = deconv.rectify(signal)  # whatever the forward ReLU did
        elif isinstance(module, nn.Conv2d):
            signal = deconv.transposed_filter(signal, module, size=size)
    return signal


def keep_channel(activations, channel):
    """Zeros but for one channel."""
    kept = torch.zeros_like(activations)
    kept[:, channel] = activations[:, channel]
    return kept


def _project_with(rules: dict[type[nn.Module], Callable], keep: Callable = keep_one) -> Callable:
    """The same with other rules for some modules, or another seed: the exercise's bugs."""

    def project(net, image, layer, channel):
        activations, records = go_up(net, image, layer)
        return _down_with(rules)(keep(activations, channel), records)

    return project


def _draw_projection(given, answer, target) -> np.ndarray:
    return _drawn({"the photograph": given[0][1]}, answer, target)


project = Exercise(
    "project", _projection, lambda: list(_projections()), source=_project_answer,
    success="all three bugs are gone; the same numbers as Deconvnet.project",
    mistakes={
        "the whole channel is the seed; keep its strongest activation alone": _project_with({}, keep_channel),
        "the ReLU asks the forward maps: that is the gradient; clamp the reconstruction": _project_with(_GRADIENT),
        "two masks at the ReLU: that is guided backpropagation; clamp the reconstruction and nothing else":
            _project_with(_GUIDED),
        "max_unpool2d overwrites where windows overlap; add": _project_with(_OVERWRITTEN),
        "2 mistakes; the pool is right, the first one is at the seed": _project_with(_GRADIENT, keep_channel),
        "2 mistakes; the pool is right, the first one is at the seed, and the ReLU has two masks now":
            _project_with(_GUIDED, keep_channel),
        "2 mistakes; the ReLU is right, the first one is at the seed": _project_with(_OVERWRITTEN, keep_channel),
        "2 mistakes; the seed is right, the first one is at the ReLU": _project_with(_GRADIENT | _OVERWRITTEN),
        "2 mistakes; the seed is right, the first one is at the ReLU, which has two masks now":
            _project_with(_GUIDED | _OVERWRITTEN),
        "3 mistakes; the first one is at the seed": _project_with(_GRADIENT | _OVERWRITTEN, keep_channel),
        "3 mistakes; the first one is at the seed, and the ReLU has two masks now":
            _project_with(_GUIDED | _OVERWRITTEN, keep_channel),
    },
    draw=_draw_projection,
)  # fmt: skip


# --- other switches ---------------------------------------------------------------------------------------------------


def _pairs():
    for image, other in (("coffee", "chelsea"), ("chelsea", "flower")):
        image, other = _photo(image), _photo(other)
        yield case(_net(), image, other, "conv5", _strongest(image, "conv5"))


def _swap_answer(net, image, other, layer, channel):
    """(1,3,H,W): the strongest activation of `image` in one channel, brought down with the switches of `other`."""
    activations, records = go_up(net, image, layer)
    _, other_records = go_up(net, other, layer)
    for record, other_record in zip(records, other_records):
        record["switches"] = other_record["switches"]
    return go_down(keep_one(activations, channel), records)


def _swap_at(which: int) -> Callable:
    """The switches of one pool alone are exchanged: of the first (0) or the last (-1)."""

    def swap(net, image, other, layer, channel):
        activations, records = go_up(net, image, layer)
        pools = [number for number, record in enumerate(records) if record["switches"] is not None]
        records[pools[which]]["switches"] = go_up(net, other, layer)[1][pools[which]]["switches"]
        return go_down(keep_one(activations, channel), records)

    return swap


def _swap_whole_channel(net, image, other, layer, channel):
    activations, _ = go_up(net, image, layer)
    return go_down(keep_channel(activations, channel), go_up(net, other, layer)[1])


def _draw_swap(given, answer, target) -> np.ndarray:
    (_, image, other, _, _), _ = given
    return _drawn({"image": image, "other": other}, answer, target)


swap_switches = Exercise(
    "swap_switches", _swap_answer, lambda: list(_pairs()),
    mistakes={
        "nothing was exchanged: the switches are still the first image's own":
            lambda net, image, other, layer, channel: _projection(net, image, layer, channel),
        "activation and switches both come from the second image; the activation is the first image's":
            lambda net, image, other, layer, channel: _projection(net, other, layer, channel),
        "the wrong way round: the activation is the first image's, the switches are the second's":
            lambda net, image, other, layer, channel: _swap_answer(net, other, image, layer, channel),
        "only the first pool has the other switches; exchange them at every pool": _swap_at(0),
        "only the last pool has the other switches; exchange them at every pool": _swap_at(-1),
        "the whole channel came down; keep its strongest activation alone": _swap_whole_channel,
    },
    success="one image's activation, the other image's switches at every pool",
    draw=_draw_swap,
)  # fmt: skip
