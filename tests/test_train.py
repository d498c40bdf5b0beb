"""The training loop: exact resuming, folding, renormalisation, the schedule, and the numbers it reports."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import filters, train
from zflib.models import Conv, Geometry, ZFNet

TINY = Geometry(12, 10, (Conv(4, 3, padding=1, pool=True, norm=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))
RECIPE = replace(train.RECIPES["modern"], epochs=2, batch=8)


def images(n: int = 40, seed: int = 0) -> train.Images:
    generator = np.random.default_rng(seed)
    return train.Images(
        generator.integers(0, 256, (n, 3, 12, 12), dtype=np.uint8), torch.from_numpy(generator.integers(0, 7, n)), 10
    )


def network(batch_norm: bool = True) -> ZFNet:
    torch.manual_seed(5)
    net = ZFNet(7, geometry=TINY, batch_norm=batch_norm)
    net.scale.fill_(60)
    return net


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_a_run_stopped_anywhere_continues_bit_for_bit(tmp_path, monkeypatch, stop):
    whole = network()
    train.train(whole, images(), images(20, 1), RECIPE, tmp_path / "whole")

    monkeypatch.setattr(train, "SAVE_EVERY", -1.0)  # a checkpoint after every step
    steps, real = [], train.learning_rate

    def interrupted(*args):
        steps.append(1)
        if len(steps) > stop:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(train, "learning_rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(network(), images(), images(20, 1), RECIPE, tmp_path / "cut")
    monkeypatch.setattr(train, "learning_rate", real)
    resumed = network()
    train.train(resumed, images(), images(20, 1), RECIPE, tmp_path / "cut")
    assert same(whole, resumed)
    logs = [[json.loads(l) | {"images_per_second": 0} for l in (tmp_path / d / "log.jsonl").read_text().splitlines()]
            for d in ("whole", "cut")]  # fmt: skip
    assert logs[0] == logs[1] and [row["epoch"] for row in logs[0]] == [1, 2]


def test_a_torn_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    train.train(network(), images(), images(20, 1), replace(RECIPE, epochs=1), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        train.save_atomically({"a": torch.ones(3)}, tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_folding_keeps_the_function():
    net = network()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    batch = torch.randn(3, 3, 10, 10)
    folded = filters.fold(net)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(folded(batch), net.eval()(batch), rtol=1e-4, atol=1e-5)


def test_renormalise_rescales_only_filters_beyond_the_radius():
    net = network(batch_norm=False)
    with torch.no_grad():
        net.conv1.weight[0] = 3.0
        net.conv1.weight[1] = 0.05
        net.fc3.weight.fill_(3.0)
    small = net.conv1.weight[1].detach().clone()
    train.renormalise(net, radius=0.1)
    assert float(net.conv1.weight[0].detach().square().mean().sqrt()) == pytest.approx(0.1, rel=1e-5)
    assert torch.equal(net.conv1.weight[1], small)
    assert bool((net.fc3.weight == 3.0).all())
    with pytest.raises(ValueError, match="radius must be positive"):
        train.renormalise(net, radius=0)


def test_outer_ring_share_of_noise_a_flat_filter_and_a_checkerboard():
    conv = nn.Conv2d(3, 512, 7)
    torch.manual_seed(0)
    nn.init.normal_(conv.weight)
    assert filters.outer_ring_share(conv) == pytest.approx(24 / 49, abs=0.02)
    nn.init.ones_(conv.weight)
    assert filters.outer_ring_share(conv) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        conv.weight[:] = (-1.0) ** (torch.arange(7)[:, None] + torch.arange(7))
    assert filters.outer_ring_share(conv) > 0.9


def test_limit_ring_holds_every_filter_to_its_share_and_leaves_clean_ones_alone():
    conv = nn.Conv2d(3, 4, 7)
    torch.manual_seed(1)
    with torch.no_grad():
        conv.weight[2] = torch.hann_window(7, periodic=False)[:, None] * torch.hann_window(7, periodic=False)
    before = conv.weight.detach().clone()
    filters.limit_ring(conv, 0.1)
    for i in range(4):
        one = nn.Conv2d(3, 1, 7)
        one.weight = nn.Parameter(conv.weight[i : i + 1].detach())
        assert filters.outer_ring_share(one) <= 0.1 + 1e-5
    torch.testing.assert_close(conv.weight[2].detach(), before[2], rtol=1e-4, atol=1e-5)
    ring = filters._outer_ring(7)
    spectra = [torch.fft.fft2(w) for w in (before, conv.weight.detach())]
    torch.testing.assert_close(spectra[0][..., ~ring], spectra[1][..., ~ring], rtol=1e-4, atol=1e-4)


def test_one_cycle_rises_then_falls_to_zero_and_a_plateau_anneals():
    recipe = replace(RECIPE, epochs=10, lr=1.0, warmup=0.2)
    rates = [train.learning_rate(recipe, train.Progress(epoch=e, step=s), 10) for e in range(10) for s in range(10)]
    assert max(rates) == pytest.approx(1.0) and rates.index(max(rates)) == 20
    assert rates[:20] == sorted(rates[:20]) and rates[20:] == sorted(rates[20:], reverse=True) and rates[-1] < 1e-3
    progress = train.Progress(lr=0.01)
    for top1 in (10.0, 11.0, 11.0, 10.5):
        train._anneal(train.RECIPES["paper"], progress, top1)
    assert progress.lr == pytest.approx(1e-3)


def test_an_epoch_sees_every_image_once_at_every_corner():
    plan = train.epoch_plan(images(4000), RECIPE, 3)
    assert sorted(plan[0].tolist()) == list(range(4000))
    assert set(map(tuple, plan[1].tolist())) == {(t, l) for t in range(3) for l in range(3)}
    assert 0.45 < plan[2].float().mean() < 0.55
    again, other = train.epoch_plan(images(4000), RECIPE, 3), train.epoch_plan(images(4000), RECIPE, 4)
    assert torch.equal(plan[0], again[0]) and not torch.equal(plan[0], other[0])


def test_a_batch_is_cut_and_mirrored_where_the_plan_says():
    some = images(3)
    batch = some.batch(torch.tensor([2, 0]), torch.tensor([[1, 2], [0, 0]]), torch.tensor([False, True]))
    assert np.array_equal(batch[0].numpy(), some.pixels[2, :, 1:11, 2:12])
    assert np.array_equal(batch[1].numpy(), some.pixels[0, :, :10, :10][..., ::-1])


class Answers(ZFNet):
    """Says the class that is written into an image's first pixel."""

    def forward(self, batch):
        label = self.denormalise(batch)[:, 0].amax(dim=(1, 2)).round().long()
        return torch.nn.functional.one_hot(label, 7).float()


