"""Figure 5's distances and probabilities against closed forms and plain loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zflib
from zflib import data, explore, show
from zflib.experiments.transforms import Move, moved
from zflib.explore import charts, invariance_explorer
from zflib.models import Conv, Geometry, ZFNet
from zflib.record import hooks

TINY = Geometry(14, 12, (Conv(4, 3, padding=1, pool=True, norm=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ZFNet(7, geometry=TINY).eval()


@pytest.fixture
def images():
    return torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(2))


class OneConv(nn.Module):
    """A convolution with stride 1 and no padding, and a classifier that only looks at its mean."""

    def __init__(self, kernel: int = 1):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.relu = nn.Conv2d(3, 4, kernel, bias=False), nn.ReLU(inplace=True)

    def forward(self, images):
        return self.relu(self.conv(images)).mean(dim=(2, 3))


def by_hand(net, layer, images):
    for name, module in net.named_children():
        images = module(images)
        if name == layer:
            return images.flatten(1)
    return images


@pytest.mark.parametrize("transform, amounts", [("translate", (0, 1, -3, 2.5)), ("translate-right", (-2, 4)),
                                                ("scale", (1, 1.4, 0.7)), ("rotate", (0, 30, 90, 360))])  # fmt: skip
@torch.no_grad()
def test_is_what_a_plain_loop_gives(net, images, transform, amounts):
    labels = torch.tensor([0, 6, 3, 3, 1])
    found = zflib.invariance(
        net, images, labels, transform=transform, amounts=amounts, layers=("conv1", "fc3", "norm1")
    )
    assert found.amounts == amounts and found.transform == transform
    part = {"translate": "down", "translate-right": "right", "scale": "scale", "rotate": "angle"}[transform]
    for a, amount in enumerate(amounts):
        after = moved(images, Move(**{part: amount}))
        torch.testing.assert_close(found.probability[a], net(after).softmax(-1)[range(5), labels])
        for layer, module in (("conv1", "relu1"), ("fc3", "relu3"), ("norm1", "norm1")):
            expected = (by_hand(net, module, after) - by_hand(net, module, images)).square().sum(1).sqrt()
            torch.testing.assert_close(found.distance[layer][a], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.norm[layer], by_hand(net, module, images).norm(dim=1))


@torch.no_grad()
def test_other_is_the_root_mean_squared_distance_to_the_other_images(net, images):
    found = zflib.invariance(net, images, 0, transform="translate", amounts=(1,), layers="fc3")
    values = by_hand(net, "relu3", images)
    squares = torch.cdist(values, values).square()
    expected = (squares.sum(1) / 4).sqrt()
    torch.testing.assert_close(found.other["fc3"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.compared["fc3"], found.distance["fc3"] / expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.relative["fc3"], found.distance["fc3"] / values.norm(dim=1))
    alone = zflib.invariance(net, images[:1], 0, transform="translate", amounts=(1,), layers="fc3")
    assert alone.other["fc3"].isnan().all()


def test_no_move_is_exactly_nothing_among_other_amounts_and_in_every_chunk(net):
    """Seventy images: two chunks of different sizes."""
    some = torch.randn(70, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    cases = {"translate": ((3, 0, 0.0), [1, 2]), "scale": ((1.0, 1.3), [0]), "rotate": ((360, 20, 0), [0, 2])}
    for transform, (amounts, still) in cases.items():
        found = zflib.invariance(net, some, 1, transform=transform, amounts=amounts, layers=("conv1", "fc3"))
        for layer in ("conv1", "fc3"):
            assert float(found.distance[layer][still].abs().max()) == 0
            assert bool((found.distance[layer].sum(dim=1) > 0).sum() == len(amounts) - len(still))
        assert torch.equal(found.probability[still[0]], found.probability[still[-1]])


@torch.no_grad()
def test_the_distance_of_a_shift_in_closed_form(images):
    """For a 1x1 convolution with stride 1 the maps move with the picture; grey gives zero."""
    net = OneConv()
    maps = net.conv(images).relu()
    for pixels in (1, 4, 30):
        found = zflib.invariance(net, images, 0, transform="translate", amounts=[pixels], layers=["relu"])
        shifted = torch.zeros_like(maps)
        shifted[:, :, pixels:] = maps[:, :, : max(0, 12 - pixels)]
        torch.testing.assert_close(found.distance["relu"][0], (shifted - maps).flatten(1).norm(dim=1))
    torch.testing.assert_close(found.distance["relu"][0], maps.flatten(1).norm(dim=1))  # nothing of it is left
    torch.testing.assert_close(found.relative["relu"], torch.ones(1, 5))


@torch.no_grad()
def test_a_layer_before_a_relu_in_place_is_what_it_gave(images):
    net = OneConv()
    found = zflib.invariance(net, images, 0, transform="scale", amounts=[1.5], layers=["conv"])
    after = moved(images, Move(scale=1.5))
    torch.testing.assert_close(found.distance["conv"][0], (net.conv(after) - net.conv(images)).flatten(1).norm(dim=1))
    assert float(net.conv(images).min()) < 0


def test_a_picture_that_is_its_own_turn_goes_nowhere(net):
    quarter = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(4))
    half = torch.cat([quarter, quarter.rot90(-1, (2, 3))], dim=3)
    symmetric = torch.cat([half, half.rot90(2, (2, 3))], dim=2)
    amounts = (0, 90, 180, 270, 45)
    found = zflib.invariance(net, symmetric, 2, transform="rotate", amounts=amounts, layers=("conv1", "fc3"))
    for distance in found.distance.values():
        assert float(distance[:4].max()) < 1e-6 < float(distance[4])


def test_what_comes_in_changes_the_distance_and_fill_is_passed_on(net, images):
    found = {
        fill: zflib.invariance(net, images, 0, transform="translate", amounts=(6,), layers="conv1", fill=fill)
        for fill in (0.0, 2.0, "edge", "reflect")
    }
    values = [float(f.distance["conv1"].mean()) for f in found.values()]
    assert len({round(v, 4) for v in values}) == 4


def test_nothing_of_the_network_changes(net, images):
    net.train()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    copy, grad = images.clone(), net.conv1.weight.requires_grad
    first = zflib.invariance(net, images, 0, transform="rotate", amounts=(10,), layers="conv1")
    assert all(m.training for m in net.modules()) and torch.equal(images, copy)
    assert net.conv1.weight.requires_grad == grad and not any(m._forward_hooks for m in net.modules())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    net.eval()
    second = zflib.invariance(net, images, 0, transform="rotate", amounts=(10,), layers="conv1")
    assert torch.equal(first.distance["conv1"], second.distance["conv1"])  # dropout was off


def test_the_callers_modes_do_not_matter(net, images):
    settings = {"transform": "rotate", "amounts": (10,), "layers": "fc3"}
    expected = zflib.invariance(net, images, 0, **settings)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = zflib.invariance(net, images.clone(), 0, **settings)
    assert torch.equal(found.distance["fc3"], expected.distance["fc3"])
    assert torch.equal(found.probability, expected.probability)


@torch.no_grad()
def test_a_network_that_works_in_place_does_so_on_a_copy(images):
    net, copy = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(432, 2)), images.clone()
    found = zflib.invariance(net, images, 0, transform="translate", amounts=(1,), layers="0")
    assert torch.equal(images, copy)
    expected = (moved(copy, Move(1)).relu() - copy.relu()).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.distance["0"][0], expected)


def test_another_torch_network_by_module_paths(images):
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(500, 4))
    found = zflib.invariance(net, images, [0, 1, 2, 3, 0], transform="translate", amounts=(0, 2), layers=("2", "4"))
    assert found.probability.shape == found.distance["2"].shape == found.distance["4"].shape == (2, 5)
    assert net.training


def test_a_module_used_twice_counts_at_its_first_use(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean(dim=(2, 3))

    net = Twice()
    found = zflib.invariance(net, images, 0, transform="translate", amounts=(2,), layers="conv")
    with torch.no_grad():
        expected = (net.conv(moved(images, Move(2))) - net.conv(images)).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.distance["conv"][0], expected)


def test_small_moves_hit_the_first_layer_harder_than_the_last():
    """The paper's sentence, on photographs, both layers measured by how far another picture is."""
    net = zflib.load("zfnet56")
    names = [name for name in data.photo_names() if name != "motorcycle"]
    inputs = net.preprocess([data.photo(name) for name in names])
    found = zflib.invariance(net, inputs, 0, transform="translate", amounts=(2,))
    assert float(found.compared["conv1"].mean()) > 1.2 * float(found.compared["fc7"].mean())


