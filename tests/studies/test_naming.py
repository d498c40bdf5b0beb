"""The naming game: right answers by brute force, what was mined is never asked, and chance in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import zflib
from zflib import data
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import gallery, naming

TINY = Geometry(12, 10, (Conv(6, 3, padding=1, pool=True), Conv(40, 3, padding=1, pool=True)), hidden=(8,))


@pytest.fixture(scope="module")
def net() -> ZFNet:
    torch.manual_seed(1)
    net = ZFNet(5, geometry=TINY).eval()
    net.classes, net.card = list("abcde"), {"name": "small", "sha256": "of these weights"}
    return net


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Noise of many contrasts: weak images are needed, too."""
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (120, 3, 12, 12)) * rng.uniform(1, 60, (120, 1, 1, 1))
    return (noise + 115).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return torch.arange(120) % 5


@pytest.fixture(scope="module")
def game(net, pixels, labels) -> naming.Game:
    return naming.new_game(net, pixels, layer="conv2", rounds=6, labels=labels)


@pytest.fixture(scope="module")
def strongest(net, pixels) -> torch.Tensor:
    """(120,40) every image's strongest activation of every channel."""
    images = data.centre_crop(net.normalise(torch.from_numpy(pixels)), 10)
    return zflib.Deconvnet(net).activations(images, "conv2").flatten(2).amax(2)


def halves(seed: int = 0) -> tuple[list[int], list[int]]:
    order = torch.randperm(120, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[:60], order[60:]


def test_the_right_picture_is_the_strongest_of_all_held_out_images(net, pixels, game, strongest):
    mined, held = halves()
    images = data.centre_crop(net.normalise(torch.from_numpy(pixels)), 10)
    assert len({one.channel for one in game.rounds}) == 6
    for one in game.rounds:
        numbers = [held[number] for number in one.numbers.tolist()]
        assert torch.equal(one.pictures, images[numbers]) and len(set(numbers)) == 8
        assert not set(numbers) & set(mined)
        torch.testing.assert_close(one.values, strongest[numbers, one.channel])
        top = float(strongest[held, one.channel].max())
        others = [value for place, value in enumerate(one.values.tolist()) if place != one.right]
        assert float(one.values[one.right]) == pytest.approx(top) and max(others) < top / 2


def test_projections_are_of_the_nine_strongest_mined_images(net, pixels, game, strongest, labels):
    mined, _ = halves()
    images = data.centre_crop(net.normalise(torch.from_numpy(pixels)), 10)
    for one in game.rounds:
        order = strongest[mined, one.channel].argsort(descending=True, stable=True)[:9]
        winners = torch.tensor(mined)[order]
        assert one.fired == ["abcde"[label] for label in labels[winners].tolist()]
        assert float(one.values.max()) >= float(strongest[winners[-1], one.channel]) / 2
        whole = zflib.Deconvnet(net).project(images[winners], "conv2", one.channel)
        assert len(one.projections) == len(one.patches) == 9
        assert one.projections.abs().sum() == pytest.approx(float(whole.abs().sum()), rel=1e-4)


def test_a_seed_gives_the_same_game_and_another_one_another(net, pixels, game):
    same, other = (naming.new_game(net, pixels, layer="conv2", rounds=6, seed=seed) for seed in (0, 1))
    assert [one.channel for one in same.rounds] == [one.channel for one in game.rounds]
    assert [one.channel for one in other.rounds] != [one.channel for one in game.rounds]
    assert all(torch.equal(a.numbers, b.numbers) for a, b in zip(same.rounds, game.rounds))


def test_whoever_always_takes_the_first_picture_scores_near_chance(net, pixels):
    rounds = []
    for seed in range(12):
        rounds += naming.new_game(net, pixels, layer="conv2", rounds=12, seed=seed).rounds
    game = naming.Game(rounds)
    for _ in rounds:
        game.answer("", 0)
    assert game.over and 0.01 < game.luck() < 0.99 and len(rounds) == 144
    assert sum(one.right == 7 for one in rounds) > 5, "the right one is not always among the first"


def test_luck_is_the_upper_tail_of_the_binomial():
    for score, rounds, choices in ((0, 10, 8), (3, 10, 8), (10, 10, 8), (2, 4, 3)):
        chance = 1 / choices
        terms = [math.comb(rounds, n) * chance**n * (1 - chance) ** (rounds - n) for n in range(score, rounds + 1)]
        assert naming.luck(score, rounds, choices=choices) == pytest.approx(sum(terms))
    assert naming.luck(10, 10) == pytest.approx(8.0**-10)


def test_answers_are_kept_and_counted(game):
    played = naming.Game(game.rounds)
    assert played.answer("  dots ", game.rounds[0].right) and played.names == ["dots"]
    for one in game.rounds[1:]:
        assert not played.answer("", (one.right + 1) % 8)
    assert played.score == 1 and played.over and played.luck() == naming.luck(1, 6)
    rows = naming.table(played)
    assert rows[0][:3] == (f"conv2, channel {game.rounds[0].channel}", "dots", True)
    assert game.rounds[0].fired[0] in rows[0][3] and [row[2] for row in rows] == [True] + [False] * 5
    with pytest.raises(ValueError, match="all 6 rounds are answered"):
        played.answer("", 0)


def test_without_images_the_gallery_is_shown_and_windows_are_asked(net, pixels, labels, monkeypatch):
    mined = gallery.mine(net, pixels, labels, layers=["conv2"], chosen=30)
    monkeypatch.setattr(
        gallery, "load", lambda name, photographs: mined if (name, photographs) == ("small", True) else 0
    )
    windows = data.windows({"noise": np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)},
                           sizes=(12, 20), side=12)  # fmt: skip
    grey = torch.full((20, 3, 12, 12), 115, dtype=torch.uint8)
    shown = replace(windows, pixels=torch.cat([windows.pixels, grey]))
    monkeypatch.setattr(data, "windows", lambda side, **_: shown if side == 12 else None)
    game = naming.new_game(net, rounds=2)
    for one in game.rounds:
        assert one.layer == "conv2" and one.patches is None and len(one.fired) == 9
        assert torch.equal(one.projections, mined.nine("conv2", one.channel))
        pixels_asked = shown.pixels[one.numbers]
        assert torch.equal(one.pictures, data.centre_crop(net.normalise(pixels_asked), 10))


