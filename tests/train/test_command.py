"""The training command as one types it; by night killed and continued, and shared by two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import _arguments
from zflib.data import scenes
from zflib.train import run
from zflib.train.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["--recipe", "scenes", "--network", "scenes56", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two classes in the layout of Tiny ImageNet: dark and light noise, 64 images to train and 20 to validate each."""
    root, noise = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    lines = []
    for value, wnid in enumerate(["n01", "n02"]):
        for split, count in (("train", 64), ("val", 20)):
            folder = root / split / (f"{wnid}/images" if split == "train" else "images")
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = noise.integers(90 * value, 90 * value + 100, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{i}.JPEG")
                lines += [f"{wnid}_{i}.JPEG\t{wnid}\t0\t0\t63\t63"] if split == "val" else []
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n01\tnight\nn02\tday\n")
    return root


def test_it_prints_a_line_for_each_epoch_and_ships_a_network_with_its_card(data, tmp_path, capsys):
    out = tmp_path / "whole"
    main([*TRAIN, "--data", str(data), "--out", str(out)])
    first, second, accuracy = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["epoch"], second["epoch"]) == (1, 2) and set(accuracy) == {"centre crop", "ten-crop"}
    card = json.loads((out / "final.json").read_text())
    assert card["command"].endswith("--epochs 2 --seed 0 --out runs/whole") and "--recipe scenes" in card["command"]
    assert card["wnids"] == ["n01", "n02"] and card["classes"] == ["night", "day"]
    assert card["accuracy"] == accuracy and [row["epoch"] for row in card["curve"]] == [1, 2]


def test_the_images_are_decoded_before_the_processes_meet(data, tmp_path, monkeypatch):
    """By the first process, for all: the others only read what it wrote."""
    caches = [data / "val-pixels.npy", data / "train-pixels.npy"]
    for cache in caches:
        cache.unlink(missing_ok=True)
    monkeypatch.setattr(run.distributed, "wait", lambda: 1 / 0)
    for rank in (1, 0):
        monkeypatch.setattr(run.distributed, "rank", lambda rank=rank: rank)
        with pytest.raises(ZeroDivisionError):
            main([*TRAIN, "--data", str(data), "--out", str(tmp_path / "run")])
        assert [cache.is_file() for cache in caches] == [rank == 0] * 2


STAND_IN = "import os, sys; sys.exit(os.environ.get('OMP_WAIT_POLICY'))"


@pytest.mark.parametrize("own, expected", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_from_before_torch_is_imported(tmp_path, own, expected):
    """torch reads it once; a stand-in for torch tells what it would have read, and your own setting wins."""
    (tmp_path / "torch.py").write_text(STAND_IN)
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(tmp_path)} | ({"OMP_WAIT_POLICY": own} if own else {})
    done = subprocess.run(
        [sys.executable, "-m", "zflib.train"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stderr.strip() == expected


WRONG = {
    "recipe: epochs must be at least 1, got 0": ["--out", "run", "--epochs", "0"],
    "--out is needed": [],
    "--device gpu cannot be used here": ["--out", "run", "--device", "gpu"],
    "--device cuda:99 cannot be used here": ["--out", "run", "--device", "cuda:99"],
    "zfnet56 was not trained on the classes of scenes": ["--measure", "zfnet56"],
    "or python -m zflib.train --download to fetch 248 MB": ["--out", "run", "--data", "nowhere"],
}


@pytest.mark.parametrize("message", WRONG)
def test_the_command_ends_with_one_sentence(message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = scenes.scenes(12)
    monkeypatch.setattr(run.scenes, "scenes", lambda count, **_: few)
    with pytest.raises(SystemExit) as caught:
        main(["--data", "scenes", *WRONG[message]])
    said = str(caught.value) if caught.value.code != 2 else capsys.readouterr().err.splitlines()[-1]
    assert message in said and "\n" not in said and not list(tmp_path.iterdir())


def test_a_system_error_names_its_file(tmp_path):
    with pytest.raises(SystemExit, match=r"^x: .*nowhere: No such file or directory$"), _arguments.one_sentence("x"):
        (tmp_path / "nowhere").read_text()


# --- by night: real processes ----------------------------------------------------------------------------------------


def started(data: Path, out: Path, *launcher: str) -> subprocess.Popen:
    command = [sys.executable, "-m", *launcher, "zflib.train", *TRAIN, "--threads", "1"]
    return subprocess.Popen([*command, "--data", str(data), "--out", str(out)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip


def rows(process: subprocess.Popen) -> list[dict]:
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err[-2000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> tuple[Path, list[dict]]:
    """A run that nobody disturbed: its folder, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, rows(started(data, out))


@pytest.mark.nightly
def test_killed_and_called_again_it_ends_in_the_same_weights(data, whole, tmp_path):
    process = started(data, tmp_path / "killed")
    until = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoint.pt").exists():  # after the first epoch
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "final.json").exists()
    assert [row["epoch"] for row in rows(started(data, tmp_path / "killed"))[:-1]] == [2]
    ends = [torch.load(out / "epoch002.pt", weights_only=True) for out in (whole[0], tmp_path / "killed")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.nightly
def test_torchrun_shares_the_batches_between_two_processes(data, whole, tmp_path):
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    shared = rows(started(data, tmp_path / "two", *launcher))
    assert [row["epoch"] for row in shared[:-1]] == [1, 2]
    assert shared[0]["loss"] == pytest.approx(whole[1][0]["loss"], rel=0.1)
    assert json.loads((tmp_path / "two" / "final.json").read_text())["processes"] == 2
