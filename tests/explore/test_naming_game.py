"""The naming game's panel: a round is answered once, the right picture is framed, the table comes at the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import explore
from zflib.models import Conv, Geometry, ZFNet

TINY = Geometry(12, 10, (Conv(6, 3, padding=1, pool=True), Conv(40, 3, padding=1, pool=True)), hidden=(8,))


@pytest.fixture
def panel() -> explore.Panel:
    torch.manual_seed(1)
    net = ZFNet(5, geometry=TINY).eval()
    net.classes = list("abcde")
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (120, 3, 12, 12)) * rng.uniform(1, 60, (120, 1, 1, 1))
    pixels = (noise + 115).clip(0, 255).astype(np.uint8)
    return explore.name_the_channel(net, pixels, rounds=2, labels=torch.arange(120) % 5)


def choose(panel, choice):
    panel.controls["choice"].value = choice
    assert panel.status.value == ""


def test_two_rounds(panel):
    asked = panel.pixels
    assert "choose the picture" in panel.text and panel.values == {"name": "", "choice": None}
    choose(panel, "next")  # not answered yet
    assert np.array_equal(panel.pixels, asked)
    panel.controls["name"].value = "dots"
    choose(panel, "3")
    first = panel.text
    assert "of 1 right; a guess is right once in 8. Press next." in first
    assert panel.pixels.shape == asked.shape and not np.array_equal(panel.pixels, asked)
    choose(panel, "4")  # the first answer counts
    assert panel.text == first
    choose(panel, "next")
    assert panel.values == {"name": "", "choice": None} and "choose the picture" in panel.text
    choose(panel, "1")
    assert "of 2 right" in panel.text and "a probability of" in panel.text and "Press next" not in panel.text
    assert panel.pixels.shape[0] > asked.shape[0], "the table stands below"
    end = panel.pixels
    choose(panel, "next")
    assert np.array_equal(panel.pixels, end)


def test_the_right_picture_is_framed_and_named(panel):
    choose(panel, "3")
    orange = (np.abs(panel.pixels.astype(int) - (255, 127, 14)).max(axis=2) < 3).sum()
    assert orange > 300
    assert panel.text.startswith("Right: channel") == ("1 of 1 right" in panel.text)
    assert Image.fromarray(panel.pixels).width <= 1100, "as wide as a page"
