"""The correspondence score, its nulls and controls against closed forms, brute force and small networks; the masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import explore
from zflib.data import scenes
from zflib.experiments import occluders
from zflib.experiments.part_correspondence import (
    Correspondence,
    compare,
    correspondence,
    distance_variances,
    expected_distances,
    hamming_distances,
)
from zflib.explore.correspondence_explorer import Masker, bars, sign_pixels, strongest


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def sparse(count, units, q, *, seed=0, plus=0.5):
    """(count,units) changes: each unit changes with probability q, to + with probability `plus`."""
    g = rng(seed)
    changed = torch.rand(count, units, generator=g) < q
    return torch.where(torch.rand(count, units, generator=g) < plus, 1.0, -1.0) * changed


class Small(nn.Module):
    """Two convolutions and two linear layers; nothing reaches further than two pixels below the linear ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.relu1 = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(8 * 16 * 16, 30)

    def forward(self, x):
        return self.fc(self.relu2(self.conv2(self.relu1(self.conv1(x)))).flatten(1).relu())


@pytest.fixture
def net():
    return Small().eval()


@pytest.fixture
def images():
    return torch.randn(5, 3, 16, 16, generator=rng(1))


BOXES = torch.tensor([[2, 3, 6, 7], [8, 8, 12, 12], [0, 0, 4, 4], [12, 12, 16, 16], [5, 9, 9, 13]])


# --- the score -------------------------------------------------------------------------------------------------------


def test_two_images_by_hand():
    score = Correspondence(torch.tensor([[0.5, -2.0, 0.0, 3.0, 0.0], [9.0, 1.0, 0.0, 0.0, -1e-9]]))
    assert score.signs.tolist() == [[1, -1, 0, 1, 0], [1, 1, 0, 0, -1]]
    assert score.pairs.tolist() == pytest.approx([3 / 5])  # -+, +0 and 0- differ
    assert score.delta == pytest.approx(0.6) and score.std == 0
    assert score.changed_fraction == pytest.approx(6 / 10)
    assert score.null == pytest.approx(1 - (2 * 2 + 2 * 2 + 1 * 1) / 25)  # shares of +, 0, -
    assert score.ratio == pytest.approx(0.6 / 0.64)


def test_three_images_are_three_pairs_in_order():
    score = Correspondence(torch.tensor([[1.0, 1, 0, 0], [1.0, 1, 0, 1], [-1.0, 0, 0, 1]]))
    assert score.pairs.tolist() == pytest.approx([1 / 4, 3 / 4, 2 / 4])
    assert score.delta == pytest.approx(0.5)
    assert score.std == pytest.approx(float(np.std([0.25, 0.75, 0.5])))


def test_identical_changes_score_0_whatever_their_size():
    one = sparse(1, 400, 0.3)
    score = Correspondence(one * torch.tensor([[1.0], [7.0], [0.01]]))
    assert score.delta == 0 and score.null > 0.3 and score.ratio == 0 and score.z < -10
    assert score.p_value(50) == pytest.approx(1 / 51)


def test_opposite_changes_differ_wherever_something_changes():
    one = sparse(1, 400, 0.3)
    score = Correspondence(torch.cat([one, -one]))
    assert score.delta == pytest.approx(score.changed_fraction)


@pytest.mark.parametrize("q, formula", [(0.05, 0.09625), (0.3, 0.465), (1.0, 0.5)])
def test_independent_random_signs_approach_the_formula(q, formula):
    score = Correspondence(sparse(8, 60_000, q))
    assert formula == pytest.approx(2 * q * (1 - q) + q**2 / 2)
    assert score.delta == pytest.approx(formula, abs=0.003) and score.null == pytest.approx(formula, abs=0.003)
    assert abs(score.z) < 4


def test_nothing_changes():
    score = Correspondence(torch.zeros(3, 10))
    assert score.delta == score.null == score.changed_fraction == 0
    assert np.isnan(score.ratio) and np.isnan(score.z) and score.p_value(9) == 1