@pytest.mark.parametrize("ten_crop", [False, True])
def test_accuracy_counts_hits(ten_crop):
    net = Answers(7, geometry=TINY)
    labels = torch.arange(20) % 7
    pixels = np.zeros((20, 3, 12, 12), np.uint8) + labels.numpy().astype(np.uint8)[:, None, None, None]
    assert train.accuracy(net, train.Images(pixels, labels, 10), batch=6, ten_crop=ten_crop)["top1"] == 100
    wrong = train.accuracy(net, train.Images(pixels, (labels + (torch.arange(20) < 5)) % 7, 10), ten_crop=ten_crop)
    assert wrong["top1"] == 75


def test_finish_measures_what_it_saved(tmp_path):
    net = network()
    net.classes, net.wnids = list("abcdefg"), [f"n{i}" for i in range(7)]
    train.train(net, images(), images(20, 1), RECIPE, tmp_path)
    card = train.finish(net, images(20, 1), RECIPE, tmp_path, "python -m zflib.train")
    loaded = zflib.models.load_file(tmp_path / "final.pt")
    measured = train.accuracy(loaded, images(20, 1))
    assert loaded.card["accuracy"]["centre crop"] == measured == card["accuracy"]["centre crop"]
    assert loaded.card["epochs"] == 2 and len(loaded.card["curve"]) == 2 and loaded.classes == net.classes
