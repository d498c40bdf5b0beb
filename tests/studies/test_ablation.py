"""The ablation of notebook 12: its networks, its costs and its errors against torch and brute force."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zflib import _files
from zflib.data import scenes
from zflib.models import ZFNET, ZFNet
from zflib.studies import ablation
from zflib.studies.ablation import FULL, VARIANTS
from zflib.train import Images


@pytest.fixture(scope="module")
def world():
    made = scenes.scenes(96, seed=3)
    return Images(made.pixels.numpy(), made.labels, crop=56)


def test_what_is_taken_away_is_gone_and_the_rest_is_there():
    assert [conv.channels for conv in ablation.without(FULL, 3, 4).convs] == [16, 48, 48]
    assert ablation.without(FULL, 6, 7).hidden == () and ablation.without(FULL, 7).hidden == (256,)
    assert VARIANTS["without fc7"].widths == {
        "conv1": 16, "conv2": 48, "conv3": 64, "conv4": 64, "conv5": 48, "fc6": 256, "fc7": 0
    }  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_network_and_its_costs_are_what_torch_counts(name):
    net = ZFNet(200, geometry=VARIANTS[name].geometry)
    with FlopCounterMode(display=False) as counter:
        assert net(torch.zeros(1, 3, 56, 56)).shape == (1, 200)
    costs = ablation.costs(VARIANTS[name].geometry, 200)
    assert 2 * sum(cost for _, cost in costs.values()) == counter.get_total_flops()
    assert sum(count for count, _ in costs.values()) == sum(p.numel() for p in net.parameters() if p.dim() > 1)


def test_the_papers_network_has_62_million_weights():
    convs = 96 * 3 * 49 + 256 * 96 * 25 + 384 * 256 * 9 + 384 * 384 * 9 + 256 * 384 * 9
    assert sum(count for count, _ in ablation.costs(ZFNET).values()) == convs + 4096 * (256 * 36 + 4096 + 1000)


def test_errors_by_counting():
    generator = torch.Generator().manual_seed(0)
    probabilities, labels = torch.rand(50, 12, generator=generator), torch.randint(0, 12, (50,), generator=generator)
    ranks = [int((row > row[label]).sum()) for row, label in zip(probabilities, labels)]
    wanted = {"top1": 2.0 * sum(rank > 0 for rank in ranks), "top5": 2.0 * sum(rank > 4 for rank in ranks)}
    assert ablation.errors(probabilities, labels) == pytest.approx(wanted)


def test_first_seeds_come_first_and_each_run_once():
    runs = list(ablation.runs())
    assert len({(variant.name, seed) for variant, seed in runs}) == len(runs)
    assert len(runs) == sum(variant.seeds for variant in VARIANTS.values())
    assert [seed for _, seed in runs] == sorted(seed for _, seed in runs)


def test_a_run_is_measured_kept_and_votes_with_others(world, tmp_path):
    variant, recipe = VARIANTS["without all four"], replace(ablation.BUDGETS["short"], epochs=1, batch=32)
    folders = [ablation.folder(tmp_path, variant, seed) for seed in (0, 1)]
    rows = [ablation.run(variant, seed, world, world, place, recipe=recipe) for seed, place in enumerate(folders)]
    assert rows[0] == ablation.run(variant, 0, world, world, folders[0], recipe=recipe)  # read, not trained again
    votes = [torch.from_numpy(np.load(folder / "votes.npz")["centre crop"].astype(np.float32)) for folder in folders]
    assert rows[0]["validation"] == ablation.errors(votes[0], world.labels)
    together = ablation.together(folders, world.labels)
    assert together["centre crop"] == ablation.errors((votes[0] + votes[1]) / 2, world.labels)


def test_spread_is_within_variants():
    rows = [("full", 80.0), ("full", 82.0), ("without fc7", 10.0), ("without fc7", 14.0), ("alexnet", 5.0)]
    card = {"rows": [{"budget": "short", "variant": name, "validation": {"top1": error}} for name, error in rows]}
    assert ablation.spread(card) == pytest.approx(((1 + 1 + 4 + 4) / 2) ** 0.5)


def test_the_shipped_table_is_of_these_networks_and_these_budgets():
    card = json.loads((_files.SHIPPED / "ablation.json").read_text())
    budgets = {name: asdict(recipe) for name, recipe in ablation.BUDGETS.items()}
    assert card["budgets"] == json.loads(json.dumps(budgets))
    for row in card["rows"]:
        net = ZFNet(200, geometry=VARIANTS[row["variant"]].geometry)
        assert row["parameters"] == sum(p.numel() for p in net.parameters())
        assert len(row["curve"]) == ablation.BUDGETS[row["budget"]].epochs
        assert row["curve"][-1]["top1"] == pytest.approx(100 - row["validation"]["top1"], abs=0.2)


def test_the_race_tells_a_trained_network_from_chance(world):
    recipe = replace(ablation.RECIPES["scenes"], epochs=20, batch=32)
    assert ablation.race(ablation.without(FULL, 6), world, world, recipe) < 60  # chance is 90, and these were seen
