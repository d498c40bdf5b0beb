"""Figure 4 played: winners, projections and jumps of made-up evolutions, the shipped one, and its stored animation."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

import zflib
from zflib import explore
from zflib.explore.evolution_explorer import TILE, Growth
from zflib.studies.evolution import Evolution, evolve


@pytest.fixture(scope="module")
def net():
    return zflib.load("zfnet56")


def grown(**changes) -> Evolution:
    """Three snapshots of two channels; the first channel's winner changes at the last one."""
    torch.manual_seed(0)
    parts = {
        "epochs": torch.tensor([1, 4, 9]),
        "channels": torch.tensor([3, 40]),
        "images": torch.tensor([[0, 5], [0, 5], [7, 5]]),
        "values": torch.tensor([[1.0, 2.0], [1.5, 2.0], [3.0, 2.5]]),
        "positions": torch.full((3, 2, 2), 3),
        "projections": torch.randn(3, 2, 3, 56, 56),
    }
    return Evolution(**parts | changes)


def test_epochs_are_stepped_through_and_jumps_are_marked(net):
    panel = explore.evolution({"conv3": grown(), "conv5": grown(channels=torch.tensor([7, 8]))}, net=net)
    assert panel.values == {"layer": "conv5", "epoch": 9, "view": "calm"}
    assert "1 of 2 channels have another winner than at epoch 4, framed: 7." in panel.text
    orange = (panel.pixels == (255, 127, 14)).all(axis=-1)
    assert orange[30, :TILE].any() and not orange[30, TILE:].any()
    panel.controls["epoch"].value = 4
    assert "all 2 channels have the winner that they had at epoch 1" in panel.text
    panel.controls["epoch"].value = 1
    panel.controls["layer"].value = "conv3"
    assert "Epoch 1 of conv3, the first snapshot" in panel.text and panel.status.value == ""
    assert list(panel.controls["view"].options) == ["raw", "calm", "grey"]  # "lit" needs the images


def test_the_winner_stands_above_its_projection(net):
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    alone, growth = Growth(net, "conv3", grown()), Growth(net, "conv3", grown(), images)
    assert len(growth.pixels(2, "raw")) == len(alone.pixels(2, "raw")) + TILE + 4
    patch, box = growth._patch(2, 0), growth._boxes[2, 0]
    margin = (64 - 56) // 2
    inside = [slice(margin + int(first), margin + int(last)) for first, last in (box[[0, 2]], box[[1, 3]])]
    wanted = images[7][:, inside[0], inside[1]].permute(1, 2, 0).numpy()
    assert np.abs(patch.astype(int) - wanted).max() <= 1
    assert not np.array_equal(growth.pixels(2, "lit"), growth.pixels(2, "raw"))


def test_the_names_of_winners_stand_above_their_projections(net):
    named = Growth(net, "conv3", grown(labels=torch.tensor([[1, 2], [1, 2], [3, 2]])))
    alone = Growth(net, "conv3", grown())
    assert len(named.pixels(0, "raw")) > len(alone.pixels(0, "raw"))
    assert not np.array_equal(named.column(1, 0, "raw"), named.column(2, 0, "raw"))


def test_many_epochs_find_room_on_their_line(net):
    epochs = torch.arange(13)
    parts = {name: torch.zeros(13, 1, dtype=torch.long) for name in ("images", "values")}
    many = grown(epochs=epochs, channels=torch.tensor([3]), **parts, positions=torch.full((13, 1, 2), 3),
                 projections=torch.randn(13, 1, 3, 56, 56))  # fmt: skip
    line = Growth(net, "conv3", many)._epochs(12, 0)
    below = (line[22:] < 200).all(axis=-1).any(axis=0)  # columns with ink of the numbers
    assert 7 <= int((below[1:] & ~below[:-1]).sum()) <= 14  # seven numbers with white between them


def test_winners_of_images_of_yours(net):
    torch.manual_seed(0)
    nets = {epoch: zflib.zfnet56() for epoch in (1, 2)}
    images = torch.randint(0, 256, (12, 3, 64, 64), dtype=torch.uint8)
    panel = explore.evolution(evolve(nets, images, layers={"conv2": [0, 1]}), net=nets[2], images=images, view="lit")
    panel.controls["epoch"].value = 1
    assert panel.status.value == "" and "Epoch 1 of conv2" in panel.text


def test_the_shipped_evolution_plays_where_no_kernel_runs():
    panel = explore.evolution()
    stored = Image.open(io.BytesIO(base64.b64decode(panel._repr_mimebundle_()[0]["image/png"])))
    assert stored.n_frames == 5 and panel.values["epoch"] == 12
    play = panel.children[0].children[0]
    assert (play.min, play.max, play.value) == (0, 4, 4)


def test_bad_input_gets_one_sentence(net):
    with pytest.raises(ValueError, match="layer must be one of 'conv3', got 'fc7'"):
        explore.evolution({"conv3": grown()}, net=net, layer="fc7")
    with pytest.raises(ValueError, match="view must be one of 'raw', 'calm', 'grey', got 'lit'"):
        explore.evolution({"conv3": grown()}, net=net, view="lit")
