"""A GPU gives what the CPU gives; without one these tests skip."""

from __future__ import annotations

import copy

import pytest
import torch
from test_any_network import ROOMS, network, pictures

DEVICES = [
    name for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if there
]
pytestmark = pytest.mark.skipif(not DEVICES, reason="no GPU here")


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("device", DEVICES or ["cpu"])
@pytest.mark.parametrize("images_there", [False, True], ids=["images on the CPU", "images on the device"])
def test_a_device_agrees_with_the_cpu(device, room, images_there):
    net, x = network(), pictures(20, 27)
    there = copy.deepcopy(net).to(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = ROOMS[room](there, x.to(device) if images_there else x, "5")
    torch.testing.assert_close(found.cpu(), ROOMS[room](net, x, "5"), atol=1e-4, rtol=1e-4)
