"""What notebook 13 reads, draws and compares."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestCentroid

from zflib.data import scenes
from zflib.studies import transfer


@pytest.fixture
def measured(tmp_path):
    def row(network, layer, per_class, accuracy, change=""):
        return {"network": network, "layer": layer, "per_class": per_class, "change": change, "accuracy": accuracy}

    rows = {f"small conv1 {n}": row("small", "conv1", n, [n / 100, n / 50]) for n in (30, 5, 10)}
    rows["small conv1 averaged 30"] = row("small", "conv1", 30, [0.9], "averaged")
    for draw, value in enumerate((0.2, 0.3)):
        rows[f"scratch 15 draw {draw}"] = {"network": "zfnet56", "per_class": 15, "accuracy": [value]}
    path = tmp_path / "transfer.json"
    path.write_text(json.dumps({"rows": rows}))
    return transfer.Measured(path)


def test_rows_become_curves_and_layers_in_per_cent(measured):
    curve = measured.curve("small", "conv1")
    assert list(curve) == [5, 10, 30] and torch.allclose(curve[10], torch.tensor([10.0, 20.0]))
    assert measured.layers("small", ["conv1", "conv1 averaged"])["conv1 averaged"].item() == pytest.approx(90)
    assert torch.allclose(measured.trained("scratch")[15], torch.tensor([20.0, 30.0]))
    with pytest.raises(ValueError, match="name 'large conv1 30' is no row; there are small conv1 30, "):
        measured.layers("large", ["conv1"])


def test_how_many_images_are_needed_is_read_off_between_the_points():
    curve = {10: torch.tensor([40.0]), 40: torch.tensor([59.0, 61.0])}
    assert transfer.images_needed(curve, 50) == pytest.approx(20)  # half-way in the logarithm
    assert transfer.images_needed(curve, 60) == pytest.approx(40)
    assert transfer.images_needed(curve, 30) == 10 and transfer.images_needed(curve, 61) == float("inf")
    assert transfer.told(curve[40]) == "60.0 ± 1.4" and transfer.told(curve[10]) == "40.0"


def test_every_number_is_drawn_where_it_is(measured):
    ax = transfer.draw_curves(plt.subplots()[1], {"small": measured.curve("small", "conv1")})
    assert ax.lines[0].get_xydata()[:, 1].tolist() == pytest.approx([7.5, 15, 45])
    assert {text.get_text() for text in ax.texts} == {"small", "paper, pretrained", "paper, from scratch"}
    ax = transfer.draw_layers(plt.subplots()[1], measured.layers("small", ["conv1", "conv1 averaged"]), name="small")
    assert ax.lines[0].get_ydata() == pytest.approx([45, 90]) and ax.lines[1].get_ydata() == pytest.approx([30, 60])
    ax = transfer.draw_bars(plt.subplots()[1], {"one": torch.tensor([20.0, 40.0]), "two": torch.tensor([50.0])})
    assert [bar.get_width() for bar in ax.patches] == [30, 50] and ax.patches[0].get_y() > ax.patches[1].get_y()
    _, axes = plt.subplots(1, 2)
    transfer.draw_in_place(axes, transfer.Measured())  # the shipped numbers
    assert [len(ax.patches) for ax in axes] == [len(transfer.IN_PLACE)] * 2


def test_neighbours_of_other_photographs_one_of_each():
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.25, 3.0])
    features, owners = torch.stack([angles.cos(), angles.sin()], dim=1), torch.tensor([0, 0, 1, 1, 2, 3])
    assert transfer.nearest(features, 0, 2).tolist() == [1, 2]
    assert transfer.nearest_elsewhere(features, owners, 0, 3).tolist() == [2, 4, 5]
    shares = transfer.same_class(features, owners, k=2)
    assert shares[0] == 0.5 and shares[5] == 0
    sheet = transfer.neighbour_sheet(torch.zeros(6, 3, 8, 8, dtype=torch.uint8), owners, (0, 4), {"angle": features})
    assert sheet.shape[1] == 2000 and sheet.shape[0] > 1900  # two rows of two


def test_means_classify_as_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 3
    values = torch.randn(40, 4, generator=generator) + labels[:, None]
    guesses = NearestCentroid().fit(values[::2], labels[::2]).predict(values[1::2])
    found = transfer.validated({"a": values, "b": values[:, :1]}, labels, transfer.by_means)
    assert float(found[0]) == pytest.approx(balanced_accuracy_score(labels[1::2], guesses))


def test_tasks_are_the_truth_about_the_scenes():
    world = scenes.scenes(40, seed=2)
    tasks = transfer.tasks(world)
    assert torch.equal(tasks["object"], world.labels) and torch.equal(tasks["background"], world.backgrounds)
    assert torch.equal(tasks["turned"] == 1, world.pose[:, 3] > 0)