@pytest.fixture
def uneven():
    """Images of different densities and different shares of + and -."""
    parts = [sparse(1, 80, q, seed=i, plus=p) for i, (q, p) in enumerate([(0.1, 0.9), (0.5, 0.3), (0.8, 0.5)])]
    return Correspondence(torch.cat(parts))


def test_null_and_deviation_are_those_of_many_shuffles(uneven):
    found = uneven.shuffled(2000)
    assert float(found.mean()) == pytest.approx(uneven.null, abs=4 * float(found.std()) / 2000**0.5)
    deviation = (uneven.delta - uneven.null) / uneven.z
    assert deviation == pytest.approx(float(found.std()), rel=0.05)


def test_the_strongest_changes_alone_are_equally_dense():
    score = Correspondence(torch.tensor([[5.0, -4, 1, 0.5, 0], [0, 0.1, -0.3, 2, -7]]), "conv5")
    assert score.strongest(0.4).changes.tolist() == [[5, -4, 0, 0, 0], [0, 0, 0, 2, -7]]
    dense = Correspondence(torch.randn(4, 1000, generator=rng(3)), "conv5")
    assert dense.strongest(0.05).changed_fraction == pytest.approx(0.05) and dense.strongest(0.05).layer == "conv5"
    assert torch.equal(dense.strongest(1.0).signs, dense.signs)
    for share in (0, -1, 1.5, "half"):
        with pytest.raises(ValueError, match="share must be above 0"):
            dense.strongest(share)


def test_of_units_that_change_equally_the_first_are_the_strongest():
    score = Correspondence(torch.tensor([[1.0] * 10, [*map(float, range(10))]])).strongest(0.1)
    assert score.changes.nonzero().tolist() == [[0, 0], [1, 9]] and score.changed_fraction == pytest.approx(0.1)


@pytest.mark.parametrize("score", [hamming_distances, expected_distances, distance_variances])
@pytest.mark.parametrize("signs", [
    torch.tensor([[2.5, 0], [1, 1]]), torch.full((2, 3), torch.nan), torch.zeros(3), torch.zeros(2, 0),
], ids=["changes", "NaN", "1D", "empty"])  # fmt: skip
def test_what_is_no_sign_is_refused(score, signs):
    with pytest.raises(ValueError, match="signs must be"):
        score(signs)


@pytest.mark.parametrize("call", [
    lambda seed: Correspondence(sparse(3, 60, 0.4)).shuffled(5, seed=seed).tolist(),
    lambda seed: occluders.random_boxes(3, 5, 56, seed=seed).tolist(),
    lambda seed: compare(Correspondence(sparse(9, 60, 0.4)), Correspondence(sparse(9, 60, 0.3)), rounds=9, seed=seed),
])  # fmt: skip
def test_a_seed_is_an_integer_of_any_kind(call):
    assert call(3) == call(np.int64(3)) == call(torch.tensor(3))
    for wrong in ("x", 1.5, None):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            call(wrong)


def test_null_of_a_pair_is_the_mean_over_all_orders():
    signs = torch.tensor([[1, 1, -1, 0, 0], [1, 0, 0, -1, -1]])
    orders = [signs[1][list(order)] for order in itertools.permutations(range(5))]
    scores = torch.tensor([float((signs[0] != one).float().mean()) for one in orders])
    score = Correspondence(signs.float())
    assert score.null == pytest.approx(float(scores.mean()))
    assert score.z == pytest.approx((score.delta - float(scores.mean())) / float(scores.std(unbiased=False)), rel=1e-5)


def test_distances_and_expected_are_symmetric_and_0_where_they_must_be(uneven):
    matrix = hamming_distances(uneven.signs)
    assert torch.equal(matrix, matrix.T) and float(matrix.diagonal().abs().max()) == 0
    assert torch.equal(expected_distances(uneven.signs), expected_distances(uneven.signs).T)


