"""The maintainers' commands, run as `python -m data.make.NAME` on folders of a few made-up images."""

from __future__ import annotations

import hashlib
import importlib
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import _files, data, models
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import dogs, evolution, gallery

CONVS = Conv(4, 3, padding=1, pool=True, norm=True), Conv(6, 3, padding=1, pool=True)


def run(monkeypatch, command: str, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
    runpy.run_module(f"data.make.{command}", run_name="__main__")


def network(seed: int, *, crop: int = 10) -> ZFNet:
    torch.manual_seed(seed)
    net = ZFNet(5, geometry=Geometry(crop + 2, crop, CONVS, hidden=(8,))).eval()
    net.classes, net.wnids, net.card = list("abcde"), list("ABCDE"), {"name": "small", "sha256": "of these weights"}
    return net


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder that `tiny_imagenet` takes for its own: 40 images of five classes."""
    pixels = np.random.default_rng(3).integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(f"val_{i}.JPEG\tA\n" for i in range(40)))
    monkeypatch.setattr(data, "tiny_imagenet", lambda *_: (pixels, torch.arange(40) % 5, list("ABCDE")))
    return tmp_path


def test_gallery_mines_and_writes(tiny, monkeypatch, capsys):
    net, out = network(1), tiny / "small-peaks.npz"
    monkeypatch.setattr(models, "load", lambda name: net)
    run(monkeypatch, "gallery", "small", "--data", tiny, "--out", out, "--channels", 1, "--first", 30)
    found = gallery.load_file(out)
    assert found.counts.sum() == 30 and max(found.names) < 30 and found.names[min(found.names)].startswith("val_")
    assert "conv2: purity" in capsys.readouterr().out
    net.wnids = list("FGHIJ")
    with pytest.raises(SystemExit, match="was not trained on the classes"):
        run(monkeypatch, "gallery", "small", "--data", tiny, "--out", out)


def test_gallery_mines_photographs(tmp_path, monkeypatch, capsys):
    net, out = network(1), tmp_path / "small-photographs.npz"
    wnids = json.loads((_files.SHIPPED / "squeezenet.json").read_text(encoding="utf-8"))["wnids"]
    (tmp_path / "photographs").mkdir()
    for wnid in wnids[200:212]:
        pixels = np.random.default_rng(int(wnid[1:])).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{wnid}.jpg")
    monkeypatch.setattr(models, "load", lambda name: net)
    arguments = ("--channels", 1, "--also", "conv2:3,conv2:4", "--side", 5, "--projected", 2)
    run(monkeypatch, "gallery", "small", "--photographs", tmp_path / "photographs", "--out", out, *arguments)
    found = gallery.load_file(out)
    assert {3, 4} <= set(found.chosen["conv2"].tolist()) and found.projections["conv2"].shape[1:] == (2, 3, 5, 5)
    assert found.counts.nonzero().flatten().tolist() == list(range(200, 212)) and len(found.classes) == 1000
    assert found.names[5] == f"{wnids[205]}.jpg" and set(found.labels["conv1"].flatten().tolist()) <= set(
        range(200, 212)
    )
    assert "conv2: purity" in capsys.readouterr().out


def test_evolution_numbers_images_as_the_whole_set_does(tiny, monkeypatch):
    nets = {1: network(1), 5: network(5)}
    monkeypatch.setattr(models, "snapshots", lambda name: nets)
    monkeypatch.setattr(models, "load", lambda name: nets[5])
    monkeypatch.setattr(evolution._files, "SHIPPED", tiny)
    out = tiny / "small-evolution.npz"
    run(monkeypatch, "evolution", "small", "--data", tiny, "--out", out, "--every", 4, "--channels", 2)
    found = evolution.load("small")
    assert list(found) == ["conv1", "conv2"] and found["conv1"].epochs.tolist() == [1, 5]
    images = data.centre_crop(nets[5].normalise(torch.from_numpy(data.tiny_imagenet()[0])), 10)
    pick = found["conv2"].channels
    values = evolution.Deconvnet(nets[5]).activations(images[::4], "conv2")[:, pick].flatten(2).amax(2)  # (10,2)
    assert torch.equal(found["conv2"].images[-1], 4 * values.argmax(dim=0))


def test_dogs_writes_rounded_numbers(tmp_path, monkeypatch):
    folder, rows = tmp_path / "val" / "images", []
    folder.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"val_{i}.JPEG")
        digest = hashlib.sha256((folder / f"val_{i}.JPEG").read_bytes()).hexdigest()
        places = {"right eye": [20, 44 + i], "left eye": [21 + i, 20], "nose": [40, 30 - i]}
        rows.append({"image": f"val_{i}.JPEG", "wnid": "n02085620", "sha256": digest, **places})
    (tmp_path / "dogs.json").write_text(json.dumps({"note": "noise", "dogs": rows}))
    known, net, out = dogs.annotations(tmp_path / "dogs.json"), network(1, crop=56), tmp_path / "numbers.json"
    for name, value in {"annotations": lambda: known, "SIZES": (11,), "DRAWS": 2, "LAYERS": ("fc3",)}.items():
        monkeypatch.setattr(dogs, name, value)
    monkeypatch.setattr(models, "load", lambda name: net)
    run(monkeypatch, "dogs", "--network", "small", "--data", tmp_path, "--out", out)
    found = dogs.load(net, out)
    assert (found["network"], found["sha256"], found["images"]) == ("small", "of these weights", 3)
    delta = found["layers"]["fc3"]["rows"]["nose"]["delta"]
    assert 0 < delta < 1 and delta == round(delta, 6)


@pytest.mark.parametrize("command, arguments, message", [
    ("evolution", ["nothing"], "name 'nothing' has no snapshots here"),
    ("evolution", ["zfnet56"], "there is no Tiny ImageNet in"),
    ("gallery", ["nothing"], "name 'nothing' is not a network"),
    ("gallery", ["zfnet56"], "there is no Tiny ImageNet in"),
    ("dogs", ["--network", "nothing"], "name 'nothing' is not a network"),
    ("dogs", [], "there is no .*; give the folder that holds val/images"),
])  # fmt: skip
def test_a_command_ends_with_one_sentence(command, arguments, message, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=rf"^data.make.{command}: .*{message}"):
        run(monkeypatch, command, *arguments, "--data", tmp_path / "nowhere", "--out", tmp_path / "out")


def test_occlusion_measures_every_photograph(tmp_path, monkeypatch):
    command, out = importlib.import_module("data.make.occlusion"), tmp_path / "agreement.json"
    monkeypatch.setattr(command, "NETWORKS", {"small": (14, 7)})
    monkeypatch.setattr(command, "SIZES", (216,))
    monkeypatch.setattr(command, "COUNT", 4)
    monkeypatch.setattr(models, "load", lambda name: network(1, crop=40))
    monkeypatch.setattr(data, "photo_names", lambda: ["chelsea", "coffee"])
    command.main(["--out", str(out)])
    found = json.loads(out.read_text())["networks"]["small"]
    assert found["sha256"] == "of these weights" and list(found["photographs"]) == ["chelsea", "coffee"]
    for row in found["photographs"].values():
        assert len(row["others"]) == 4 and len(row["wholes"]) <= 1
        assert all(-1 <= value <= 1 for value in (row["own"], *row["others"], *row["wholes"]))


def test_answers_counts_those_that_a_move_leaves(tiny, monkeypatch):
    command, out, net = importlib.import_module("data.make.answers"), tiny / "kept.json", network(1)
    net.fc3.weight.data *= 1e4  # sure of everything
    pixels = torch.from_numpy(data.tiny_imagenet()[0])
    images = data.centre_crop(net.normalise(pixels), 10)
    named = net(images).argmax(dim=1)
    named[:10] = (named[:10] + 1) % 5  # ten wrong names do not count
    monkeypatch.setattr(data, "tiny_imagenet", lambda *_: (pixels.numpy(), named, list("ABCDE")))
    monkeypatch.setattr(models, "load", lambda name: net)
    monkeypatch.setattr(command, "MOVES", {"small": {"8 px down": command.Move(down=8)}})
    command.main(["--data", str(tiny), "--photographs", str(tiny), "--out", str(out)])
    shifted = torch.zeros_like(images)
    shifted[:, :, 8:] = images[:, :, :-8]
    kept = (net(shifted).argmax(dim=1) == named)[10:].float().mean()
    found = json.loads(out.read_text())["small"]
    assert (found["images"], found["sha256"]) == (30, "of these weights")
    assert 0 < kept < 1 and found["kept"]["8 px down"][0] == pytest.approx(float(kept), abs=1e-4)
