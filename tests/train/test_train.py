"""The training loop: exact resuming, folding, renormalisation, the schedule, and the numbers it reports."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zflib
from zflib import data, train
from zflib.models import Conv, Geometry, ZFNet
from zflib.train import checkpoints, distributed, filters, recipes, scoring, steps

TINY = Geometry(12, 10, (Conv(4, 3, padding=1, pool=True, norm=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))
RECIPE = replace(train.RECIPES["modern"], epochs=2, batch=8, sizes=(8, 10))


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

    monkeypatch.setattr(steps, "SAVE_EVERY", -1.0)  # a checkpoint after every step
    taken, real = [], steps.learning_rate

    def interrupted(*args):
        taken.append(1)
        if len(taken) > stop:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(steps, "learning_rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(network(), images(), images(20, 1), RECIPE, tmp_path / "cut")
    monkeypatch.setattr(steps, "learning_rate", real)
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
        checkpoints.save_atomically({"a": torch.ones(3)}, tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def forkserver():
    """A context whose processes begin with torch imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zflib.train"])
    return context


def two_processes(function, *arguments) -> None:
    """function(rank, *arguments) in two processes; an error of one is raised here."""
    forkserver()
    torch.multiprocessing.start_processes(function, arguments, nprocs=2, start_method="forkserver")


def killed_run(out: str) -> None:
    """A whole run in a process of its own, checkpoints after every step, as slow as a kill needs to hit it."""
    torch.set_num_threads(1)
    steps.SAVE_EVERY = -1.0
    train.train(network(), images(160), images(20, 1), RECIPE, Path(out), report=lambda row: None)


