"""Whatever a network is made of, however it lies in memory: the same numbers from every room, or a sentence."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zflib
from zflib import explore
from zflib.data import image_source
from zflib.experiments import compare, suppress_overlaps
from zflib.experiments.occluders import FILLS, boxes_around, masked, random_boxes
from zflib.experiments.partial_forward import multiply_adds
from zflib.experiments.transforms import Move, moved
from zflib.explore.invariance_explorer import Mover
from zflib.explore.layer_explorer import View
from zflib.studies.units import Units

BOXES = torch.tensor([[2, 3, 9, 11]]).expand(3, 4)


def network(*head: nn.Module, classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes), *head,
    ).eval()  # fmt: skip


def pictures(height: int = 20, width: int = 20) -> torch.Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))


#: Every public function, as a tensor of numbers, of a network, three images and a layer.
ROOMS = {
    "activations": lambda net, x, layer: zflib.Deconvnet(net).activations(x, layer),
    "project": lambda net, x, layer: zflib.Deconvnet(net).project(x, layer, 2),
    "project_all": lambda net, x, layer: zflib.Deconvnet(net, rule="guided").project_all(x[0], layer),
    "find_peaks": lambda net, x, layer: zflib.find_peaks(net, x, layers=[layer], k=2)[layer].values,
    "receptive_field": lambda net, x, layer: torch.tensor(
        zflib.receptive_field(net, layer, (1, 2), size=x.shape[2:]), device="cpu"),
    "occlude": lambda net, x, layer: zflib.occlude(net, x[0], size=6, stride=7, layer=layer).activity,
    "invariance": lambda net, x, layer: zflib.invariance(
        net, x, 1, transform="rotate", amounts=(0, 30), layers=layer).distance[layer],
    "correspondence": lambda net, x, layer: zflib.correspondence(net, x, BOXES, layer=layer).changes,
    "activation_maximisation": lambda net, x, layer: zflib.activation_maximisation(net, layer, 2, start=x[0], steps=3),
    "curvature": lambda net, x, layer: zflib.curvature(net, x[0], layer, 2, k=1, step=0.3)[0],
}  # fmt: skip
every_room = pytest.mark.parametrize("room", ROOMS)


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [nn.Softmax(1), nn.LogSoftmax(1)], ids=["softmax", "log-softmax"])
def test_a_network_that_gives_probabilities(head):
    plain, net, x = network(), network(head), pictures()
    with torch.no_grad():
        expected = plain(x).softmax(1)
        moved = plain(torch.zeros_like(x).index_copy_(2, torch.arange(3, 20), x[:, :, :17])).softmax(1)
    maps = zflib.occlude(net, x[0], size=6, stride=7, layer="5", label=2)
    torch.testing.assert_close(
        maps.probability, zflib.occlude(plain, x[0], size=6, stride=7, layer="5", label=2).probability
    )
    assert maps.before[0] == pytest.approx(float(expected[0, 2]))
    found = zflib.invariance(net, x, 2, transform="translate", amounts=(0, 3), layers="5").probability
    torch.testing.assert_close(found, torch.stack([expected[:, 2], moved[:, 2]]))
    torch.testing.assert_close(Mover(net, x[0], layers=["5"]).chances, expected[0])
    assert explore.occlusion(net, x[0], layer="5").text == explore.occlusion(plain, x[0], layer="5").text


@pytest.mark.parametrize("room", ["occlude", "invariance"])
def test_one_single_score_has_no_probability(room):
    with pytest.raises(ValueError, match=r"a score for each of at least two classes, got \(1, 1\)"):
        ROOMS[room](network(classes=1), pictures(), "5")


class Head(nn.Module):
    """A network that ends in a function of its five logits."""

    def __init__(self, end):
        super().__init__()
        self.body, self.end = network(), end

    def forward(self, x):
        return self.end(self.body(x))


def two_levels(logits):
    """Two groups of classes, each with a softmax of its own."""
    return torch.cat([logits[:, :2].softmax(1), logits[:, 2:].softmax(1)], 1)


#: How a network ends -> the probabilities that it gives, of its logits.
ENDS = {
    "sigmoid": (torch.sigmoid, torch.sigmoid),
    "sigmoid in place": (lambda z: z.sigmoid_(), torch.sigmoid),
    "reshaped sigmoid": (lambda z: torch.sigmoid(z[:, :, None, None]).flatten(1), torch.sigmoid),
    "sigmoid of a temperature": (lambda z: (z / 3).sigmoid(), lambda z: (z / 3).sigmoid()),
    "hard sigmoid": (F.hardsigmoid, F.hardsigmoid),
    "logarithms of sigmoids": (F.logsigmoid, torch.sigmoid),
    "clamped sigmoid": (lambda z: z.sigmoid().clamp(1e-6, 1 - 1e-6), torch.sigmoid),
    "yes and no": (lambda z: torch.cat([z.sigmoid(), 1 - z.sigmoid()], 1),
                   lambda z: torch.cat([z.sigmoid(), 1 - z.sigmoid()], 1)),
    "two levels": (two_levels, two_levels),
    "logarithms of two levels": (lambda z: torch.cat([z[:, :2].log_softmax(1), z[:, 2:].log_softmax(1)], 1),
                                 two_levels),
    "softmax of a temperature": (lambda z: (z / 3).softmax(1), lambda z: (z / 3).softmax(1)),
    "logarithm of a softmax": (lambda z: (z.softmax(1) + 1e-9).log(), lambda z: z.softmax(1)),
    "softmax by hand": (lambda z: z.exp() / z.exp().sum(1, keepdim=True), lambda z: z.softmax(1)),
    "mean of two softmaxes": (lambda z: (z.softmax(1) + z.flip(1).softmax(1)) / 2,
                              lambda z: (z.softmax(1) + z.flip(1).softmax(1)) / 2),
    "logits from 0 to 1": (lambda z: z * 0.01 + torch.tensor([0.1, 0.2, 0.3, 0.5, 0.7]),
                           lambda z: (z * 0.01 + torch.tensor([0.1, 0.2, 0.3, 0.5, 0.7])).softmax(1)),
    "rectified logits": (torch.relu, lambda z: z.relu().softmax(1)),
    "gated logits": (lambda z: z * z.flip(1).sigmoid(), lambda z: (z * z.flip(1).sigmoid()).softmax(1)),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
@torch.no_grad()
def test_probabilities_are_what_the_last_step_says(end):
    ends, expected = ENDS[end]
    net, x = Head(ends).eval(), pictures()
    before, after = (expected(net.body(some)) for some in (x, moved(x, Move(3))))
    maps = zflib.occlude(net, x[0], size=6, stride=7, layer="body.5", label=2)
    assert maps.before[0] == pytest.approx(float(before[0, 2]), abs=1e-5)
    found = zflib.invariance(net, x, 2, transform="translate", amounts=(0, 3), layers="body.5").probability
    torch.testing.assert_close(found, torch.stack([before[:, 2], after[:, 2]]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Mover(net, x[0], layers=["body.5"]).chances, before[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("room", ["occlude", "invariance"])
@pytest.mark.parametrize("end, sentence", [
    (lambda z: z.softmax(0), "ends in a softmax whose probabilities sum to 5 instead of 1"),
    (lambda z: z.log_softmax(0), "ends in a log_softmax whose probabilities sum to 5 instead of 1"),
    (lambda z: z.softmax(1) / 2, "sum to 0.5 instead of 1"),
    (lambda z: 1 / (1 + torch.exp(-z)), "ends in 'mul', which gives numbers from 0 to 1 that do not sum to 1"),
    (lambda z: torch.cat([z.softmax(1), z.sigmoid()], 1), "ends in 'Cat', which gives numbers from 0 to 1"),
    (lambda z: (z, z), r"net must give scores \(N,classes\), got tuple"),
    (lambda z: {"logits": z}, r"net must give scores \(N,classes\), got dict with 'logits'; wrap it in"),
    (lambda z: z[:, :1].sigmoid(), r"a score for each of at least two classes, got \(1, 1\)"),
])  # fmt: skip
def test_what_nobody_can_read_as_probabilities_is_refused(end, sentence, room):
    with pytest.raises(ValueError, match=sentence):
        ROOMS[room](Head(end).eval(), pictures(), "body.5")


class Unsteady(nn.Module):
    """A network with a function of its maps between two layers."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between = nn.Conv2d(3, 8, 3), between
        self.last, self.scores = nn.Conv2d(8, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        return self.scores(self.last(self.between(self.first(x))).mean((2, 3)))


@pytest.mark.parametrize("between", [
    F.dropout, lambda y: y + torch.randn_like(y), lambda y: y - y.mean(0), lambda y: y.roll(1, 0), lambda y: y.flip(0),
    lambda y: F.batch_norm(y, None, None, training=True), lambda y: y / y.norm(), lambda y: y.softmax(0),
    nn.FractionalMaxPool2d(2, output_ratio=0.6), lambda y: F.rrelu(y, training=True),
])  # fmt: skip
@pytest.mark.parametrize("room", ["find_peaks", "occlude", "invariance", "correspondence"])
def test_a_network_that_is_random_or_mixes_images_is_refused(room, between):
    net = Unsteady(between).eval()
    with pytest.raises(ValueError, match="net gives other numbers for an image alone than for the same image among"):
        ROOMS[room](net, pictures(), "last")
    if room == "find_peaks":  # to which nothing behind the layer matters
        assert ROOMS[room](net, pictures(), "first").isfinite().all()


@pytest.mark.parametrize("between", [lambda y: F.pad(y, (1, 2, 3, 1), mode="circular"), lambda y: written(y)])
def test_maps_that_are_written_through_a_view(between):
    net, x = Unsteady(between).eval(), pictures()
    maps = zflib.occlude(net, x[0], size=6, stride=7, layer="last", label=2)
    for row, column in ((0, 0), (1, 1)):
        covered = x[:1].clone()
        covered[..., 7 * row : 7 * row + 6, 7 * column : 7 * column + 6] = 0
        expected = net.last(between(net.first(covered)))[0, maps.channel].sum()
        torch.testing.assert_close(maps.activity[row, column], expected.detach(), atol=1e-3, rtol=1e-4)


def written(y):
    """Two halves of the channels, swapped by writing."""
    swapped = torch.zeros_like(y)
    swapped[:, :4], swapped[:, 4:] = y[:, 4:], y[:, :4]
    return swapped


# --- memory, precision, what is used first ---------------------------------------------------------------------------


@every_room
def test_any_memory_format(room):
    net, x = network(), pictures()
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    for layer in ("5", "8") if room in ("project", "project_all") else ("5",):
        expected = ROOMS[room](net, x, layer)
        for same in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, torch.stack([x, x], -1)[..., 0]):
            for given in (net, last):
                torch.testing.assert_close(ROOMS[room](given, same, layer), expected, atol=1e-5, rtol=1e-5)


