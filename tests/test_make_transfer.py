"""The commands behind notebook 13, on a few made-up photographs: rows, what a killed run continues from, training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data.make import transfer, transfer_training
from data.make.transfer import Row
from zflib import data, experiments, models
from zflib.models import Conv, Geometry, ZFNet

CONVS = Conv(4, 7, stride=4, pool=True, norm=True), Conv(6, 3, pool=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight photographs of each of three classes, some greener than others, and a small network."""
    generator, paths = np.random.default_rng(0), []
    for number in range(24):
        pixels = generator.integers(0, 256, (70, 64, 3), dtype=np.uint8)
        pixels[..., 1] = pixels[..., 1] // 4 + 60 * (number // 8)
        paths.append(tmp_path / f"{number:02d}.png")
        Image.fromarray(pixels).save(paths[-1])
    torch.manual_seed(0)
    net = ZFNet(5, geometry=Geometry(64, 56, CONVS, hidden=(8,))).eval().requires_grad_(False)
    monkeypatch.setattr(data, "caltech101", lambda root: (paths, torch.arange(24) // 8, list("abc")))
    monkeypatch.setattr(models, "load", lambda name: net)
    monkeypatch.setattr(transfer, "ZFNET", ("conv1", "conv2", "fc3"))
    rows = [Row("small", "conv2", 2), Row("small", "conv2", 4), Row("small", "fc3", 2, "projected to 200")]
    monkeypatch.setattr(transfer, "rows", lambda: rows)
    return tmp_path


def run(folder, *named, command=transfer):
    command.main([*named, "--data", "anywhere", "--work", str(folder / "work"), "--out", str(folder / "found.json")])
    return json.loads((folder / "found.json").read_text())["rows"]


def test_rows_are_what_the_public_functions_give_and_say_how_they_were_made(folder):
    rows = run(folder)
    pixels, labels = transfer.pixels_of("anywhere", folder)
    values = experiments.features(models.load("small"), torch.from_numpy(pixels), layers=["conv2"])["conv2"]
    own = experiments.linear_accuracy(values, labels, per_class=4)
    assert rows["small conv2 4"]["accuracy"] == pytest.approx(own.tolist(), abs=0.05)  # features in half precision
    assert rows["small conv2 4"]["command"] == "python -m data.make.transfer 'small conv2 4'"
    assert rows["small fc3 projected to 200 2"]["features"] == 200


def test_what_is_there_is_not_measured_again_unless_it_is_named(folder, monkeypatch):
    before = run(folder)
    monkeypatch.setattr(transfer, "measure", lambda *_: ([0.5], 7))
    assert run(folder) == before
    after = run(folder, "small conv2 2")
    assert after["small conv2 2"]["accuracy"] == [0.5]
    assert after["small conv2 4"] == before["small conv2 4"]
    with pytest.raises(SystemExit, match=r"^data.make.transfer: rows: 'conv9' is none of small conv2 2, small conv2 4"):
        run(folder, "conv9")


def test_averages_and_chosen_classes():
    maps = torch.randn(5, 300, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(transfer.averaged(maps.flatten(1)), maps.mean(dim=(2, 3)), atol=1e-6)
    some = transfer.some_classes(maps.flatten(1), 7)
    assert all((maps.mean(dim=(2, 3)) - column[:, None]).abs().amin(dim=1).max() < 1e-6 for column in some.T)
    whole = torch.randn(5, 3 * 49, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(transfer.pooled(whole, 1), whole.view(5, 3, 49).mean(dim=2), atol=1e-6)
    directions = transfer.principal(torch.randn(9, 4) @ torch.diag(torch.tensor([9.0, 1, 0.1, 0.1])), 2)
    assert directions.var(dim=0)[1] > directions.var(dim=0)[0]


def test_a_photograph_of_56_pixels_is_enlarged_for_the_larger_network(folder):
    pixels, _ = transfer.pixels_of("anywhere", folder)
    large = transfer.Enlarged(pixels)[3]
    assert large.shape == (3, 256, 256) and large.dtype == torch.uint8
    assert abs(float(large.float().mean()) - float(pixels[3].mean())) < 1


def test_training_goes_on_after_a_kill_and_begins_with_the_other_tasks_weights(folder, monkeypatch):
    recipe = replace(transfer_training.SCRATCH, epochs=2, batch=4, sizes=(40,))
    monkeypatch.setattr(models, "ZFNET56", models.load("small").geometry)
    pixels, labels = transfer.pixels_of("anywhere", folder)
    whole = transfer_training.train_and_test(pixels, labels, recipe, 4, 0, folder / "whole")

    def killed(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(transfer_training.Run, "epoch", killed)
        transfer_training.train_and_test(pixels, labels, recipe, 4, 0, folder / "parts")
    assert transfer_training.train_and_test(pixels, labels, recipe, 4, 0, folder / "parts") == whole

    net, trained = ZFNet(3, geometry=models.ZFNET56), models.load("small")
    transfer_training.take_weights(net, trained)
    assert torch.equal(net.conv2.weight, trained.conv2.weight) and net.fc4.weight.shape == (3, 8)