GOOD = {"transform": "translate", "amounts": (0, 1), "layers": ("conv1",)}


@pytest.mark.parametrize("changes, message", [
    ({"transform": "shear"}, "transform must be one of"), ({"amounts": ()}, "amounts must be at least one number"),
    ({"amounts": "0 1"}, "amounts must be"), ({"amounts": 3}, "amounts must be"),
    ({"amounts": (float("nan"),)}, "down must be a finite number"), ({"layers": ("conv9",)}, "layer 'conv9' is not"),
    ({"layers": ()}, "layers must be at least one"), ({"fill": "grey"}, "fill must be"),
    ({"transform": "scale", "amounts": (0,)}, "scale must be a factor"), ({"fill": 1e39}, "fill must be"),
    ({"amounts": np.array(3.0)}, "amounts must be at least one number, such as .*, got 3.0"),
    ({"layers": [["conv1"]]}, r"layer \['conv1'\] is not in this network"),
])  # fmt: skip
def test_bad_settings(net, images, changes, message):
    with pytest.raises(ValueError, match=message):
        zflib.invariance(net, images, 0, **(GOOD | changes))


@pytest.mark.parametrize("amounts", [
    lambda: (a for a in (0, 2, 4)), lambda: map(int, "024"), lambda: np.array([0, 2, 4]),
    lambda: torch.tensor([0, 2, 4]),
])  # fmt: skip
def test_amounts_are_read_once(net, images, amounts):
    found = zflib.invariance(net, images, 0, **(GOOD | {"amounts": amounts()}))
    assert found.amounts == (0, 2, 4) and len(found.probability) == 3


