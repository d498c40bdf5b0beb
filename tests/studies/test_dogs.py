"""The dogs' annotations, the numbers that are shipped, and how they are computed; no image of theirs is needed."""

from __future__ import annotations

import hashlib
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import t

import zflib
from data.make import dogs as made
from zflib.experiments import occluders
from zflib.experiments.part_correspondence import correspondence
from zflib.studies import dogs


@pytest.fixture
def root(tmp_path):
    """A folder as Tiny ImageNet's, with four noisy images, and annotations of them."""
    folder, generator = tmp_path / "val" / "images", np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for i in range(4):
        name = f"val_{i}.JPEG"
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / name, "JPEG")
        sum256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        places = {"right eye": [20, 44 + i], "left eye": [21 + i, 20], "nose": [40, 30 - i]}
        rows.append({"image": name, "wnid": "n02085620", "sha256": sum256, **places})
    (tmp_path / "dogs.json").write_text(json.dumps({"note": "noise", "dogs": rows}))
    return tmp_path


def test_there_are_enough_dogs_with_everything_known():
    known = dogs.annotations()
    assert len(known) >= 10 and len(set(known.images)) == len(known) == len(known.sums) == len(known.wnids)
    assert set(known.wnids) <= set(zflib.load("zfnet56").wnids) and len(set(known.wnids)) >= 3
    assert all(len(one) == 64 for one in known.sums) and all(name.startswith("val_") for name in known.images)
    assert "one pixel" in known.note


def test_the_places_are_those_of_frontal_faces():
    """Right and left are the viewer's, eyes about level, the nose below and between them, all in the middle 56."""
    parts = dogs.annotations().parts
    left, right, nose = (parts[name].double() for name in ("left eye", "right eye", "nose"))
    apart = right[:, 1] - left[:, 1]
    assert bool((apart >= 12).all()) and bool(((right - left)[:, 0].abs() < 0.3 * apart).all())
    below = nose[:, 0] - (left[:, 0] + right[:, 0]) / 2
    assert bool((below > 0.3 * apart).all())
    assert bool(((nose[:, 1] > left[:, 1]) & (nose[:, 1] < right[:, 1])).all())
    for where in (left, right, nose):
        assert bool(((where >= 4) & (where < 60)).all())


def test_files_that_are_other_images_are_refused(root):
    known = dogs.annotations(root / "dogs.json")
    assert [path.name for path in made.paths(root, known)] == list(known.images)
    (root / "val" / "images" / "val_2.JPEG").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"val_2\.JPEG is not the image that was annotated"):
        made.paths(root, known)
    with pytest.raises(FileNotFoundError, match="give the folder that holds val/images"):
        made.paths(root / "nowhere", known)


@pytest.fixture
def table():
    """Four noisy images with two parts, and a small network."""
    images = torch.randn(4, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    where = {"one": torch.full((4, 2), 10), "two": torch.tensor([[40, 40], [38, 41], [40, 36], [44, 40]])}
    return dogs.Table(zflib.load("scenes56"), images, where)


def test_the_table_controls_are_what_they_say(table):
    maps = table.score("same place", "conv1", 11, 1).changes.view(4, 24, 28, 28).abs().sum(1) > 0
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[3])  # one place for all
    free = table.score("random", "conv1", 11, 1).changes.view(4, 24, 28, 28)
    assert float(free[:, :, 4:7, 4:7].abs().max()) == 0


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_scores_are_what_correspondence_gives(table, share):
    scores = dogs.Scores(table, "fc7", share=share, draws=3)
    parts = [table.score(part, "fc7").strongest(share) for part in ("one", "two")]
    assert scores.mean("one")[0] == pytest.approx(parts[0].delta)
    assert scores.mean("eyes and nose")[0] == pytest.approx((parts[0].delta + parts[1].delta) / 2)
    assert scores.mean("one", relative=True)[0] == pytest.approx(parts[0].ratio, rel=1e-5)
    drawn = [table.score("random", "fc7", seed=seed).strongest(share).delta for seed in range(3)]
    assert scores.draws("random").tolist() == pytest.approx(drawn)
    crossed = [float((parts[0].signs[i] != parts[1].signs[j]).double().mean())
               for i in range(4) for j in range(4) if i != j]  # fmt: skip
    assert scores.mean("another part")[0] == pytest.approx(sum(crossed) / len(crossed), abs=1e-6)


