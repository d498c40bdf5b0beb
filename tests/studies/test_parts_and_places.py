"""Faces that lie differently: what is covered where, kinds of pairs by brute force, and the pictures."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

import zflib
from zflib.data import scenes
from zflib.experiments import occluders
from zflib.studies import parts_and_places as pp


@pytest.fixture(scope="module")
def net():
    return zflib.load("scenes56").requires_grad_(False)


@pytest.fixture(scope="module")
def moved(net):
    return pp.moved_faces(net, ["conv1", "fc7"], range(3, 6))


def test_every_part_is_covered_in_every_version(moved):
    rows = torch.stack([moved.faces, moved.poses, moved.middles, moved.parts], dim=1)
    assert len(rows) == 3 * 2 * 4 * 4 == len(rows.unique(dim=0))
    assert moved.faces.unique().tolist() == [3, 4, 5]
    assert {layer: signs.shape[0] for layer, signs in moved.signs.items()} == {"conv1": 96, "fc7": 96}


def test_the_part_in_the_middle_lies_there(moved):
    """A square of 11 around the middle of 56 pixels begins at 22; faces differ by a pixel or two."""
    centred = moved.corners[moved.middles == moved.parts]
    assert bool(((centred - 22).abs() <= 2).all())
    assert bool(((moved.corners[moved.middles != moved.parts] - 22).abs().amax(dim=1) > 4).all())


def test_signs_are_those_of_correspondence(net, moved):
    """The large face, moved so that its nose is in the middle, its mouth covered."""
    turned = {"angle": -15.0, "scale": 1.2}
    faces = scenes.scenes(range(3, 6), classes="face", pose=scenes.Pose.exactly(**turned))
    down, right = (31.5 - faces.part("nose").mean(dim=0)).round().tolist()
    pose = scenes.Pose.exactly(down=down, right=right, **turned)
    faces = scenes.scenes(range(3, 6), classes="face", pose=pose)
    boxes = occluders.boxes_around(faces.part("mouth") - 4, 11, 56)
    chosen = (moved.poses == 1) & (moved.middles == 2) & (moved.parts == 3)
    for layer in ("conv1", "fc7"):
        found = zflib.correspondence(net, net.preprocess(faces.pixels), boxes, layer=layer)
        assert torch.equal(moved.signs[layer][chosen], found.signs)
    assert torch.equal(moved.corners[chosen], boxes[:, :2])


def by_brute_force(moved, layer, same_part, same_place):
    """The ratio of one kind of pairs, one pair after the other."""
    score = null = 0.0
    signs = moved.signs[layer]
    for i in range(len(signs)):
        for j in range(i):
            away = max((moved.corners[i] - moved.corners[j]).abs().tolist())
            there = away <= 2 if same_place else away >= 11
            different = moved.faces[i] != moved.faces[j] and moved.poses[i] != moved.poses[j]
            if different and there and (moved.parts[i] == moved.parts[j]) == same_part:
                score += float((signs[i] != signs[j]).double().mean())
                shares = [[float((signs[k] == sign).double().mean()) for sign in (-1, 0, 1)] for k in (i, j)]
                null += 1 - sum(one * other for one, other in zip(*shares))
    return score / null


def test_the_four_kinds_by_brute_force(moved):
    cells = pp.four_kinds(moved, "fc7")
    for row, part in enumerate((True, False)):
        for column, place in enumerate((True, False)):
            assert float(cells[row, column]) == pytest.approx(by_brute_force(moved, "fc7", part, place), abs=1e-5)


def test_no_pair_is_in_two_kinds_or_of_one_face(moved):
    assert not bool((moved.same_place() & moved.other_place()).any())
    assert not bool(moved.pairs().diag().any()) and bool((moved.pairs() == moved.pairs().T).all())
    alike = moved.pairs() & moved.same_middle()
    assert 0 < int(alike.sum()) < int(moved.pairs().sum())


def test_conv1_knows_places_and_fc7_parts(moved):
    """The finding of the notebook, in its simplest form."""
    (both, part), (place, neither) = pp.four_kinds(moved, "conv1").tolist()
    assert max(both, place) < 0.7 < 0.9 < min(part, neither)
    (both, part), (place, neither) = pp.four_kinds(moved, "fc7").tolist()
    assert max(both, part) < min(place, neither)


def test_figure_8_is_as_wide_as_a_page_and_covers_what_it_says(net):
    boxes = torch.tensor([[20, 20, 31, 31]]).expand(5, 4)
    rows = {"nose": (boxes, torch.tensor([0.2, 0.22])), "random places": (boxes, torch.tensor([0.3, 0.31]))}
    pixels = pp.figure8(net, rows)
    assert pixels.shape == (2 * pp.TILE + pp.GAP, 2000, 3)
    scale = pp.TILE / 56
    inside = pixels[round(20 * scale) : round(31 * scale), round(20 * scale) : round(31 * scale)]
    assert (inside == inside[0, 0]).all() and not (pixels[: pp.TILE, : pp.TILE] == inside[0, 0]).all()


def test_examples_show_eight_faces():
    pixels = pp.four_examples()
    assert pixels.shape[1] <= 2000 and pixels.shape[0] > 1000


def test_the_table_of_four_says_its_numbers():
    ax = pp.draw_four(plt.subplots()[1], torch.tensor([[[0.5, 1.0], [0.6, 0.8]], [[0.7, 1.0], [0.6, 0.8]]]), "conv9")
    texts = [text.get_text() for text in ax.texts]
    assert texts[:2] == ["0.60", "± 0.141"] and texts[-2:] == ["0.80", "± 0.000"] and ax.get_title() == "conv9"