class Late(nn.Module):
    """Registers first what it uses last, or never."""

    def __init__(self, colours: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.last, self.never = nn.Linear(4, 2).half(), nn.Conv2d(1, 2, 3).double()
        self.first, self.relu = nn.Conv2d(colours, 4, 3), nn.ReLU()

    def forward(self, x):
        return self.last(self.relu(self.first(x)).mean((2, 3)).half())


@every_room
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_used_first_decides(room, dtype):
    net = Late().eval()
    alone = nn.Sequential(net.first, net.relu, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    torch.testing.assert_close(ROOMS[room](net, pictures().to(dtype), "relu"), ROOMS[room](alone, pictures(), "1"))


@pytest.mark.parametrize("colours", [1, 4])
def test_receptive_fields_of_other_numbers_of_channels(colours):
    assert zflib.receptive_field(Late(colours).float(), "relu", (1, 2), size=9) == (1, 2, 4, 5)


@pytest.fixture(params=["meta", torch.float64, torch.float16], ids=str)
def default(request):
    """Tensors for which nobody says so lie elsewhere, or are of another type."""
    (torch.set_default_device if request.param == "meta" else torch.set_default_dtype)(request.param)
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


NUMBERS = {room: call(network(), pictures(), "5") for room, call in ROOMS.items()}


NET, PICTURES = network(), pictures()


@every_room
def test_whatever_torch_makes_by_default(room, default):
    found = ROOMS[room](NET, PICTURES, "5")
    assert found.dtype == NUMBERS[room].dtype and torch.equal(found, NUMBERS[room])


#: What else makes tensors of its own.
MAKERS = {
    **{fill: lambda fill=fill: masked(PICTURES, BOXES, fill=fill) for fill in FILLS},
    "boxes around": lambda: boxes_around([[3.0, 4.0]], 5, 20),
    "random boxes": lambda: random_boxes(3, 5, 20, avoid=BOXES),
    "any boxes": lambda: random_boxes(3, 5, 20),
    "turned": lambda: moved(PICTURES, Move(angle=30, scale=0.5)),
    "reflected": lambda: moved(PICTURES, Move(down=2), fill="reflect"),
    "fields": lambda: zflib.receptive_fields(NET, "5", [[1, 2], [0, 0]], size=20),
    "multiply-adds": lambda: torch.tensor(multiply_adds(NET, PICTURES[0], 5), device="cpu"),
    "p value": lambda: torch.tensor(correspond().p_value(20), device="cpu", dtype=torch.float32),
    "two masks": lambda: torch.tensor(
        compare(correspond(), correspond(3.0), rounds=5).p, device="cpu", dtype=torch.float32),
    "different places": lambda: suppress_overlaps(
        zflib.find_peaks(NET, PICTURES, layers="5", k=3)["5"], torch.zeros(6, 3, dtype=torch.long, device="cpu"),
        torch.arange(72, device="cpu").view(6, 3, 4) % 7 + torch.arange(4, device="cpu") * 2, k=2).images,
    "our network": lambda: zflib.load("scenes56").preprocess(np.full((70, 60, 3), 80, np.uint8)),
}  # fmt: skip


def correspond(fill=0.0):
    return zflib.correspondence(NET, PICTURES, BOXES, layer="5", fill=fill)


MADE = {name: make() for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_what_makes_tensors_says_where_and_of_what_type(name, default):
    found = MAKERS[name]()
    assert found.dtype == MADE[name].dtype
    assert torch.equal(found, MADE[name])


def test_workers_read_whatever_the_default_device_is(default, monkeypatch):
    monkeypatch.setattr(image_source, "SOON", -1.0)
    monkeypatch.setattr(image_source, "_workers", lambda *given: 2)
    found = zflib.find_peaks(NET, list(PICTURES), layers="5", batch_size=2, k=2)
    assert torch.equal(found["5"].values, zflib.find_peaks(NET, PICTURES, layers="5", batch_size=2, k=2)["5"].values)


# --- NaN from weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "receptive_field"])
def test_nan_from_weights(room):
    net = network()
    net[0].bias.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"layer '5' gives NaN.*; look for NaN or overflow in net's weights"):
        ROOMS[room](net, pictures(), "5")


def test_overflow_on_the_way_down():
    net = network().half()
    net[4].weight.data *= 1000  # activations of thousands, times weights of hundreds
    with pytest.raises(ValueError, match="projecting down gives NaN or infinite values"):
        zflib.Deconvnet(net).project_all(pictures()[0].half(), "4")


# --- layers as modules, sizes ----------------------------------------------------------------------------------------


@every_room
def test_a_layer_is_a_name_or_the_module_itself(room):
    net, x = network(), pictures()
    assert torch.equal(ROOMS[room](net, x, net[5]), ROOMS[room](net, x, "5"))
    with pytest.raises(ValueError, match=r"layer ReLU is not in this network; it has 0, 1"):
        ROOMS[room](net, x, nn.ReLU())


@every_room
def test_a_layer_that_is_none(room):
    shared = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 3, 3), shared, nn.Conv2d(3, 3, 3), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="layer '3' is the module '1' by another name, and a module is taken at its"):
        ROOMS[room](net.eval(), pictures(), "3")
    with pytest.raises(ValueError, match=r"layer (Parameter|Tensor) is not in this network; it has 0, 1, 2, 4, 5"):
        ROOMS[room](net.eval(), pictures(), net[0].weight)


