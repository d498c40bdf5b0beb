"""Bad input is answered with one sentence: the argument, what it got, the fix."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zflib

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 5))
GOOD = torch.randn(2, 3, 8, 8)
NAN = torch.full((1, 3, 8, 8), float("nan"))

IMAGES = [
    (np.zeros((1, 3, 8, 8)), TypeError, r"images must be a tensor \(N,3,H,W\), got ndarray; use net.preprocess"),
    (Image.new("RGB", (8, 8)), TypeError, r"images must be a tensor \(N,3,H,W\), got Image; use net.preprocess"),
    ([GOOD], TypeError, "images must be a tensor .*, got list"),
    (GOOD[0], ValueError, r"images must be \(N,3,H,W\), got one image of shape \(3, 8, 8\); pass images\[None\]"),
    (GOOD[0, 0], ValueError, r"images must be \(N,3,H,W\), got shape \(8, 8\)"),
    (GOOD[:0], ValueError, r"images must be \(N,3,H,W\), got shape \(0, 3, 8, 8\)"),
    (GOOD.byte(), TypeError, "images must hold floats in the network's units, got torch.uint8; use net.preprocess"),
    (NAN, ValueError, "images hold NaN or infinite pixels"),
    (GOOD / 0, ValueError, "images hold NaN or infinite pixels"),
    (GOOD.to_sparse(), TypeError, r"images must be a plain tensor \(N,3,H,W\), got a sparse_coo one; use .*to_dense"),
    (GOOD.to_mkldnn(), TypeError, "got a _mkldnn one; use images.to_dense"),
    (torch.nested.nested_tensor([GOOD, GOOD]), TypeError, "got a nested one; use images.to_padded_tensor"),
    (torch.nested.nested_tensor([GOOD, GOOD], layout=torch.jagged), TypeError, "got a nested one"),
    (torch.quantize_per_tensor(GOOD, 0.1, 0, torch.qint8), TypeError, "got torch.qint8; use images.dequantize"),
    (GOOD + 1j, TypeError, "images must hold real numbers, got torch.complex64"),
    (GOOD.to("meta"), TypeError, "images hold no numbers: they are on the device 'meta'"),
    (GOOD.bool(), TypeError, "images must hold floats in the network's units, got torch.bool"),
    (GOOD[:, :, :3, :2], ValueError, r"images of shape \(2, 3, 3, 2\) do not fit this network .*Kernel size.*; crop"),
    (GOOD[:, :1], ValueError, r"images of shape \(2, 1, 8, 8\) do not fit this network .*3 channels, but got 1"),
    (GOOD[:, :, :7, :5], ValueError, r"images of shape \(2, 3, 7, 5\) do not fit this network .*mat1 and mat2.*; crop"),
]  # fmt: skip


@pytest.mark.parametrize("images, kind, sentence", IMAGES, ids=range(len(IMAGES)))
def test_images(images, kind, sentence):
    for call in (lambda d: d.project(images, "4", 0), lambda d: d.activations(images, "4")):
        with pytest.raises(kind, match=sentence) as caught:
            call(zflib.Deconvnet(NET))
        assert "\n" not in str(caught.value)


def test_one_image_for_project_all():
    d = zflib.Deconvnet(NET)
    with pytest.raises(ValueError, match=r"image must be one image, \(3,H,W\), got 2; use project for several"):
        d.project_all(GOOD, "1")
    with pytest.raises(TypeError, match="got ndarray"):
        d.project_all(np.zeros((3, 8, 8)), "1")
    with pytest.raises(ValueError, match="NaN"):
        d.project_all(NAN[0], "1")


CHANNELS = [
    (400, ValueError, r"channels: layer '1' has 4 channels \(0 to 3\), got 400"),
    (-1, ValueError, r"channels: layer '1' has 4 channels \(0 to 3\), got -1"),
    ([1, 4], ValueError, r"channels: layer '1' has 4 channels \(0 to 3\), got 4"),
    ([0, 1, 2], ValueError, r"channels must be one integer or one for each of the 2 images, got \[0, 1, 2\]"),
    ([], (TypeError, ValueError), "channels must be one integer or one"),
    ([[0, 1]], ValueError, "channels must be one integer or one for each of the 2 images"),
    (1.0, TypeError, "channels must be one integer or one per image, as integers, got 1.0"),
    (torch.tensor([0.0, 1.0]), TypeError, "as integers"),
    ("3", TypeError, "channels must be one integer or one per image, got '3'"),
    (None, TypeError, "channels must be one integer or one per image, got None"),
]  # fmt: skip


@pytest.mark.parametrize("channels, kind, sentence", CHANNELS, ids=range(len(CHANNELS)))
def test_channels(channels, kind, sentence):
    with pytest.raises(kind, match=sentence):
        zflib.Deconvnet(NET).project(GOOD, "1", channels)


FORMS = [2, [2, 2], (2, 2), np.array([2, 2]), np.int64(2), torch.tensor(2), torch.tensor([2, 2], dtype=torch.uint8)]


@pytest.mark.parametrize("channels", FORMS, ids=range(len(FORMS)))
def test_channels_in_every_form(channels):
    d = zflib.Deconvnet(NET)
    assert torch.equal(d.project(GOOD, "1", channels), d.project(GOOD, "1", 2))


POSITIONS = [
    ((6, 0), ValueError, r"positions: the maps of layer '1' are 6x6, rows 0 to 5 and columns 0 to 5, got \[6, 0\]"),
    ((0, -1), ValueError, "positions: the maps of layer '1' are 6x6"),
    ([(0, 0), (9, 9)], ValueError, "positions: the maps of layer '1' are 6x6"),
    ([(0, 0)] * 3, ValueError, r"positions must be \(row, column\) or \(2, 2\), got shape \(3, 2\)"),
    ((1, 2, 3), ValueError, r"positions must be \(row, column\) or \(2, 2\), got shape \(3,\)"),
    (5, ValueError, r"positions must be \(row, column\) or \(2, 2\), got shape \(\)"),
    ((0.5, 1), TypeError, "positions must be .* as integers"),
    ("ab", TypeError, "positions must be .*got 'ab'"),
]  # fmt: skip


@pytest.mark.parametrize("positions, kind, sentence", POSITIONS, ids=range(len(POSITIONS)))
def test_positions(positions, kind, sentence):
    with pytest.raises(kind, match=sentence):
        zflib.Deconvnet(NET).project(GOOD, "1", 0, positions=positions)


def test_units_have_no_position():
    with pytest.raises(
        ValueError, match="positions: layer '4' is fully connected, its units have none; leave positions out"
    ):
        zflib.Deconvnet(NET).project(GOOD, "4", 0, positions=(0, 0))


@pytest.mark.parametrize("layer", ["conv9", "", None, 3, "0.weight"])
def test_layers(layer):
    with pytest.raises(ValueError, match=rf"layer {layer!r} is not in this network; it has 0, 1, 2, 3, 4"):
        zflib.Deconvnet(NET).project(GOOD, layer, 0)


def test_layers_of_our_own_network_by_name():
    with pytest.raises(
        ValueError, match=r"layer 'conv6' is not in this network; it has conv1, pool1, norm1, conv2, .*fc8$"
    ):
        zflib.Deconvnet(zflib.zfnet56(2)).activations(torch.randn(1, 3, 56, 56), "conv6")


@pytest.mark.parametrize("shape, sentence", [
    ((1, 4, 56, 56), r"images must have 3 channels, got shape \(1, 4, 56, 56\); use net.preprocess"),
    ((1, 3, 3, 2), r"images of shape \(1, 3, 3, 2\) do not fit this network, it takes at least 56x56 pixels; use"),
    ((1, 3, 60, 55), "it takes at least 56x56 pixels"),
])  # fmt: skip
def test_images_that_do_not_fit_our_own_network(shape, sentence):
    net = zflib.zfnet56(2)
    with pytest.raises(ValueError, match=sentence):
        zflib.Deconvnet(net).activations(torch.randn(shape), "conv1")
    with pytest.raises(ValueError, match=sentence):
        zflib.occlude(net, torch.randn(shape)[0], size=2, stride=1)


def test_many_layers_are_not_all_listed():
    net = nn.Sequential(*[nn.Identity() for _ in range(99)])
    with pytest.raises(ValueError, match="38, 39, …"):
        zflib.Deconvnet(net).project(GOOD, "nowhere", 0)


def test_choices():
    with pytest.raises(
        ValueError, match="rule must be one of 'deconvnet', 'gradient', 'guided', got 'guided backprop'"
    ):
        zflib.Deconvnet(NET, rule="guided backprop")
    with pytest.raises(ValueError, match="overlap must be one of 'sum', 'max', 'last', got None"):
        zflib.Deconvnet(NET, overlap=None)
    for net in (None, "resnet18"):
        with pytest.raises(TypeError, match=r"net must be a torch network \(nn.Module\), got "):
            zflib.Deconvnet(net)


ROOMS = [
    lambda net: zflib.occlude(net, GOOD[0], size=3, stride=3, layer="0"),
    lambda net: zflib.correspondence(net, GOOD, [[0, 0, 3, 3]] * 2, layer="0"),
    lambda net: zflib.receptive_field(net, "0", (0, 0)),
    lambda net: zflib.invariance(net, GOOD, 0, transform="rotate", amounts=[1], layers="0"),
]


@pytest.mark.parametrize("room", ROOMS, ids=["occlude", "correspondence", "receptive_field", "invariance"])
@pytest.mark.parametrize("net", ["resnet18", None])
def test_what_is_no_network_is_named_in_every_room(room, net):
    with pytest.raises(TypeError, match=rf"net must be a torch network \(nn.Module\), got {type(net).__name__}"):
        room(net)