def test_p_value_is_uniform_without_correspondence():
    values = [Correspondence(sparse(3, 60, 0.4, seed=seed)).p_value(39, seed=seed) for seed in range(60)]
    assert 0.35 < float(np.mean(values)) < 0.65 and min(values) >= 1 / 40
    assert Correspondence(sparse(3, 60, 0.4)).p_value(39) == Correspondence(sparse(3, 60, 0.4)).p_value(39)


# --- a network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["relu1", "conv2", "fc"])
def test_changes_are_the_units_without_the_mask_minus_those_with_it(net, images, layer):
    score = correspondence(net, images, BOXES, layer=layer)
    kept = []
    net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.flatten(1)))
    with torch.no_grad():
        for image, (top, left, bottom, right) in zip(images, BOXES.tolist()):
            covered = image.clone()
            covered[:, top:bottom, left:right] = 0
            net(image[None]), net(covered[None])
    wanted = torch.cat([before - after for before, after in zip(kept[::2], kept[1::2])])
    torch.testing.assert_close(score.changes, wanted, rtol=1e-4, atol=1e-5)
    assert score.layer == layer


@pytest.mark.parametrize("count", [2, 3, 7, 64, 65, 130])
def test_what_the_mask_cannot_reach_is_exactly_unchanged(net, count):
    """Also where a batch is full, and in the last, shorter one."""
    images = torch.randn(count, 3, 16, 16, generator=rng(2))
    boxes = torch.tensor([[4, 5, 8, 9]]).expand(count, -1)
    maps = correspondence(net, images, boxes, layer="relu2").changes.view(count, 8, 16, 16)
    reached = torch.zeros(16, 16, dtype=torch.bool)
    reached[2:10, 3:11] = True  # two pixels further, after two convolutions
    assert float(maps[:, :, ~reached].abs().max()) == 0
    assert float((maps[:, :, reached] != 0).float().mean()) > 0.4