@torch.no_grad()
def test_probabilities_of_a_network_that_ends_in_a_softmax_are_its_own(net, images):
    labels, settings = torch.tensor([0, 6, 3, 3, 1]), {"transform": "translate", "amounts": (0, 3), "layers": "0.conv1"}
    ended = nn.Sequential(net, nn.Softmax(dim=-1))
    found = zflib.invariance(ended, images, labels, **settings)
    torch.testing.assert_close(found.probability[1], net(moved(images, Move(3))).softmax(-1)[range(5), labels])


def test_one_single_score_is_refused(images):
    with pytest.raises(ValueError, match=r"a score for each of at least two classes, got \(1, 1\)"):
        zflib.invariance(nn.Sequential(nn.Flatten(), nn.Linear(432, 1)), images, 0, **(GOOD | {"layers": "0"}))


def test_moved_images_whose_scores_overflow_are_refused(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    net.forward = lambda x: net[1](net[0](x)) * (torch.nan if float(x[0, 0, 0].abs().max()) == 0 else 1)
    with pytest.raises(ValueError, match="net gives scores without probabilities"):
        zflib.invariance(net, images, 0, **(GOOD | {"layers": "0"}))


def test_a_networks_own_error_stays_in_the_sentence(images):
    def fail(_):
        raise RuntimeError("the sky is grey\nat line 7")

    net = nn.Sequential(nn.Flatten())
    net.forward = fail
    with pytest.raises(
        ValueError, match=r"images of shape \(5, 3, 12, 12\) do not fit this network \(the sky is grey\); crop"
    ):
        zflib.invariance(net, images, 0, **(GOOD | {"layers": "0"}))


@pytest.mark.parametrize("labels, message", [
    (7, "classes from 0 to 6, got 7"), (-1, "got -1"), ([0, 1], "5 classes, one for each"),
    (torch.zeros(5), "as integers"), (torch.zeros(5, 1, dtype=torch.long), r"one for all, got shape \(5, 1\)"),
])  # fmt: skip
def test_bad_labels(net, images, labels, message):
    with pytest.raises((ValueError, TypeError), match=message):
        zflib.invariance(net, images, labels, **GOOD)


def test_other_bad_input(net, images):
    with pytest.raises(TypeError, match="labels must be 5 classes"):
        zflib.invariance(net, images, "cat", **GOOD)
    with pytest.raises(TypeError, match="net must be a torch network"):
        zflib.invariance("zfnet56", images, 0, **GOOD)
    with pytest.raises(ValueError, match="do not fit this network"):
        zflib.invariance(net, torch.zeros(1, 3, 30, 30), 0, **GOOD)
    with pytest.raises(ValueError, match="needs a classifier"):
        zflib.invariance(nn.Sequential(nn.Conv2d(3, 2, 1)), images, 0, **(GOOD | {"layers": "0"}))
    broken = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    nn.init.constant_(broken[1].bias, float("nan"))
    with pytest.raises(ValueError, match="layer '1' gives NaN"):
        zflib.invariance(broken, images, 0, **(GOOD | {"layers": "1"}))
    with pytest.raises(ValueError, match="net gives scores without probabilities; look for NaN or overflow"):
        zflib.invariance(broken, images, 0, **(GOOD | {"layers": "0"}))
    unused = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    unused.spare = nn.Linear(2, 2)
    unused.forward = lambda x: unused[1](unused[0](x))
    with pytest.raises(ValueError, match="'spare' took no part"):
        zflib.invariance(unused, images, 0, **(GOOD | {"layers": "spare"}))


def test_chunks_hold_about_a_million_pixels():
    assert [len(c) for c in hooks.chunks(torch.zeros(100, 1, 56, 56), what="x")] == [64, 36]
    assert [len(c) for c in hooks.chunks(torch.zeros(30, 1, 224, 224), what="x")] == [20, 10]


# --- the explorer ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cat():
    net = zflib.load("zfnet56")
    return net, net.preprocess(data.photo("chelsea"))


@torch.no_grad()
def test_the_mover_says_what_invariance_says(cat):
    net, image = cat
    names = [name for name in invariance_explorer.SHOWN if name in data.photo_names()]
    others = net.preprocess([data.photo(name) for name in names])
    found = zflib.invariance(net, others, 30, transform="rotate", amounts=(25,), layers=("conv1", "fc7"))
    place, moving = names.index("chelsea"), invariance_explorer.Mover(net, image[0], label=30, layers=("conv1", "fc7"))
    turned, distance, chances = moving.at(Move(angle=25))
    assert torch.equal(turned, moved(image, Move(angle=25))[0])
    for layer in ("conv1", "fc7"):
        assert distance[layer] == pytest.approx(float(found.compared[layer][0, place]), rel=1e-3)
    assert float(chances[30]) == pytest.approx(float(found.probability[0, place]), rel=1e-3)
    assert moving.at(Move(angle=360))[1] == {"conv1": 0.0, "fc7": 0.0}


def test_the_explorer_follows_its_sliders_to_every_end(cat):
    net, image = cat
    panel = explore.invariance(net, image, label=30)
    assert panel.controls["down"].value == 4  # something to see from the beginning
    panel.controls["down"].value = 0
    assert "0.00" in panel.text and "line" not in panel.text
    seen, text = [panel.pixels], panel.text
    for name in ("down", "right", "scale", "angle"):
        control = panel.controls[name]
        start = control.value
        for end in (control.min, control.max):
            control.value = end
            seen.append(panel.pixels)
            assert panel.status.value == "" and panel.values["along"] == name
        control.value = start
        assert panel.text == text
    assert all(pixels.shape == seen[0].shape for pixels in seen)
    assert len({pixels.tobytes() for pixels in seen}) >= len(seen) - 1  # -180 and 180 degrees are one
    assert "tabby" in panel.text


def test_the_explorer_takes_other_networks():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    panel = explore.invariance(net, torch.rand(3, 12, 12), layers=("1", "3"))
    panel.controls["down"].value = 3
    assert "their own length" in panel.text and "class" in panel.text
    with pytest.raises(ValueError, match="label must be a class from 0 to 2"):
        explore.invariance(net, torch.rand(3, 12, 12), layers=("1",), label=3)
    flat = torch.zeros(3, 12, 12)
    far = explore.invariance(net, flat, layers=("1",), others=torch.stack([flat, flat + 1]))
    far.controls["scale"].value = 1.5
    assert far.status.value == "" and "another picture, 1 0.00;" in far.text


def test_a_dozen_layers_have_room(cat):
    net, image = cat
    panel = explore.invariance(net, image, layers=net.layer_names)
    assert panel.text.count("conv") == 5 and panel.pixels.shape == explore.invariance(net, image).pixels.shape


def test_curves_grow_while_the_picture_moves(cat):
    net, image = cat
    panel = explore.invariance(net, image)
    walk = panel._draw.__self__
    key = ("down", Move())
    assert len(walk.whole(key)) == 25 and list(walk.measured[key]) == [4]
    for down in (5, 9, -2):
        panel.controls["down"].value = down
    assert sorted(walk.measured[key]) == [-2, 4, 5, 9]
    distance, chance = walk.measured[key][9]
    found = walk.mover.at(Move(down=9))
    assert distance == found[1] and chance == float(found[2][walk.mover.label])
    for amount, (distance, chance) in walk.whole(key).items():
        assert (distance, chance) == walk.mover.measure(Move(down=amount))
    panel.controls["angle"].value = 30
    before = panel.pixels
    walk.whole.wait()
    assert len(walk.whole(("angle", Move(down=-2)))) == 25 and list(walk.measured["angle", Move(down=-2)]) == [30]
    assert not np.array_equal(panel.pixels, before) and panel.status.value == ""


def test_the_pointer_takes_the_picture_along_and_chooses_amounts(cat):
    net, image = cat
    panel, middle = explore.invariance(net, image), charts.STRIP + charts.SIDE // 2
    panel.point(charts.SIDE // 2 + 75, middle - 75, (50, 50))
    assert (panel.values["right"], panel.values["down"]) == (14, -14)
    panel.controls["angle"].value = 1
    for row in (0, charts.ROW):  # both charts
        for amount in (-180, 90, 180):
            x = charts.SIDE + charts.GAP + round(charts.Chart((-180, 180), 1).x(amount))
            panel.point(x, middle, (400, row + 40))
            assert panel.values["angle"] == pytest.approx(amount, abs=1)
    panel.point(0, 10, (400, 100))
    panel.point(100, charts.ROW + 100, (100, charts.ROW + 100))  # the bars
    assert panel.values["angle"] == -180 and panel.status.value == ""


def test_a_chart_draws_values_where_they_belong():
    chart = charts.Chart((0, 10), 2.0, 1.0)
    pixels = chart.pixels(10, {"a": {0: 2.0, 10: 0.0}}, {"a": {0: 0.0, 10: 2.0}})
    blue, paler = (np.array(colour) for colour in ((0, 0x72, 0xB2), charts._paler(show.CURVES[0])))
    near = lambda x, y, colour: np.abs(pixels[round(y), round(x)].astype(int) - colour).max() < 40  # noqa: E731
    assert near(chart.x(2.5), chart.y(0.5), blue) and near(chart.x(2.5), chart.y(1.5), paler)
    assert not near(chart.x(2.5), chart.y(0.8), blue) and chart.amount(chart.x(7)) == pytest.approx(7)
    rows = list(charts._apart({"a": 50.0, "b": 51.0, "c": 290.0}).values())
    assert all(b - a >= 16.9 for a, b in pairwise(rows)) and max(rows) <= charts.SIDE - 12


@pytest.mark.parametrize("change, message", [
    ({"image": np.zeros((3, 12, 12), np.float32)}, r"image must be one preprocessed image \(3,H,W\), got ndarray"),
    ({"image": None}, "image must be .* got NoneType"),
    ({"image": Image.new("RGB", (9, 9))}, "image must be .* got Image"),
    ({"image": torch.zeros(2, 3, 12, 12)}, r"image must be .* got \(2, 3, 12, 12\)"),
    ({"label": 1.0}, "label must be a class from 0 to 6, got 1.0"),
])  # fmt: skip
def test_what_the_explorer_refuses(net, change, message):
    settings = {"image": torch.rand(3, 12, 12), "layers": ("conv1",)} | change
    with pytest.raises(ValueError, match=message):
        explore.invariance(net, **settings)


def test_the_explorer_needs_a_classifier():
    with pytest.raises(ValueError, match=r"net must give scores \(N,classes\), got \(1, 2, 12, 12\)"):
        explore.invariance(nn.Sequential(nn.Conv2d(3, 2, 1)), torch.rand(3, 12, 12), layers="0")
