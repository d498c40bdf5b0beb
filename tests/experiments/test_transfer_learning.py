"""`transfer` against scikit-learn itself and against pooling by hand; what it says to bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import recall_score
from torch import nn

import zflib
from zflib.data import scenes
from zflib.experiments import transfer_learning
from zflib.experiments.transfer_learning import split_classes

SIDE = 12


@pytest.fixture(scope="module")
def net():
    """Maps of 12, 6 and (in place) 6 positions, then five units."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1)
    return (
        nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 36, 5)).eval().requires_grad_(False)
    )


@pytest.fixture(scope="module")
def images():
    return torch.randn(70, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def cells(maps: torch.Tensor, grid: int) -> torch.Tensor:
    """(N,C*grid*grid) means over equal cells, by loops."""
    side = maps.shape[-1] // grid
    found = [
        maps[:, channel, row * side : (row + 1) * side, column * side : (column + 1) * side].mean(dim=(1, 2))
        for channel in range(maps.shape[1]) for row in range(grid) for column in range(grid)
    ]  # fmt: skip
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_features_are_means_over_cells_and_a_layer_is_its_own_output(net, images, grid):
    before = net[3](net[2](net[1](net[0](images).clone()))).clone()  # layer "3": not yet what its ReLU makes of it
    found = zflib.features(net, images, layers=["3", "6"], grid=grid)
    assert torch.allclose(found["3"], cells(before, grid), atol=1e-5)
    assert torch.allclose(found["6"], net(images.clone()), atol=1e-5)  # units, as they are


def test_a_map_smaller_than_the_grid_is_kept(net, images):
    assert zflib.features(net, images, layers=["3"], grid=50)["3"].shape == (70, 6 * 36)


def test_layers_of_our_networks_are_after_their_relu_and_batches_change_nothing():
    net, some = zflib.load("scenes56"), torch.randn(70, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    found = zflib.features(net, some, layers=["conv1", "fc7"])
    with torch.no_grad():
        maps = net.relu1(net.conv1(some))
    assert torch.allclose(found["conv1"], cells(maps, 2), atol=1e-4) and float(found["fc7"].min()) == 0


def test_files_are_read_and_a_damaged_one_is_named(tmp_path):
    net, pixels = zflib.load("scenes56"), np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, picture in zip(paths, pixels):
        Image.fromarray(picture).save(path)
    found = zflib.features(net, paths, layers=["conv5"])["conv5"]
    in_memory = zflib.features(net, pixels.transpose(0, 3, 1, 2), layers=["conv5"])["conv5"]
    assert torch.allclose(found, in_memory, atol=1e-4)
    paths[3].write_bytes(paths[3].read_bytes()[:300])
    with pytest.raises(ValueError, match=r"^images: .*3\.png is damaged or cut short"):
        zflib.features(net, paths, layers=["conv5"])


# --- the split -------------------------------------------------------------------------------------------------------

LABELS = torch.tensor([0] * 20 + [1] * 30 + [4] * 20)[torch.randperm(70, generator=torch.Generator().manual_seed(3))]


def test_a_split_has_so_many_of_each_class_and_no_image_twice():
    train, test = split_classes(LABELS, 8, seed=5, most=15)
    assert LABELS[train].bincount().tolist() == [8, 8, 0, 0, 8]
    assert LABELS[test].bincount().tolist() == [12, 15, 0, 0, 12]
    assert not set(train.tolist()) & set(test.tolist())
    larger, _ = split_classes(LABELS, 9, seed=5)
    assert set(train.tolist()) < set(larger.tolist())
    assert not torch.equal(train, split_classes(LABELS, 8, seed=6)[0])


def test_accuracy_is_scikit_learns_own():
    """The same split, standardised by hand, RidgeClassifier, and the balanced accuracy of scikit-learn."""
    found = torch.randn(70, 9, generator=torch.Generator().manual_seed(4)) * torch.arange(1, 10) + LABELS[:, None]
    found[:, 3] = 7.0  # a dead unit
    for per_class in (3, 15):
        got = zflib.experiments.linear_accuracy(found, LABELS, per_class=per_class, draws=3, seed=2, most=6)
        for draw, value in enumerate(got.tolist()):
            train, test = split_classes(LABELS, per_class, seed=2 + draw, most=6)
            mean, spread = found[train].mean(0), found[train].std(0, correction=0).clamp(min=1e-9)
            scaled = ((found - mean) / spread).numpy()
            ridge = RidgeClassifier(transfer_learning.SHRINK * 9).fit(scaled[train], LABELS[train])
            assert value == pytest.approx(recall_score(LABELS[test], ridge.predict(scaled[test]), average="macro"))


def test_transfer_is_features_then_accuracy_and_the_same_every_time(net, images):
    shifted = images + 0.4 * LABELS.view(-1, 1, 1, 1)
    found = zflib.transfer(net, shifted, LABELS, layers=["6", "3"], per_class=5, draws=4, seed=1)
    assert list(found) == ["6", "3"] and found["3"].shape == (4,)
    for layer, values in zflib.features(net, shifted, layers=["3", "6"]).items():
        own = zflib.experiments.linear_accuracy(values, LABELS, per_class=5, draws=4, seed=1)
        assert torch.equal(own, found[layer])
    again = zflib.transfer(net, shifted, LABELS, layers=["3"], per_class=5, draws=4, seed=1)
    assert torch.equal(again["3"], found["3"])


def test_what_a_network_learnt_carries_further_than_noise():
    """On scenes, whose ten classes `zfnet56` has never seen: better than labels at random, and than chance."""
    net, world = zflib.load("zfnet56"), scenes.scenes(160, seed=3)
    found = zflib.transfer(net, world.pixels, world.labels, layers=["conv3"], per_class=8, draws=2)["conv3"]
    mixed = world.labels[torch.randperm(160, generator=torch.Generator().manual_seed(0))]
    noise = zflib.transfer(net, world.pixels, mixed, layers=["conv3"], per_class=8, draws=2)["conv3"]
    assert found.min() > 0.45 > 0.25 > noise.max()


@pytest.mark.parametrize("change, error, message", [
    ({"labels": LABELS[:60]}, ValueError, r"^labels must be \(N,\), one for each of the 70 images, got shape \(60,\)"),
    ({"labels": LABELS[:, None]}, ValueError, r"^labels must be .* got shape \(70, 1\)"),
    ({"labels": LABELS + 0.5}, TypeError, r"^labels must be integers"),
    ({"labels": ["cat", "dog"] * 35}, TypeError, r"^labels must be integers \(N,\), got names; number them: names = "),
    ({"labels": LABELS * 0}, ValueError, r"^labels must have at least two classes, got 1"),
    ({"per_class": 20}, ValueError, r"^per_class: class 0 has 20 images, 20 for training leave none .* at most 19"),
    ({"per_class": 0}, ValueError, r"^per_class must be a whole number of images, at least 1, got 0"),
    ({"draws": 0}, ValueError, r"^draws must be a whole number of draws, at least 1, got 0"),
    ({"most": 0}, ValueError, r"^most must be a whole number of images"),
    ({"seed": "one"}, ValueError, r"^seed must be a whole number, got 'one'"),
    ({"grid": 0}, ValueError, r"^grid must be a whole number of cells, at least 1, got 0"),
    ({"layers": ["7"]}, ValueError, r"^layer '7' is not in this network"),
    ({"layers": []}, ValueError, r"^layers must be at least one"),
    ({"images": 7}, TypeError, r"^images must be a tensor or array"),
])  # fmt: skip
def test_bad_input_is_one_sentence(net, images, change, error, message):
    given = {"images": images, "labels": LABELS, "layers": ["3"], "per_class": 5} | change
    with pytest.raises(error, match=message):
        zflib.transfer(net, **given)


def test_nan_and_what_is_no_map_are_refused(images):
    broken = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    nn.init.constant_(broken[0].weight, torch.nan)
    with pytest.raises(ValueError, match="layer '0' gives NaN"):
        zflib.features(broken, images, layers=["0"])
    with pytest.raises(ValueError, match=r"layer '0' gives \(32, 3, 144\); features are maps"):
        zflib.features(nn.Sequential(nn.Flatten(2)), images, layers=["0"])
    with pytest.raises(TypeError, match=r"^features must be a float tensor \(N,D\), got \(70, 3, 12, 12\)"):
        zflib.experiments.linear_accuracy(images, LABELS, per_class=5)
