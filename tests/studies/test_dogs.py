"""The dogs' annotations, the numbers that are shipped, and how they are computed; no image of theirs is needed."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

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


def test_the_numbers_are_what_correspondence_gives(root, monkeypatch):
    net = zflib.load("scenes56")
    known = dogs.annotations(root / "dogs.json")
    monkeypatch.setattr(dogs, "annotations", lambda: known)
    monkeypatch.setattr(dogs, "SIZES", (9,))
    monkeypatch.setattr(dogs, "DRAWS", 2)
    monkeypatch.setattr(dogs, "LAYERS", ("fc7",))
    found = made.measure(net, root)
    assert (found["network"], found["sha256"], found["images"]) == ("scenes56", net.card["sha256"], 4)
    images = net.preprocess(made.paths(root, known))
    boxes = occluders.boxes_around(known.parts["nose"] - 4, dogs.SIZE, 56)
    for layer in dogs.LAYERS:
        score, row = correspondence(net, images, boxes, layer=layer), found["layers"][layer]["rows"]["nose"]
        for name in ("delta", "spread", "null", "changed_fraction", "ratio", "z"):
            assert row[name] == pytest.approx(
                getattr(score, "std" if name == "spread" else name), rel=1e-4, abs=1e-5
            ), name
        assert row["sparse_delta"] == pytest.approx(score.strongest(dogs.SHARE).delta, abs=1e-5)
        assert row["p"] == pytest.approx(score.p_value(), abs=1e-5)
        assert set(found["layers"][layer]["rows"]) == {*dogs.PARTS, "random", "same place"}
        assert set(found["layers"][layer]["sizes"]) == {"9"}
        assert all(0 <= value <= 1 for one in found["layers"][layer]["same part"].values() for value in one.values())


def test_the_table_controls_are_what_they_say():
    net, where = zflib.load("scenes56"), {"one": torch.full((3, 2), 10), "two": torch.full((3, 2), 40)}
    table = made.Rows(net, torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0)), where, draws=2)
    maps = table.score("same place", "conv1", 11, 1).changes.view(3, 24, 28, 28).abs().sum(1) > 0
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])  # one place for all
    free = table.score("random", "conv1", 11, 1).changes.view(3, 24, 28, 28)
    assert float(free[:, :, 4:7, 4:7].abs().max()) == 0 and float(free[:, :, 18:22, 18:22].abs().max()) == 0
    assert table.rows("conv1")["random"]["delta"] == pytest.approx(
        (table.score("random", "conv1").delta + table.score("random", "conv1", 11, 1).delta) / 2
    )
    assert set(table.against_random("conv1")) == {"one", "two"} and set(table.same_part("conv1")) == {"one / two"}


def test_the_shipped_numbers_are_of_the_shipped_network(recwarn):
    net = zflib.load("zfnet56")
    found = dogs.load(net)
    assert not recwarn.list, "python -m data.make.dogs must be run again for this zfnet56"
    assert found["images"] == len(dogs.annotations()) and found["size"] == dogs.SIZE
    for layer in dogs.LAYERS:
        for row in found["layers"][layer]["rows"].values():
            assert 0 < row["delta"] < 1 and 0 < row["changed_fraction"] < 1 and 0 < row["p"] <= 1
            assert row["ratio"] == pytest.approx(row["delta"] / row["null"], rel=0.02)
        assert set(found["layers"][layer]["sizes"]) == {str(size) for size in dogs.SIZES}


def test_numbers_of_another_network_say_so():
    with pytest.warns(UserWarning, match="computed with another zfnet56 than yours"):
        dogs.load(zflib.load("scenes56"))
