"""The training command as one types it: killed and continued, and shared by two processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["--recipe", "modern", "--network", "scenes56", "--epochs", "2", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two classes in the layout of Tiny ImageNet: dark and light noise, 150 images to train and 20 to validate each."""
    root, noise = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    lines = []
    for value, wnid in enumerate(["n01", "n02"]):
        for split, count in (("train", 150), ("val", 20)):
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


def started(data: Path, out: Path, *launcher: str) -> subprocess.Popen:
    command = [sys.executable, "-m", *launcher, "zflib.train", *TRAIN, "--data", str(data), "--out", str(out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
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


def test_it_prints_a_line_for_each_epoch_and_ships_a_network_with_its_card(whole):
    out, (first, second, accuracy) = whole
    assert (first["epoch"], second["epoch"]) == (1, 2) and set(accuracy) == {"centre crop", "ten-crop"}
    card = json.loads((out / "final.json").read_text())
    assert card["command"].endswith("--epochs 2 --seed 0 --out runs/whole") and "--recipe modern" in card["command"]
    assert card["wnids"] == ["n01", "n02"] and card["classes"] == ["night", "day"]
    assert card["accuracy"] == accuracy and [row["epoch"] for row in card["curve"]] == [1, 2]


def test_killed_and_called_again_it_ends_in_the_same_weights(data, whole, tmp_path):
    process = started(data, tmp_path / "killed")
    until = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoint.pt").exists():  # after the first epoch
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "final.json").exists()
    assert [row["epoch"] for row in rows(started(data, tmp_path / "killed"))[:-1]] == [2]
    ends = [torch.load(out / "epoch002.pt", weights_only=True) for out in (whole[0], tmp_path / "killed")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_torchrun_takes_the_same_steps_with_two_processes(data, whole, tmp_path):
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    shared = rows(started(data, tmp_path / "two", *launcher))
    for one, two in zip(whole[1][:2], shared[:2], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3) and two["epoch"] == one["epoch"]
    assert json.loads((tmp_path / "two" / "final.json").read_text())["processes"] == 2