def test_a_difference_has_the_spread_of_dogs_and_of_places(table):
    scores = dogs.Scores(table, "fc7", draws=3)
    found, error = scores.difference("one", "random")
    assert found == pytest.approx(scores.mean("one")[0] - scores.mean("random")[0])
    without = []
    for left in range(4):
        kept = torch.tensor([dog for dog in range(4) if dog != left])
        without.append(float(scores.draws("one", kept).mean() - scores.draws("random", kept).mean()))
    over_dogs = 3 / 4 * sum((one - sum(without) / 4) ** 2 for one in without)
    assert error**2 == pytest.approx(over_dogs + float(scores.draws("random").var()) / 3, rel=1e-5)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, error = dogs.jackknife(lambda chosen: float(values[chosen].mean()), 9)
    assert found == pytest.approx(float(values.mean())) and error == pytest.approx(float(values.std()) / 3)


def test_what_is_written(root, monkeypatch):
    known = dogs.annotations(root / "dogs.json")
    for name, value in {"annotations": lambda: known, "SIZES": (9,), "DRAWS": 2, "LAYERS": ("fc7",)}.items():
        monkeypatch.setattr(dogs, name, value)
    net = zflib.load("scenes56")
    found = made.measure(net, root)
    assert (found["network"], found["sha256"], found["images"]) == ("scenes56", net.card["sha256"], 4)
    layer = found["layers"]["fc7"]
    score = correspondence(
        net, net.preprocess(made.paths(root, known)), occluders.boxes_around(known.parts["nose"] - 4, 11, 56),
        layer="fc7",
    )  # fmt: skip
    assert layer["rows"]["nose"]["delta"] == pytest.approx(score.strongest(0.05).delta, abs=1e-6)
    assert layer["all units"]["rows"]["nose"]["delta"] == pytest.approx(score.ratio, rel=1e-5)
    assert set(layer["sizes"]) == {"9"} and set(layer["against"]) == set(dogs.CONTROLS)
    one = layer["against"]["random"]
    assert one["difference"] == pytest.approx(
        layer["rows"]["eyes and nose"]["delta"] - layer["rows"]["random"]["delta"]
    )
    assert one["p"] == pytest.approx(2 * t.sf(abs(one["difference"] / one["error"]), 3))


def test_the_shipped_numbers_are_of_the_shipped_network(recwarn):
    net = zflib.load("zfnet56")
    found = dogs.load(net)
    assert not recwarn.list, "python -m data.make.dogs must be run again for this zfnet56"
    assert found["images"] == len(dogs.annotations()) and found["size"] == dogs.SIZE and found["draws"] == dogs.DRAWS
    for layer in dogs.LAYERS:
        numbers = found["layers"][layer]
        assert set(dogs.ROWS) < set(numbers["rows"]) and set(numbers["sizes"]) == {str(size) for size in dogs.SIZES}
        assert all(0 < row["delta"] < numbers["null"] and row["error"] > 0 for row in numbers["rows"].values())
        assert [len(numbers["rows"][name]["draws"]) for name in ("nose", "random", "same place")] == [1, 20, 20]
        assert numbers["sizes"]["11"] == numbers["against"]


def test_table_1_is_drawn_with_the_papers_values():
    ax = dogs.draw_table(plt.subplots()[1], dogs.load(), "fc7")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(dogs.ROWS.values())
    drawn = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert sorted(drawn) == [0.068, 0.069, 0.069, 0.073]


def test_numbers_of_another_network_say_so():
    with pytest.warns(UserWarning, match="computed with another zfnet56 than yours"):
        dogs.load(zflib.load("scenes56"))