@every_room
def test_a_network_without_weights(room):
    with pytest.raises(ValueError, match="net has no weights yet, they are on the device 'meta'"):
        ROOMS[room](network().to("meta"), pictures(), "5")


def test_a_module_of_ours_is_not_the_layer_of_its_name():
    net, x = zflib.scenes56(), torch.randn(2, 3, 56, 56)
    found = zflib.find_peaks(net, x, layers=["conv3", net.conv3, net.relu3], k=1)
    assert list(found) == ["conv3", net.conv3, net.relu3]
    assert torch.equal(found["conv3"].values, found[net.relu3].values)
    assert (
        zflib.Deconvnet(net).activations(x, net.conv3).min() < 0 <= zflib.Deconvnet(net).activations(x, "conv3").min()
    )


def test_a_search_by_module_continues(tmp_path):
    net, x = network(), pictures()
    first, again = (zflib.find_peaks(net, x, layers=net[5], save=tmp_path / "peaks") for _ in range(2))
    assert torch.equal(first[net[5]].values, again[net[5]].values)


def test_explorers_call_a_module_by_its_path():
    net, x = network(), pictures()
    layer, places = net[5], {"eye": torch.full((3, 2), 8.0)}
    assert " of 5 " in explore.layers(net, [x[0]], layer=layer, layers=layer, preprocess=lambda photo: None).text
    assert " 5 " in explore.invariance(net, x[0], layers=layer).text
    assert " 5: " in explore.correspondence(net, x, places, layers=layer).text
    assert " of 5: " in explore.units(net, x, layers=layer, layer=layer).text
    assert explore.occlusion(net, x[0], layer=layer).text == explore.occlusion(net, x[0], layer="5").text