def test_a_folder_of_yours(net, pixels, game, tmp_path):
    from PIL import Image

    for number, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number:03d}.png")
    again = naming.new_game(net, str(tmp_path), layer="conv2", rounds=6)
    assert [one.channel for one in again.rounds] == [one.channel for one in game.rounds]
    assert all(torch.equal(a.pictures, b.pictures) for a, b in zip(again.rounds, game.rounds))


def test_bad_input_is_named(net, pixels):
    wrong = [
        (lambda: naming.new_game(net, pixels, layer="conv2", rounds=41), "rounds: conv2 has .* channels to ask for"),
        (lambda: naming.new_game(net, pixels, layer="conv2", choices=1), "choices must be .* at least 2, got 1"),
        (lambda: naming.new_game(net, pixels[:20], layer="conv2"), "images must be numbered and at least 36, got 20"),
        (lambda: naming.new_game(net, iter(pixels), layer="conv2"), "at least 36, got an iterator"),
        (lambda: naming.new_game(net, pixels, layer="conv9"), "layer 'conv9' is not"),
        (lambda: naming.new_game(ZFNet(5, geometry=TINY)), "images are needed for this network"),
        (lambda: naming.Game([]).answer("", 0), "all 0 rounds are answered"),
    ]
    for call, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            call()
    played = naming.Game(naming.new_game(net, pixels, layer="conv2", rounds=1).rounds)
    with pytest.raises(ValueError, match="choice must be a picture from 0 to 7, got 8"):
        played.answer("", 8)