def test_what_the_mask_cannot_reach_in_the_shipped_network():
    net = zflib.load("scenes56")
    faces = scenes.scenes(6, classes="face", size=64)
    boxes = occluders.random_boxes(6, 9, 56, seed=1)
    maps = correspondence(net, net.preprocess(faces.pixels), boxes, layer="conv1").changes.view(6, 24, 28, 28)
    for image, (top, left, bottom, right) in zip(maps, boxes.tolist()):
        reached = torch.zeros(28, 28, dtype=torch.bool)
        reached[max(0, (top - 3) // 2) : (bottom + 3) // 2 + 1, max(0, (left - 3) // 2) : (right + 3) // 2 + 1] = True
        assert float(image[:, ~reached].abs().max()) == 0 and float(image[:, reached].abs().max()) > 0


def test_a_layer_of_ours_is_taken_after_its_relu():
    net = zflib.load("scenes56")
    images = net.preprocess(scenes.scenes(3, classes="face").pixels)
    boxes = torch.tensor([[20, 20, 30, 30]] * 3)
    after, before = (correspondence(net, images, boxes, layer=layer) for layer in ("fc7", "relu7"))
    assert torch.equal(after.changes, before.changes) and after.changes.shape == (3, 128)
    assert 0 < after.changed_fraction < 1  # without the ReLU every unit would change


def test_images_that_are_the_same_under_the_same_mask_correspond_fully(net, images):
    same = images[:1].expand(4, -1, -1, -1)
    assert correspondence(net, same, BOXES[:1].expand(4, -1), layer="conv2").delta == 0


def test_the_network_and_the_images_are_left_as_they_were(net, images):
    net.train()
    before = images.clone()
    correspondence(net, images, BOXES, layer="fc")
    assert torch.equal(images, before) and net.training and not net.fc._forward_hooks
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_relu_in_place_after_the_layer_does_not_change_it(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    assert float((correspondence(net, images, BOXES, layer="0").signs != 0).float().mean()) > 0.05
    relu = correspondence(net, images, BOXES, layer="1")
    assert relu.changed_fraction < correspondence(net, images, BOXES, layer="0").changed_fraction


def test_fills(net, images):
    grey = correspondence(net, images, BOXES, layer="conv2")
    assert torch.equal(grey.changes, correspondence(net, images, BOXES, layer="conv2", fill="grey").changes)
    assert not torch.equal(grey.changes, correspondence(net, images, BOXES, layer="conv2", fill=1.0).changes)
    assert correspondence(net, images, BOXES, layer="conv2", fill="blur").changed_fraction > 0


BAD = [
    ({"images": torch.zeros(1, 3, 16, 16), "boxes": BOXES[:1]}, "images must be at least two"),
    ({"images": torch.full((5, 3, 16, 16), torch.nan)}, "images hold NaN"),
    ({"images": torch.zeros(3, 16, 16)}, "images must be"),
    ({"boxes": BOXES[:4]}, r"boxes must be \(5,4\)"),
    ({"boxes": BOXES.float()}, r"boxes must be .* whole pixels.* got torch.float32"),
    ({"boxes": [[1, 2], [3]]}, "boxes must be"),
    ({"boxes": BOXES + torch.tensor([0, 0, 1, 0])}, r"boxes: number 3, .* is not inside"),
    ({"boxes": BOXES - torch.tensor([1, 0, 0, 0])}, r"boxes: number 2, .* is not inside"),
    ({"boxes": BOXES[:, [0, 3, 2, 1]]}, r"boxes: number 0, .* is empty"),
    ({"layer": "conv9"}, "layer 'conv9' is not in this network"),
    ({"fill": "red"}, "fill must be"),
]


@pytest.mark.parametrize("wrong, sentence", BAD, ids=range(len(BAD)))
def test_bad_input_gets_one_sentence(net, images, wrong, sentence):
    given = {"images": images, "boxes": BOXES, "layer": "conv2"} | wrong
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        correspondence(net, given.pop("images"), given.pop("boxes"), **given)
    assert "\n" not in str(caught.value)


def test_weights_that_overflow_are_named(net, images):
    with torch.no_grad():
        net.conv1.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="layer 'conv2' gives NaN"):
        correspondence(net, images, BOXES, layer="conv2")
    with pytest.raises(ValueError, match="rounds must be"):
        Correspondence(sparse(2, 9, 0.5)).shuffled(0)


# --- two masks -------------------------------------------------------------------------------------------------------


def brute(one, two, swap):
    """Means over pairs i != j after swapping in some images: of the first, of the second, crossed."""
    first = [two[i] if s else one[i] for i, s in enumerate(swap)]
    second = [one[i] if s else two[i] for i, s in enumerate(swap)]
    pairs = [(i, j) for i in range(len(one)) for j in range(len(one)) if i != j]

    def score(a, b):
        return float(np.mean([float((a[i].sign() != b[j].sign()).float().mean()) for i, j in pairs]))

    return score(first, first), score(second, second), score(first, second)


def test_compare_is_the_brute_force_over_all_swaps():
    one, two = sparse(4, 50, 0.4, seed=1), sparse(4, 50, 0.5, seed=2)
    one[:, :20] = one[:1, :20]  # the first mask has something in common
    found = compare(Correspondence(one), Correspondence(two))
    swaps = [brute(one, two, swap) for swap in itertools.product([False, True], repeat=4)]
    differences, same = [a - b for a, b, _ in swaps], [c - (a + b) / 2 for a, b, c in swaps]
    assert found.difference == pytest.approx(differences[0]) and found.difference < 0
    assert found.p == pytest.approx(np.mean([d <= differences[0] + 1e-9 for d in differences]))
    assert (found.matched, found.crossed) == pytest.approx(((swaps[0][0] + swaps[0][1]) / 2, swaps[0][2]))
    assert found.same_p == pytest.approx(np.mean([s >= same[0] - 1e-9 for s in same]))
    scores = Correspondence(one), Correspondence(two)
    assert found.ratio_difference == pytest.approx(scores[0].ratio - scores[1].ratio)


def test_two_masks_with_a_change_of_their_own_are_told_apart():
    g = rng(5)
    own = [torch.where(torch.rand(1, 200, generator=g) < 0.7, sparse(1, 200, 1.0, seed=s), 0) for s in (6, 7)]
    noise = [torch.where(torch.rand(8, 200, generator=g) < 0.3, -1.0, 1.0) for _ in own]
    masks_ = [Correspondence(change * part) for change, part in zip(own, noise)]
    found = compare(*masks_)
    assert found.matched < found.crossed - 0.1 and found.same_p == pytest.approx(2 / 256)
    assert found.p > 0.02  # neither of the two is better


def test_the_same_changes_for_any_mask_do_not_tell_parts_apart():
    """Units that change whatever is masked make the score low without any correspondence of parts."""
    common = sparse(1, 300, 0.5, seed=3)
    both = [Correspondence(common * (torch.rand(9, 300, generator=rng(s)) < 0.8)) for s in (1, 2)]
    found = compare(*both)
    assert both[0].ratio < 0.8 and both[0].p_value(20) == pytest.approx(1 / 21)  # the plain test is impressed
    assert found.crossed == pytest.approx(found.matched, abs=0.03) and found.same_p > 0.05


def test_density_alone_changes_delta_but_not_the_ratio():
    thin, thick = Correspondence(sparse(12, 20_000, 0.03, seed=1)), Correspondence(sparse(12, 20_000, 0.3, seed=2))
    found = compare(thin, thick, rounds=200)
    assert found.difference < -0.3 and abs(found.ratio_difference) < 0.02


def test_without_any_change_no_p_is_small():
    nothing = Correspondence(torch.zeros(3, 10))
    found = compare(nothing, nothing)
    assert np.isnan(found.ratio_difference) and found.p == found.ratio_p == found.same_p == 1


def test_compare_needs_the_same_images_and_layer():
    with pytest.raises(ValueError, match="second must hold the same images"):
        compare(Correspondence(sparse(3, 9, 0.5)), Correspondence(sparse(4, 9, 0.5)))
    with pytest.raises(ValueError, match="second must hold the same images"):
        compare(Correspondence(sparse(3, 9, 0.5), "conv5"), Correspondence(sparse(3, 9, 0.5), "fc7"))


# --- masks -----------------------------------------------------------------------------------------------------------


def test_boxes_are_centred_on_the_pixel_and_moved_inside():
    places = torch.tensor([[10.0, 20.0], [0.0, 0.0], [55.4, 30.2], [10.5, 10.49]])
    boxes = occluders.boxes_around(places, 5, 56)
    assert boxes.tolist() == [[8, 18, 13, 23], [0, 0, 5, 5], [51, 28, 56, 33], [9, 8, 14, 13]]
    assert occluders.boxes_around(places[:1], (4, 6), (56, 56)).tolist() == [[9, 18, 13, 24]]
    assert occluders.boxes_around([[0, 1e30], [-1e30, 8]], 3, 16).tolist() == [[0, 13, 3, 16], [0, 7, 3, 10]]


def test_boxes_lie_over_the_parts_of_scenes():
    faces = scenes.scenes(20, classes="face")
    where = faces.part("nose")
    boxes = occluders.boxes_around(where, 7, 64)
    assert bool(((boxes[:, :2] <= where) & (where <= boxes[:, 2:] - 1)).all())
    with pytest.raises(ValueError, match="positions hold NaN"):
        occluders.boxes_around(scenes.scenes(4).part("nose"), 7, 64)


def test_random_boxes_avoid_the_parts_and_follow_the_seed():
    avoid = torch.stack(
        [occluders.boxes_around(torch.rand(30, 2, generator=rng(s)) * 55, 11, 56) for s in (1, 2)], dim=1
    )
    boxes = occluders.random_boxes(30, 11, 56, avoid=avoid, seed=4)
    assert torch.equal(boxes, occluders.random_boxes(30, 11, 56, avoid=avoid, seed=4))
    assert not torch.equal(boxes, occluders.random_boxes(30, 11, 56, avoid=avoid, seed=5))
    assert bool((boxes[:, 2:] - boxes[:, :2] == 11).all()) and int(boxes.min()) >= 0 and int(boxes.max()) <= 56
    for box, taken in zip(boxes, avoid):
        covered = torch.zeros(56, 56)
        covered[box[0] : box[2], box[1] : box[3]] = 1
        for top, left, bottom, right in taken.tolist():
            assert float(covered[top:bottom, left:right].sum()) == 0


def test_random_boxes_take_every_free_place():
    avoid = torch.tensor([[0, 0, 2, 4]]).expand(400, -1)  # leaves one row of five places, and none above
    boxes = occluders.random_boxes(400, (2, 2), (4, 6), avoid=avoid)
    found = {(top, left) for top, left, _, _ in boxes.tolist()}
    assert found == {(2, left) for left in range(5)} | {(0, 4), (1, 4)}


def test_masks_answer_nonsense_with_a_sentence():
    for call, sentence in [
        (lambda: occluders.boxes_around(torch.zeros(3), 5, 56), "positions must be"),
        (lambda: occluders.boxes_around(torch.zeros(3, 2), 0, 56), "size must be"),
        (lambda: occluders.boxes_around(torch.zeros(3, 2), 60, 56), "size must be .* at most 56x56, got 60"),
        (lambda: occluders.boxes_around("a", 5, 56), "positions must be"),
        (lambda: occluders.boxes_around(None, 5, 56), "positions must be"),
        (lambda: occluders.boxes_around([[np.inf, 1]], 5, 56), "positions hold NaN or infinity"),
        (lambda: occluders.random_boxes(2, 5, 56, avoid="x"), "avoid must be"),
        (lambda: occluders.random_boxes(2, 5, 56, avoid=torch.tensor(3)), "avoid must be"),
        (lambda: occluders.masked(torch.zeros(5, 3, 16, 16).byte(), BOXES, fill="noise"), "images must hold floats"),
        (lambda: occluders.masked(torch.zeros(5, 3, 16, 16).numpy(), BOXES), "images must be a tensor"),
        (lambda: occluders.masked(None, BOXES), "images must be a tensor"),
        (lambda: occluders.masked(torch.zeros(3, 16, 16), BOXES), "images must be"),
        (lambda: occluders.random_boxes(0, 5, 56), "n must be"),
        (lambda: occluders.random_boxes(2, 5, 56, avoid=torch.zeros(3, 4)), "avoid must be"),
        (lambda: occluders.random_boxes(1, 40, 56, avoid=torch.tensor([[20, 20, 36, 36]])), "avoid leaves no room"),
    ]:
        with pytest.raises((ValueError, TypeError), match=sentence):
            call()


def test_masked_lets_gradients_through(images):
    images.requires_grad_()
    occluders.masked(images, BOXES).sum().backward()
    assert float((images.grad == 0).sum()) == 3 * 5 * 16 and float(images.grad.max()) == 1


def test_masked_covers_the_box_and_nothing_else(images):
    covered = occluders.masked(images, BOXES)
    for image, original, (top, left, bottom, right) in zip(covered, images, BOXES.tolist()):
        inside = torch.zeros(16, 16, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert float(image[:, inside].abs().max()) == 0 and torch.equal(image[:, ~inside], original[:, ~inside])


# --- the explorer ----------------------------------------------------------------------------------------------------


def test_the_strongest_units_are_relative_to_each_image():
    changes = torch.tensor([[100.0, 60.0, 0.0, 0.0], [0.0, 1.0, 0.2, 0.0]])
    assert strongest(changes, 2).tolist() == [1, 0]
    pixels = sign_pixels(torch.tensor([[-2.0, 1.0], [0.0, 5.0]]), count=2, cell=5)
    colours = [[tuple(pixels[row * 5 + 2, column * 5 + 2].tolist()) for column in (0, 1)] for row in (0, 1)]
    assert colours == [[(178, 24, 43), (33, 102, 172)], [(178, 24, 43), (235, 235, 235)]]


def test_bars_show_the_scores():
    low, high = Correspondence(sparse(3, 90, 0.1)), Correspondence(sparse(3, 90, 0.6))
    pixels = bars({"low": low, "high": high}, "low")
    orange = (np.abs(pixels.astype(int) - [255, 127, 14]).sum(axis=2) < 9).sum()
    grey = (np.abs(pixels.astype(int) - [154, 165, 177]).sum(axis=2) < 9).sum()
    assert 0 < orange < grey


def test_the_masker_says_what_correspondence_says():
    net = zflib.load("scenes56")
    faces = scenes.scenes(4, classes="face", pose=scenes.FRONTAL)
    images, where = net.preprocess(faces.pixels), {"nose": faces.part("nose") - 4}
    masker = Masker(net, images, where, ["fc7"])
    score = correspondence(net, images, occluders.boxes_around(where["nose"], 9, 56), layer="fc7")
    assert f"delta {score.delta:.3f}, by chance {score.null:.3f}" in masker.describe("nose", "fc7", 9)
    assert masker.sizes()[0] == 3 and max(masker.sizes()) < 28
    with pytest.raises(ValueError, match="positions must name"):
        Masker(net, images, {}, ["fc7"])


def test_the_panel_follows_its_controls_to_every_end():
    panel = explore.correspondence(zflib.load("scenes56"))
    seen, shape = [panel.pixels], panel.pixels.shape
    for name in ("part", "layer"):
        for option in panel.controls[name].options[::-1]:
            panel.controls[name].value = option
            seen.append(panel.pixels)
    for end in (panel.controls["size"].options[0], panel.controls["size"].options[-1]):
        panel.controls["size"].value = end
        seen.append(panel.pixels)
    assert panel.status.value == "" and all(pixels.shape == shape for pixels in seen)
    assert len({pixels.tobytes() for pixels in seen}) >= len(seen) - 2 and "delta" in panel.text


def test_the_panel_answers_bad_input():
    net = zflib.load("scenes56")
    with pytest.raises(ValueError, match="positions must come with images"):
        explore.correspondence(net, torch.zeros(2, 3, 56, 56))
    with pytest.raises(ValueError, match="images are needed"):
        explore.correspondence(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match="layer 'conv7'"):
        explore.correspondence(net, layers="conv7")
    with pytest.raises(ValueError, match="size must be one of"):
        explore.correspondence(net, size=55)


IMAGES, NOSE = torch.randn(3, 3, 16, 16), torch.full((3, 2), 8.0)


@pytest.mark.parametrize("wrong, sentence", [
    ({"net": 5}, "net must be a torch network"), ({"layers": []}, "layers must be at least one"),
    ({"layers": None}, r"layer is missing: .* the last convolution's, '"),
    ({"positions": [1, 2]}, r"positions must name .* got \[1, 2\]"),
    ({"positions": {"nose": NOSE[:2]}}, "positions of 'nose' must be one .* got 2 for 3 images"),
    ({"positions": {"nose": NOSE * torch.nan}}, "positions hold NaN"),
    ({"positions": {"nose": "abc"}}, "positions must be"),
    ({"images": IMAGES[..., :5, :5]}, "avoid leaves no room of 3x3 pixels"),
])  # fmt: skip
def test_the_panel_says_what_is_wrong_in_one_sentence(net, wrong, sentence):
    given = {"net": net, "images": IMAGES, "positions": {"nose": NOSE}, "layers": "conv1"} | wrong
    with pytest.raises((ValueError, TypeError), match=sentence):
        explore.correspondence(given.pop("net"), given.pop("images"), given.pop("positions"), **given)