@pytest.mark.parametrize("height, width", [(20, 33), (33, 20)])
def test_receptive_fields_in_images_that_are_not_square(height, width):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x = pictures(height, width)
    view, unit = View(net, x[0], "2"), Units(net, x, layers=["2"]).unit("2", 1)
    for boxes, positions in (
        ([view.field(c) for c in range(4)], view.positions),
        (unit.boxes.tolist(), unit.positions),
    ):
        expected = [zflib.receptive_field(net, "2", place, size=(height, width)) for place in positions]
        assert list(map(tuple, boxes)) == expected
    unit = Units(network(), x, layers=["5"]).unit("5", 1)
    assert unit.projections.shape == unit.patches.shape == (3, 3, 8, 8)


@pytest.mark.parametrize("size", [(40, 40), (3, 2), (56, 55)])
@pytest.mark.parametrize("room", ["activations", "find_peaks", "receptive_field", "invariance", "correspondence"])
def test_an_image_too_small_is_told_the_size(room, size):
    with pytest.raises(
        ValueError, match=rf"shape \([13], 3, {size[0]}, {size[1]}\) do not fit .* at least 56x56 pixels"
    ):
        ROOMS[room](zflib.scenes56(), torch.zeros(3, 3, *size), "conv3")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@every_room
def test_a_network_that_torch_jit_compiled_is_refused(room):
    made = torch.jit.trace(NET, PICTURES), nn.Sequential(torch.jit.script(NET)).eval()
    for net, layer in zip(made, ("5", "0.5")):
        with pytest.raises(ValueError, match=r"is compiled \(.*Module\); pass the Python module it was made from"):
            ROOMS[room](net, PICTURES, layer)
