"""The machine: its maps are the network's, its signals the deconvnet's, and it lights what it is told to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import show
from zflib.show import chain, diagram


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return zflib.scenes56().eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(3, 56, 56, generator=torch.Generator().manual_seed(1))


def plain(**parts: nn.Module) -> nn.Sequential:
    model = nn.Sequential()
    for name, module in parts.items():
        model.add_module(name, module)
    return model.eval()


def tile(page: np.ndarray, found: chain.Chain, number: int, left: int) -> np.ndarray:
    """The first tile of a stage in one of the columns."""
    top = diagram.HEAD + (len(found.stages) - 1 - number) * (diagram.TILE + diagram.STEP)
    return page[top : top + diagram.TILE, left : left + diagram.TILE]


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_maps_are_the_networks_and_the_last_signal_is_the_deconvnets(net, image):
    found = chain.follow(net, image)
    kinds = [(stage.name, stage.kind) for stage in found.stages]
    convs = [[(f"conv{i}", kind) for kind in ("filter", "rectify", "pool")] for i in (1, 2, 3)]
    assert kinds == [*convs[0], *convs[1], *convs[2][:2]]
    deconvnet = zflib.Deconvnet(net)
    for number, layer in ((1, "conv1"), (2, "pool1"), (4, "conv2"), (5, "pool2"), (7, "conv3")):
        assert torch.allclose(found.stages[number].up, deconvnet.activations(image[None], layer)[0], atol=1e-5)
    expected = deconvnet.project(image[None], "conv3", found.channel, positions=found.position)[0]
    assert torch.allclose(found.projection, expected, atol=1e-5 * float(expected.abs().max()))


def test_the_way_down_begins_with_one_activation_away_from_the_border(net, image):
    found = chain.follow(net, image, layer="conv2", channel=5)
    last = found.stages[-1]
    assert found.channel == 5 and last.down.count_nonzero() == 1
    assert last.down[5][found.position] == last.up[5, 2:-2, 2:-2].max()
    assert last.channels[0] == 5


def test_channels_are_those_with_the_strongest_signal(net, image):
    stage = chain.follow(net, image, count=3).stages[2]
    strength = stage.down.flatten(1).abs().amax(dim=1)
    assert stage.channels == strength.argsort(descending=True)[:3].tolist()


def test_tiles_show_the_maps_in_one_range(net, image):
    found, page = chain.follow(net, image), show.machine(net, image)
    assert page.shape[1] == 2000 and page.dtype == np.uint8
    for number in (0, 4):
        stage = found.stages[number]
        expected = diagram._map_tile(stage.up[stage.channels[0]], show.limit(stage.up[stage.channels]), diagram.TILE)
        assert np.array_equal(tile(page, found, number, diagram.LEFT)[4:-4, 4:-4], expected[4:-4, 4:-4])


def test_a_map_tile_is_blue_white_and_red():
    low, zero, high = diagram._map_tile(torch.tensor([[-2.0, 0.0, 2.0]]), 1.0, 30)[15, [5, 15, 25]].astype(int)
    assert low[2] > low[0] + 50 and (zero > 240).all() and high[0] > high[2] + 50


def test_large_maps_keep_their_single_pixels():
    maps = torch.zeros(1, 112, 112)
    maps[0, 50, 61], maps[0, 3, 4] = -5.0, 2.0
    coarse = diagram._coarse(maps)
    assert coarse.shape == (1, 38, 38) and coarse[0, 16, 20] == -5 and coarse[0, 1, 1] == 2
    assert coarse.count_nonzero() == 2 and torch.equal(diagram._coarse(maps[:, :30, :30]), maps[:, :30, :30])


def test_switches_point_from_the_middle_of_a_window_to_its_maximum():
    values, switches = nn.functional.max_pool2d(torch.arange(49.0).view(1, 1, 7, 7), 3, 2, return_indices=True)
    step = next(s for s in zflib.record.record(nn.Sequential(nn.MaxPool2d(3, 2)), torch.rand(1, 3, 7, 7), "0").steps
                if type(s).__name__ == "Pool")  # fmt: skip
    for row, column in np.ndindex(*values.shape[-2:]):
        assert diagram._away(step, row, column, int(switches[0, 0, row, column])) == (1, 1)
    assert diagram._away(step, 1, 1, 3 * 7 + 3) == (0, 0) and diagram._away(step, 1, 1, 2 * 7 + 3) == (0, -1)


# --- what is lit, and when -------------------------------------------------------------------------------------------


def faded(one: np.ndarray, whole: np.ndarray) -> bool:
    """Whether a part is drawn pale."""
    return 255 - one.astype(float).mean() < 0.3 * (255 - whole.astype(float).mean())


@pytest.mark.parametrize("here, up, down", [
    ("unpool", {1, 2, 4, 5}, {1, 2, 4, 5}), ("filter", set(), {0, 2, 3, 5, 6}), ("train", set(range(8)), set()),
    ("rectify", set(), {0, 1, 3, 4, 6, 7}), ("deconvnet", set(), set(range(8))), ("conv2", {2, 3, 4, 5}, {2, 3, 4, 5}),
])  # fmt: skip
def test_a_part_is_lit_and_the_rest_is_pale(net, image, here, up, down):
    found, whole, page = chain.follow(net, image), show.machine(net, image), show.machine(net, image, here=here)
    for left, lit in ((diagram.LEFT, up), (diagram.RIGHT, down)):
        for number in range(8):
            one, other = (tile(picture, found, number, left) for picture in (page, whole))
            assert faded(one, other) != (number in lit), (left, number)


def test_it_grows_step_by_step(net, image):
    frames, words = show.machine_steps(net, image)
    found = chain.follow(net, image)
    assert len(frames) == len(words) == 18 and np.array_equal(frames[-1], show.machine(net, image))
    assert (
        words[:2] == ["the photograph", "conv1, filter: 24 filters, 7×7"] and words[-1] == "conv1, filter, transposed"
    )
    ink = [255 - frame.astype(float).mean() for frame in frames]
    assert ink == sorted(ink)
    for number in range(8):
        assert (tile(frames[number], found, number, diagram.LEFT) == 255).all()
        assert (tile(frames[number + 1], found, number, diagram.LEFT) < 255).any()
        assert (tile(frames[15 - number], found, number, diagram.RIGHT) == 255).all()
        assert (tile(frames[16 - number], found, number, diagram.RIGHT) < 255).any()
    assert np.array_equal(frames[6], show.machine(net, image, until=7))


# --- other networks --------------------------------------------------------------------------------------------------


def test_any_row_of_convolutions_relus_and_pools():
    model = plain(a=nn.Conv2d(3, 2, 3), b=nn.BatchNorm2d(2), c=nn.ReLU(True), d=nn.MaxPool2d(2), e=nn.Conv2d(2, 5, 1))
    found = chain.follow(model, torch.randn(3, 20, 24))
    assert [stage.kind for stage in found.stages] == ["filter", "rectify", "pool", "filter"]
    assert found.stages[1].normalised and found.stages[3].name == "e"
    assert show.machine(model, torch.randn(3, 20, 24), here="e").shape[1] == 2000


def test_a_network_that_branches_is_drawn_as_far_as_it_does_not():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18().eval()
    found = chain.follow(model, torch.randn(3, 64, 64))
    assert found.stages[0].name == "conv1"
    with pytest.raises(ValueError, match="layer 'layer2' is reached by more than"):
        show.machine(model, torch.randn(3, 64, 64), layer="layer2")


def test_what_cannot_be_drawn_is_said_in_a_sentence(net, image):
    with pytest.raises(ValueError, match="net has no convolution"):
        show.machine(plain(a=nn.Flatten(), b=nn.Linear(12, 2)), torch.randn(3, 2, 2))
    with pytest.raises(ValueError, match="net does not begin with a convolution"):
        show.machine(plain(a=nn.AvgPool2d(2), b=nn.Conv2d(3, 2, 1)), torch.randn(3, 8, 8))
    with pytest.raises(ValueError, match="layer 'fc6' is reached by more than"):
        show.machine(net, image, layer="fc6")
    with pytest.raises(ValueError, match="here must be one of"):
        show.machine(net, image, here="up")
    with pytest.raises(ValueError, match=r"image must be one preprocessed image \(3,H,W\)"):
        show.machine(net, image[0])
