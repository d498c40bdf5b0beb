"""Feature evolution: strongest images by brute force, jumps, how settling is measured, and the files of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import zflib
from data.make import ship as shipping
from zflib import _files, data, models, train
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import evolution

TINY = Geometry(12, 10, (Conv(4, 3, padding=1, pool=True, norm=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))


def network(seed: int) -> ZFNet:
    torch.manual_seed(seed)
    return ZFNet(7, geometry=TINY).eval()


def pixels(n: int = 70) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, 3, 12, 12), dtype=np.uint8)


def test_every_snapshot_finds_its_own_winner_and_draws_it_with_its_own_weights():
    nets = {5: network(5), 1: network(1)}
    found = evolution.evolve(nets, pixels(), layers={"conv1": [3, 0], "conv2": [5]})
    assert found["conv1"].epochs.tolist() == [1, 5] and found["conv2"].projections.shape == (2, 1, 3, 10, 10)
    for row, epoch in enumerate((1, 5)):
        deconvnet = zflib.Deconvnet(nets[epoch])
        images = data.centre_crop(nets[epoch].normalise(torch.from_numpy(pixels())), 10)
        strongest = deconvnet.activations(images, "conv1").flatten(2).amax(2)[:, [3, 0]]  # (70,2)
        assert torch.equal(found["conv1"].images[row], strongest.argmax(0))
        for column, channel in enumerate((3, 0)):
            winner = images[found["conv1"].images[row, column]][None]
            expected = deconvnet.project(winner, "conv1", channel)[0]
            torch.testing.assert_close(found["conv1"].projections[row, column], expected, rtol=1e-4, atol=1e-6)


def test_what_was_found_before_is_drawn_as_in_one_go():
    nets, layers = {5: network(5), 1: network(1)}, {"conv1": [3, 0], "conv2": [5]}
    peaks = {epoch: zflib.find_peaks(net, pixels(), layers=list(layers), k=4) for epoch, net in nets.items()}
    found, wanted = evolution.drawn(nets, pixels(), peaks, layers), evolution.evolve(nets, pixels(), layers=layers)
    for layer in layers:
        assert torch.equal(found[layer].images, wanted[layer].images)
        torch.testing.assert_close(found[layer].projections, wanted[layer].projections)


def test_a_small_run_is_grown_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(evolution, "SCENES", 64)
    nets, accuracy = evolution.grow(replace(evolution.small_recipe(), epochs=1))
    assert list(nets) == [0, 1] and len(accuracy) == 1 and nets[1].layer_names[-1] == "pool5"
    assert not torch.equal(nets[0].conv1.weight, nets[1].conv1.weight)
    pixels = evolution.world().pixels
    peaks = {epoch: zflib.find_peaks(net, pixels, layers=["conv1", "conv5"], k=9) for epoch, net in nets.items()}
    evolution.save_run(evolution.SmallRun(nets, peaks, accuracy), tmp_path / "run.npz")
    again = evolution.load_run(tmp_path / "run.npz")
    assert again.accuracy == accuracy and again.nine("conv5").shape == (2, 48, 9)
    for epoch, net in nets.items():
        assert torch.equal(again.peaks[epoch]["conv1"].positions, peaks[epoch]["conv1"].positions)
        assert torch.equal(again.peaks[epoch]["conv5"].images, peaks[epoch]["conv5"].images)
        torch.testing.assert_close(again.nets[epoch].conv5.weight, net.conv5.weight, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="makes it"):
        evolution.load_run(tmp_path / "nothing.npz")


def test_the_shipped_run_has_every_epoch_and_its_own_winners():
    run = evolution.load_run()
    assert list(run.nets) == list(range(13)) and len(run.accuracy) == 12 and run.accuracy[-1] > 95
    assert run.values("conv3").shape == (13, 64, 9)
    few = evolution.world().pixels[run.nine("conv5")[12, 42]]  # the nine strongest of channel 42
    found = zflib.Deconvnet(run.nets[12]).activations(data.centre_crop(run.nets[12].normalise(few), 56), "conv5")
    torch.testing.assert_close(found[:, 42].amax(dim=(1, 2)), run.values("conv5")[12, 42], rtol=0.02, atol=0.02)


def test_a_jump_is_another_winner_than_before():
    images = torch.tensor([[1, 7], [1, 8], [2, 8]])
    blank = torch.zeros(3, 2)
    found = evolution.Evolution(torch.tensor([1, 2, 5]), torch.tensor([0, 1]), images, blank, blank, blank)
    assert found.jumps.tolist() == [[False, False], [False, True], [True, False]]
    assert torch.equal(evolution.changed(images), found.jumps)
    assert evolution.changed(images[:1]).tolist() == [[False, False]]


def test_a_cosine_is_of_one_filter_whatever_its_size():
    last = torch.randn(3, 2, 3, 3)
    filters = torch.stack([2 * last[0], -last[1], torch.zeros(2, 3, 3)])
    torch.testing.assert_close(evolution.cosines(filters, last), torch.tensor([1.0, -1.0, 0.0]))


def test_agreement_is_one_with_itself_and_follows_the_closed_form():
    last, same, turned = network(0), network(0), network(0)
    with torch.no_grad():
        turned.conv1.weight[0].neg_()  # one of four filters has cosine -1: (1 + 1 + 1 - 1) / 4
        same.conv1.weight.mul_(2.5)  # a filter's size is not its shape
    agreement = evolution.filter_agreement({1: turned, 2: same, 9: last}, "conv1")
    assert agreement == pytest.approx({1: 0.5, 2: 1.0, 9: 1.0}, abs=1e-6)
    images = torch.randn(5, 3, 10, 10)
    responses = evolution.response_agreement({1: network(1), 9: last}, images, "conv2")
    assert responses[9] == pytest.approx(1, abs=1e-5)
    maps = [zflib.Deconvnet(net).activations(images, "conv2") for net in (network(1), last)]
    flat = [m.transpose(0, 1).flatten(1).numpy() for m in maps]
    by_hand = np.mean([np.corrcoef(a, b)[0, 1] if a.std() * b.std() else 0.0 for a, b in zip(*flat)])
    assert responses[1] == pytest.approx(by_hand, abs=1e-5)


def test_an_image_is_held_at_its_last_place():
    nets, images = {1: network(1), 5: network(5)}, torch.randn(2, 3, 10, 10)
    views = evolution.held(nets, images, "conv2", [3, 0])
    maps = zflib.Deconvnet(nets[5]).activations(images, "conv2")[[0, 1], [3, 0]]
    assert views.shape == (2, 2, 3, 10, 10)
    for c, channel in enumerate((3, 0)):
        place = divmod(int(maps[c].argmax()), maps.shape[-1])
        for row, net in enumerate(nets.values()):
            expected = zflib.Deconvnet(net).project(images[[c]], "conv2", channel, positions=place)[0]
            torch.testing.assert_close(views[row, c], expected, rtol=1e-4, atol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="an iterator gives each image once"):
        evolution.evolve({1: network(0)}, iter(torch.rand(3, 3, 10, 10)), layers={"conv1": [0]})
    with pytest.raises(IndexError, match=r"index 4 is out of bounds .* size 4"):
        evolution.evolve({1: network(0)}, pixels(), layers={"conv1": [4]})
    with pytest.raises(ValueError, match=r"layer 'conv1' has 4 channels \(0 to 3\), got -1"):
        evolution.evolve({1: network(0)}, pixels(), layers={"conv1": [-1]})
    with pytest.raises(ValueError, match="'nothing' has no evolution here"):
        evolution.load("nothing")


def test_a_run_is_shipped_with_its_snapshots_and_their_evolution(tmp_path, monkeypatch):
    recipe = replace(train.RECIPES["modern"], epochs=3, batch=8, sizes=())
    net, shipped = ZFNet(7, geometry=TINY, batch_norm=True), tmp_path / "data"
    net.classes, net.wnids = list("abcdefg"), list("ABCDEFG")
    images = train.Images(pixels(16), torch.arange(16) % 7, 10)
    train.train(net, images, images, recipe, tmp_path / "run")
    train.finish(net, images, recipe, tmp_path / "run", card={"name": "small", "data": "noise", "command": "none"})
    shipped.mkdir()
    monkeypatch.setattr(_files, "SHIPPED", shipped)
    assert [p.name for p in shipping.ship(tmp_path / "run", "small", folder=shipped)] == [
        "small.pt", "small-epoch001.pt", "small-epoch002.pt",
    ]  # fmt: skip
    assert models.shipped() == ["small", "squeezenet"]
    nets = models.snapshots("small")
    assert list(nets) == [1, 2, 3] and nets[3].layer_names[-1] == "pool2"
    whole, image = models.load("small"), torch.randn(1, 3, 10, 10)
    for layer in ("conv1", "conv2"):
        kept = zflib.Deconvnet(whole).activations(image, layer)
        assert torch.equal(zflib.Deconvnet(nets[3]).activations(image, layer), kept)
    raw = torch.load(tmp_path / "run" / "epoch001.pt", weights_only=True)
    assert torch.equal(nets[1].conv2.weight, raw["conv2.weight"].float())
    assert nets[2].card["curve"] == [json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[1])]
    found = evolution.evolve(nets, pixels(), layers={"conv1": [0, 2], "conv2": [1]})
    evolution.save(found, shipped / "small-evolution.npz")
    with pytest.raises(ValueError, match="made with other weights of small"):
        evolution.load("small")
    found["conv1"].labels = found["conv1"].images % 7
    evolution.save(found, shipped / "small-evolution.npz", network=whole.card["sha256"])
    again = evolution.load("small")
    assert torch.equal(again["conv1"].labels, found["conv1"].labels) and again["conv2"].labels is None
    for layer, value in found.items():
        assert torch.equal(again[layer].images, value.images) and torch.equal(again[layer].positions, value.positions)
        torch.testing.assert_close(again[layer].projections, value.projections, rtol=1e-3, atol=1e-4)
