"""Every way and every stop of the walk is drawn; what is not a set of directions gets a sentence."""

import numpy as np
import pytest
import torch

import zflib
from zflib import explore
from zflib.explore.directions_explorer import STOPS


@pytest.fixture(scope="module")
def net():
    return zflib.load("scenes56").requires_grad_(False)


def image():
    return torch.randn(3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_every_stop(net):
    found = torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    channel = int(zflib.Deconvnet(net).activations(image()[None], "conv2")[0].amax(dim=(1, 2)).argmax())
    panel = explore.directions(net, image(), "conv2", channel, found=found)
    first = panel.pixels
    assert first.dtype == np.uint8 and 980 <= first.shape[1] <= 1320 and "which is 100% of" in panel.text
    for name in ("flattest 2", "steepest 1", "random"):
        for degrees in (STOPS[0], 5, STOPS[-1]):
            panel.controls["direction"].value, panel.controls["degrees"].value = name, degrees
            assert not panel.status.value and panel.pixels.shape == first.shape and name in panel.text
    assert not np.array_equal(panel.pixels, first)
    assert len(panel._repr_mimebundle_()[0]["image/png"]) < 1_400_000


def test_directions_of_its_own(net):
    channel = int(zflib.Deconvnet(net).activations(image()[None], "conv3")[0].amax(dim=(1, 2)).argmax())
    panel = explore.directions(net, image(), "conv3", channel, k=1)
    assert list(panel.controls["direction"].options) == ["flattest 1", "steepest 1", "random"]


def test_other_directions(net):
    with pytest.raises(ValueError, match=r"found must be \(2k,3,H,W\) directions of this image, got"):
        explore.directions(net, image(), "conv1", 3, found=torch.zeros(3, 3, 56, 56))
    with pytest.raises(ValueError, match=r"found must be \(2k,3,H,W\) directions of this image, got list"):
        explore.directions(net, image(), "conv1", 3, found=[image(), image()])


def test_directions_of_zeros():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    with pytest.raises(ValueError, match=r"found: a direction is 0, .*; give a larger step="):
        explore.directions(net, image(), "0", 1, step=None)