@pytest.mark.nightly
def test_killed_ten_times_at_random_moments_it_ends_in_the_same_weights(tmp_path):
    """SIGKILL, so nothing is tidied up, in a run that spends most of its time writing checkpoints."""
    context = forkserver()
    context.Process(target=killed_run, args=(str(tmp_path / "warm"),)).start()
    whole = context.Process(target=killed_run, args=(str(tmp_path / "whole"),))
    whole.start()
    whole.join()
    moments, kills = random.Random(time.time_ns()), 0
    while kills < 10:
        process = context.Process(target=killed_run, args=(str(tmp_path / "killed"),))
        process.start()
        process.join(moments.uniform(0.05, 0.4))
        if process.exitcode == 0:
            (tmp_path / "killed" / "checkpoint.pt").unlink(missing_ok=True)  # too quick for the killer: once more
            continue
        process.kill()
        process.join()
        kills += 1
    last = context.Process(target=killed_run, args=(str(tmp_path / "killed"),))
    last.start()
    last.join()
    weights = [torch.load(tmp_path / name / "epoch002.pt", weights_only=True) for name in ("whole", "killed")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not list((tmp_path / "killed").glob(".*"))  # what killed writers left is gone


HOLDS = """
import sys
from filelock import FileLock, Timeout
try:
    with FileLock(sys.argv[1], timeout=0):
        print("held", flush=True)
        sys.stdin.read()
except Timeout:
    print("refused", flush=True)
"""


def another_process(out: Path) -> subprocess.Popen:
    """A process that holds a run's folder, as `train` does, until it is killed."""
    return subprocess.Popen([sys.executable, "-c", HOLDS, str(out / "lock")], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip


def test_a_folder_in_which_another_process_trains_is_refused_until_that_is_killed(tmp_path):
    other, net = another_process(tmp_path), network()
    before = copy.deepcopy(net)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=r"out: another run is training into .*; wait for it or choose a new folder"):
        train.train(net, images(), images(20, 1), RECIPE, tmp_path)
    assert same(net, before) and [path.name for path in tmp_path.iterdir()] == ["lock"]
    other.send_signal(signal.SIGKILL)
    other.communicate()
    train.train(net, images(), images(20, 1), replace(RECIPE, epochs=1), tmp_path)


def test_a_run_holds_its_folder_until_it_ends_or_fails(tmp_path):
    def ask(row):
        answers.append(another_process(tmp_path).communicate(timeout=60)[0])
        raise KeyboardInterrupt

    answers = []
    with pytest.raises(KeyboardInterrupt):
        train.train(network(), images(), images(20, 1), RECIPE, tmp_path, report=ask)
    assert answers == ["refused\n"] and another_process(tmp_path).communicate(timeout=60)[0] == "held\n"


def test_a_checkpoint_of_another_recipe_or_network_is_refused(tmp_path):
    net = network()
    train.train(net, images(), images(20, 1), replace(RECIPE, epochs=1), tmp_path)
    trained = copy.deepcopy(net)
    with pytest.raises(ValueError, match=r"another recipe, it differs in lr, seed; choose a new folder"):
        train.train(net, images(), images(20, 1), replace(RECIPE, epochs=1, lr=1.0, seed=4), tmp_path)
    assert same(net, trained)
    wider = ZFNet(7, geometry=replace(TINY, hidden=(9,)), batch_norm=True)
    before = copy.deepcopy(wider)
    with pytest.raises(ValueError, match="another network; choose a new folder"):
        train.train(wider, images(), images(20, 1), replace(RECIPE, epochs=1), tmp_path)
    assert same(wider, before)


def test_snapshots_are_kept_at_the_chosen_epochs_and_the_last(tmp_path):
    rows = []
    train.train(network(), images(), images(20, 1), replace(RECIPE, epochs=4), tmp_path, report=rows.append)
    assert sorted(path.name for path in tmp_path.glob("epoch*")) == ["epoch001.pt", "epoch002.pt", "epoch004.pt"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows == [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


DAMAGE = {
    "cut": ("checkpoint.pt", shortened),
    "junk": ("checkpoint.pt", lambda path: path.write_bytes(b"no checkpoint")),
    "lacking": ("checkpoint.pt", lambda path: torch.save({"net": {}}, path)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_named(tmp_path, damage):
    net, (name, harm) = network(), DAMAGE[damage]
    train.train(net, images(), images(20, 1), replace(RECIPE, epochs=1), tmp_path)
    trained = copy.deepcopy(net)
    harm(tmp_path / name)
    with pytest.raises(ValueError, match=f"out: .*{name} is damaged; remove it or choose a new folder"):
        train.train(net, images(), images(20, 1), replace(RECIPE, epochs=1), tmp_path)
    assert same(net, trained)


REFUSED = {
    "net must be a zflib.ZFNet, got Sequential": {"net": nn.Sequential()},
    "net must give scores, but it ends with its conv": {
        "net": ZFNet(0, geometry=replace(TINY, hidden=None), batch_norm=True)
    },
    "recipe: it says batch_norm=True; make the network": {"net": ZFNet(7, geometry=TINY)},
    "images: 7 are fewer than one batch of 8": {"images": images(7)},
    "images: crop must be the network's 10, got 8": {"images": replace(images(), crop=8)},
    "images: labels must be classes from 0 to 6, got 7": {"images": replace(images(), labels=images().labels + 1)},
    "validation: labels must be .* got -1": {"validation": replace(images(), labels=images().labels - 1)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_changes(tmp_path, message):
    given = {"net": network(), "images": images(), "validation": images(20, 1), "recipe": RECIPE,
             "out": tmp_path / "run"} | REFUSED[message]  # fmt: skip
    before = copy.deepcopy(given["net"])
    with pytest.raises((TypeError, ValueError), match=message):
        train.train(*given.values())
    assert not list(tmp_path.iterdir())
    assert before is None or same(given["net"], before)


@pytest.mark.parametrize("change, message", [
    ({"labels": torch.zeros(40)}, r"labels must be an int64 tensor \(40,\), as the pixels, got torch.float32"),
    ({"labels": torch.zeros(39).long()}, r"labels must be an int64 tensor \(40,\), .* got torch.int64 \(39,\)"),
    ({"pixels": np.zeros((40, 3, 12, 12))}, r"pixels must be a uint8 array \(N,3,R,R\), .* got float64"),
    ({"pixels": np.zeros((40, 12, 12, 3), np.uint8)}, r"pixels must be .* got uint8 \(40, 12, 12, 3\)"),
    ({"pixels": np.zeros((40, 3, 9, 9), np.uint8)}, "pixels must .* at least the crop of 10, got"),
    ({"pixels": np.zeros((40, 3, 12, 11), np.uint8)}, "pixels must be .*, got .* 12, 11"),
])  # fmt: skip
def test_what_is_no_labelled_set_is_refused(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        replace(images(), **change)


@pytest.mark.parametrize("field, value", [("epochs", 0), ("schedule", "constant"), ("linear_init", "xavier")])
def test_a_recipe_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=rf"recipe: {field} must be .*, got "):
        replace(RECIPE, **{field: value})


def test_recipes_come_back_from_their_cards():
    for recipe in train.RECIPES.values():
        again = recipes.Recipe(**json.loads(json.dumps(asdict(recipe))))
        assert replace(again, sizes=tuple(again.sizes)) == recipe


def test_training_stops_at_the_first_nan(tmp_path):
    with pytest.raises(
        ValueError, match=r"net gives a loss of (nan|inf) in epoch 1, step \d; train it again with a sm"
    ):
        train.train(network(), images(), images(20, 1), replace(RECIPE, lr=1e30), tmp_path)
    assert not (tmp_path / "log.jsonl").exists()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def one_of(rank: int, world: int, port: int, recipe: dict, out: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)
    recipe = recipes.Recipe(**recipe)
    with distributed.joined(torch.device("cpu")):
        net = network(recipe.batch_norm)
        train.train(net, images(), images(21, 1), recipe, Path(out) / "two", report=lambda row: None)
        torch.save(net.state_dict(), Path(out) / f"rank{rank}.pt")
        net.classes, net.wnids = list("abcdefg"), list("ABCDEFG")
        card = train.finish(net, images(21, 1), recipe, Path(out) / "two", card={})
        shipped = zflib.models.load_file(Path(out) / "two" / "final.pt")
        assert card["accuracy"]["ten-crop"] == train.accuracy(shipped, images(21, 1), ten_crop=True)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["paper", "scale-jitter"])
def test_two_processes_share_every_batch(tmp_path, name):
    """Without dropout and batch normalisation, which see a part of the batch, their numbers are those of one."""
    recipe = replace(train.RECIPES[name], epochs=2, batch=8, dropout=0, sizes=RECIPE.sizes if name != "paper" else ())
    alone = network(recipe.batch_norm)
    train.train(alone, images(), images(21, 1), recipe, tmp_path / "one", report=lambda row: None)
    two_processes(one_of, 2, free_port(), asdict(recipe), str(tmp_path))
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    moved = network(recipe.batch_norm).state_dict()
    for key, value in alone.state_dict().items():
        assert torch.equal(both[0][key], both[1][key]), key
        if name == "paper":
            torch.testing.assert_close(both[0][key], value, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(moved["conv1.weight"], both[0]["conv1.weight"])
    logs = [[json.loads(line)["loss"] for line in (tmp_path / d / "log.jsonl").open()] for d in ("one", "two")]
    assert logs[1] == pytest.approx(logs[0], rel=1e-3 if name == "paper" else 0.05)


def refused(rank: int, port: int, out: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    with distributed.joined(torch.device("cpu")), pytest.raises(ValueError, match="out: another run is training into"):
        train.train(network(), images(), images(21, 1), RECIPE, Path(out))


@pytest.mark.nightly
def test_all_processes_of_a_second_run_are_refused(tmp_path):
    other = another_process(tmp_path)
    assert other.stdout.readline() == "held\n"
    two_processes(refused, free_port(), str(tmp_path))
    other.communicate()


def late(rank: int, port: int, out: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    with distributed.joined(torch.device("cpu")):
        assert distributed.total(rank + 1, device=torch.device("cpu")) == [3]
        time.sleep(0.5 * (1 - rank))  # the first is still busy when the second has finished
        (Path(out) / f"done{rank}").write_text(str(time.time()))
    (Path(out) / f"left{rank}").write_text(str(time.time()))


@pytest.mark.nightly
def test_no_process_leaves_while_another_is_busy(tmp_path):
    """A closed connection would end the other's last step with an error."""
    two_processes(late, free_port(), str(tmp_path))
    moment = {path.name: float(path.read_text()) for path in tmp_path.iterdir()}
    assert moment["done0"] - moment["done1"] > 0.2
    assert min(moment["left0"], moment["left1"]) >= moment["done0"]


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 3)
    with pytest.raises(ValueError, match="batch 128 cannot be shared by 3 processes; choose a number that divides it"):
        distributed.share(128)


def test_every_image_counts_as_much_in_the_mean():
    some, net = images(501), network(batch_norm=False)
    some.pixels[500] = 255  # alone in its part
    steps.prepare(net, some, replace(train.RECIPES["paper"], batch=8))
    torch.testing.assert_close(net.mean, torch.from_numpy(some.pixels.mean(0)).float(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("least_area", [None, 0.3])
def test_a_batch_is_cut_mirrored_and_resized_as_the_plan_says(tmp_path, least_area):
    """Mean images too: (image - mean) is cut, mirrored and resized in one piece."""
    recipe = replace(train.RECIPES["paper"], batch=8, least_area=least_area, sizes=(9,) if least_area else ())
    net, some = network(batch_norm=False), images()
    steps.prepare(net, some, recipe)
    torch.testing.assert_close(net.mean, torch.from_numpy(some.pixels.mean(0)).float(), rtol=1e-4, atol=1e-3)
    inputs, labels = next(steps.Run(net, some, recipe, tmp_path).batches())
    order, sides, corners, mirrored = steps.epoch_plan(some, recipe, 0)
    assert set(mirrored[:8].tolist()) == {True, False}
    assert set(sides.tolist()) == ({7, 8, 9, 10, 11, 12} if least_area else {10})
    for row in range(8):
        whole = net.normalise(torch.from_numpy(some.pixels[order[row]]))
        (top, left), side = corners[row].tolist(), int(sides[row])
        patch = whole[None, :, top : top + side, left : left + side]
        if least_area:
            patch = F.interpolate(patch, size=(9, 9), mode="bilinear", antialias=True)
        torch.testing.assert_close(inputs[row], (patch.flip(-1) if mirrored[row] else patch)[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(labels, some.labels[order[:8]])


def test_ten_crops_take_a_mean_image_along():
    net, pixels = network(batch_norm=False), torch.from_numpy(images(2).pixels)
    net.mean = torch.rand(3, 12, 12) * 255
    crops = data.ten_crop(net.normalise(pixels), 10)
    torch.testing.assert_close(net.normalise(data.centre_crop(pixels, 10)), crops[:, 4])
    torch.testing.assert_close(net.denormalise(crops[:, 4]), data.centre_crop(pixels, 10).float())


def test_a_network_with_a_mean_image_is_saved_and_loaded(tmp_path):
    net = network(batch_norm=False)
    net.classes, net.wnids, net.mean = list("abcdefg"), list("ABCDEFG"), torch.rand(3, 12, 12) * 255
    zflib.models.save(net, tmp_path / "net", {})
    assert torch.equal(zflib.models.load_file(tmp_path / "net.pt").mean, net.mean.half().float())
    assert torch.equal(filters.fold(net).mean, net.mean)


def test_small_crops_first_and_the_adaptive_pool_is_the_pool_at_the_full_size():
    recipe = replace(RECIPE, epochs=12, sizes=(40, 48, 56))
    crops = torch.randn(2, 3, 56, 56)
    assert [recipes.input_side(recipe, epoch, 56) for epoch in range(12)] == [40] * 4 + [48] * 4 + [56] * 4
    assert recipes.input_side(replace(recipe, sizes=()), 3, 56) == 56
    for net in (zflib.zfnet56(batch_norm=True), zflib.alexnet56(batch_norm=True), zflib.scenes56(batch_norm=True)):
        net.eval()
        before = net(crops)
        steps.prepare(net, train.Images(np.zeros((1, 3, 64, 64), np.uint8), torch.zeros(1).long(), 56),
                     replace(recipe, scale=float(net.scale)))  # fmt: skip
        assert isinstance(net.pool5, nn.AdaptiveMaxPool2d)
        adaptive = net(crops)
        net.pool5 = nn.MaxPool2d(3, 2, ceil_mode=True)
        assert torch.equal(net(crops), adaptive) and not torch.equal(before, adaptive)


def test_the_papers_recipe_is_the_papers():
    paper = train.RECIPES["paper"]
    assert (paper.batch, paper.momentum, paper.lr, paper.dropout, paper.init_std) == (128, 0.9, 1e-2, 0.5, 1e-2)
    assert (paper.epochs, paper.renormalise, paper.per_pixel_mean, paper.batch_norm) == (70, 0.1, True, False)
    net = network(batch_norm=False)
    recipes.initialise(net, paper)
    assert float(net.fc4.weight.std()) == pytest.approx(1e-2, rel=0.2) and float(net.fc4.bias.abs().max()) == 0
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5]


@pytest.mark.parametrize("name", ["paper", "modern"])
def test_the_seed_decides_every_weight_whatever_was_drawn_before(name):
    def weights(before: int, seed: int) -> torch.Tensor:
        torch.manual_seed(before)
        net, recipe = network(), replace(train.RECIPES[name], seed=seed)
        steps.prepare(net, train.Images(np.zeros((1, 3, 12, 12), np.uint8), torch.zeros(1).long(), 10), recipe)
        return torch.cat([value.flatten() for value in net.state_dict().values()])

    assert torch.equal(weights(1, 0), weights(2, 0)) and not torch.equal(weights(1, 0), weights(1, 5))


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
    rates = [recipes.learning_rate(recipe, recipes.Progress(epoch=e, step=s), 10) for e in range(10) for s in range(10)]
    assert max(rates) == pytest.approx(1.0) and rates.index(max(rates)) == 20
    assert rates[:20] == sorted(rates[:20]) and rates[20:] == sorted(rates[20:], reverse=True) and rates[-1] < 1e-3
    progress = recipes.Progress(lr=0.01)
    for top1 in (10.0, 11.0, 11.0, 10.5):
        recipes.anneal(train.RECIPES["paper"], progress, top1)
    assert progress.lr == pytest.approx(1e-3)


def test_an_epoch_sees_every_image_once_at_every_corner():
    order, sides, corners, mirrored = steps.epoch_plan(images(4000), RECIPE, 3)
    assert sorted(order.tolist()) == list(range(4000)) and set(sides.tolist()) == {10}
    assert set(map(tuple, corners.tolist())) == {(t, l) for t in range(3) for l in range(3)}
    assert 0.45 < mirrored.float().mean() < 0.55
    again, other = steps.epoch_plan(images(4000), RECIPE, 3), steps.epoch_plan(images(4000), RECIPE, 4)
    assert torch.equal(order, again[0]) and not torch.equal(order, other[0])


def test_crops_of_varying_size_have_evenly_spread_areas_and_lie_anywhere_inside():
    pixels = np.broadcast_to(np.uint8(0), (20000, 3, 100, 100))
    large = train.Images(pixels, torch.zeros(20000).long(), 90)
    order, sides, corners, _ = steps.epoch_plan(large, replace(RECIPE, least_area=0.36), 0)
    assert sorted(order.tolist()) == list(range(20000)) and (int(sides.min()), int(sides.max())) == (60, 100)
    areas = (sides / 100).square().sort().values
    even = torch.linspace(0.36, 1, 20000)
    assert float((areas - even).abs().max()) < 0.02  # Kolmogorov and Smirnov's distance, and half a pixel's rounding
    ends = corners + sides[:, None]
    assert int(corners.min()) == 0 and int(ends.max()) == 100
    slack = (100 - sides).float()
    middle = corners.float().mean(1)[sides == 80]
    assert float(middle.mean()) == pytest.approx(float(slack[sides == 80].mean()) / 2, abs=0.5)


def test_crops_from_the_whole_area_up_show_the_whole_image(tmp_path):
    recipe = replace(RECIPE, least_area=1.0, sizes=(), mirror=False)
    some, net = images(), network()
    steps.prepare(net, some, recipe)
    inputs, _ = next(steps.Run(net, some, recipe, tmp_path).batches())
    order = steps.epoch_plan(some, recipe, 0)[0][:8]
    whole = net.normalise(torch.from_numpy(some.pixels[order]))
    expected = F.interpolate(whole, size=(10, 10), mode="bilinear", antialias=True)
    torch.testing.assert_close(inputs, expected, rtol=1e-5, atol=1e-5)


def test_the_plan_of_varying_sizes_is_a_function_of_the_seed():
    """The draws in their order: permutation, areas, corners, mirrors; cards that name a seed depend on it."""
    generator = torch.Generator().manual_seed(7 * 1_000_003 + 2)
    order, areas = torch.randperm(40, generator=generator), 0.5 + 0.5 * torch.rand(40, generator=generator)
    sides = (12 * areas**0.5).round().long()
    corners = (torch.rand(40, 2, generator=generator) * (13 - sides)[:, None]).long()
    mirrored = torch.rand(40, generator=generator) < 0.5
    plan = steps.epoch_plan(images(), replace(RECIPE, least_area=0.5, seed=7), 2)
    assert all(torch.equal(*pair) for pair in zip(plan, (order, sides, corners, mirrored), strict=True))


def test_label_smoothing_spreads_its_share_over_all_classes(tmp_path):
    """Szegedy et al. 2015: (1 - e) of the loss of the label, e of the mean loss of all classes."""
    recipe = replace(RECIPE, label_smoothing=0.2, dropout=0.0)
    net, some = network(), images()
    steps.prepare(net, some, recipe)
    run = steps.Run(net, some, recipe, tmp_path)
    inputs, labels = next(run.batches())
    losses = -copy.deepcopy(net)(inputs).log_softmax(-1)  # (8,7)
    expected = (0.8 * losses[torch.arange(8), labels] + 0.2 * losses.mean(-1)).mean()
    assert run.step(inputs, labels) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_batch_is_cut_and_mirrored_where_the_plan_says():
    some = images(3)
    corners, mirrored = torch.tensor([[1, 2], [0, 0]]), torch.tensor([False, True])
    batch = scoring.cut(some.pixels, torch.tensor([2, 0]), corners, mirrored, crop=10)
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
    card = train.finish(net, images(20, 1), RECIPE, tmp_path, card={"command": "python"})
    loaded = zflib.models.load_file(tmp_path / "final.pt")
    measured = train.accuracy(loaded, images(20, 1))
    assert loaded.card["accuracy"]["centre crop"] == measured == card["accuracy"]["centre crop"]
    assert loaded.card["epochs"] == 2 and len(loaded.card["curve"]) == 2 and loaded.classes == net.classes


def test_finish_takes_any_path_and_needs_an_epoch(tmp_path):
    net = network()
    net.classes, net.wnids = list("abcdefg"), list("ABCDEFG")
    for content in (None, ""):
        if content is not None:
            (tmp_path / "log.jsonl").write_text(content)
        with pytest.raises(ValueError, match=r"out: .* holds no finished epoch; call train with it first"):
            train.finish(net, images(20, 1), RECIPE, str(tmp_path), card={})
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n')
    assert train.finish(net, images(20, 1), RECIPE, str(tmp_path), card={})["epochs"] == 1


@pytest.mark.parametrize("fails", [False, True])
def test_accuracy_leaves_every_mode_as_it_was(fails, monkeypatch):
    net = network().train()
    net.bn1.eval()
    modes = [module.training for module in net.modules()]
    if fails:
        monkeypatch.setattr(scoring, "scores", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.accuracy(net, images())
    else:
        train.accuracy(net, images())
    assert [module.training for module in net.modules()] == modes


@pytest.mark.parametrize("ten_crop", [False, True])
def test_a_network_that_gives_nan_has_no_accuracy(ten_crop):
    net = network()
    net.fc4.weight.data[2, 3] = torch.nan
    with pytest.raises(ValueError, match="net gives NaN for 40 of 40 images; train it again with a smaller lr"):
        train.accuracy(net, images(), ten_crop=ten_crop)
