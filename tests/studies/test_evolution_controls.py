"""The controls of Figure 4: walks by simulation, jumps dealt anew, pushes of a given length, and their pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import zflib
from zflib import show, train
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import evolution, evolution_controls

TINY = Geometry(12, 10, (Conv(4, 3, padding=1, pool=True), Conv(6, 3, padding=1)), hidden=None)


def network(seed: int) -> ZFNet:
    torch.manual_seed(seed)
    return ZFNet(0, geometry=TINY).eval()


@pytest.mark.parametrize("constant", [False, True])
def test_the_walk_is_that_of_random_steps_as_long_as_the_learning_rate(constant):
    recipe = replace(evolution.small_recipe(constant=constant), epochs=4)
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([evolution_controls.rate(recipe, step / 60) for step in range(240)])
    steps = torch.randn(240, 5000, generator=generator) * rates[:, None]
    first = torch.randn(5000, generator=generator)
    first *= (steps.square().sum() / 3).sqrt() / first.norm()  # a quarter of the end's squared length: cosine 1/2
    path = (first + torch.cat([torch.zeros(1, 5000), steps.cumsum(0)]))[::60]
    drawn = torch.cosine_similarity(path, path[-1:], dim=1).tolist()
    assert evolution_controls.walk(recipe, range(5), start=0.5) == pytest.approx(dict(enumerate(drawn)), abs=0.03)


def test_the_learning_rate_is_the_recipes_own():
    one = evolution.small_recipe()
    place = train.recipes.Progress(epoch=7, step=3)
    assert evolution_controls.rate(one, 7.25) == pytest.approx(train.recipes.learning_rate(one, place, 12), rel=1e-9)
    assert {evolution_controls.rate(evolution.small_recipe(constant=True), t) for t in (0, 5, 11.9)} == {0.02}


def test_a_layer_alone_is_judged_on_finished_layers_below():
    last, other = network(0), network(0)
    other.conv1.weight.data = torch.randn_like(other.conv1.weight)  # only the first layer was not there yet
    images = torch.randn(6, 3, 10, 10)
    found = evolution_controls.agreements({0: other, 3: last}, images, replace(evolution.small_recipe(), epochs=3))
    assert found["alone"]["conv2"][0] == pytest.approx(1, abs=1e-5) and found["filters"]["conv2"][0] > 0.999
    assert found["responses"]["conv2"][0] < 0.9 and found["alone"]["conv1"] == found["responses"]["conv1"]
    assert found["walk"]["conv1"][0] == pytest.approx(max(0, found["filters"]["conv1"][0]), abs=1e-5)


def test_the_gap_is_within_an_epoch_and_leaves_silent_channels_out():
    likeness = torch.tensor([[0.2, 0.2, 0.4, 0.0], [0.9, 0.9, 0.9, 0.9], [0.5, 0.6, 0.7, 0.8]])
    jumped = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    both = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool()
    assert evolution_controls.gap(likeness, jumped, both) == pytest.approx(
        (-0.2 + 0) / 2
    )  # the third epoch has one kind


def test_shuffled_gaps_keep_every_epochs_count_and_average_to_none():
    torch.manual_seed(0)
    likeness, both = torch.rand(3, 12), torch.rand(3, 12) > 0.2
    jumped = (torch.rand(3, 12) > 0.5) & both
    chance = evolution_controls.shuffled_gaps(likeness, jumped, both, draws=400)
    assert abs(float(chance.mean())) < 3 * float(chance.std()) / 20
    alike = likeness - 0.5 * jumped  # a clear effect
    assert (
        float(
            (evolution_controls.shuffled_gaps(alike, jumped, both) <= evolution_controls.gap(alike, jumped, both))
            .float()
            .mean()
        )
        < 0.01
    )


def test_likeness_is_of_neighbours_and_knows_empty_projections():
    views = torch.randn(3, 2, 3, 4, 4)
    views[0, 1] = 0
    likeness, both = evolution_controls.alike(views)
    wanted = torch.dot(views[1, 0].flatten(), views[2, 0].flatten()) / views[1, 0].norm() / views[2, 0].norm()
    assert likeness[1, 0] == pytest.approx(float(wanted), abs=1e-5) and both.tolist() == [[True, False], [True, True]]


def test_a_jump_test_finds_features_that_changed_with_their_winners():
    nets = {1: network(1), 2: network(2), 3: network(2)}
    images = torch.randn(9, 3, 10, 10)
    winners = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 7, 2, 3, 4, 5], [6, 7, 2, 3, 4, 5]])
    test = evolution_controls.jump_test(nets, images, "conv2", winners, list(range(6)))
    assert 0 < test.p <= 1 and test.jumped + test.stayed <= 12 and f"p = {test.p:.3f}" in test.words()


def test_rivals_are_judged_by_the_channels_own_last_projection_from_its_own_position():
    nets, image = {0: network(1), 1: network(2)}, torch.randn(1, 3, 10, 10)
    with torch.no_grad():
        nets[0].conv2.bias[3] = -99  # silent before the end
    found = evolution_controls.rivals(nets, image, "conv2", 4)
    place = int(zflib.Deconvnet(nets[1]).activations(image, "conv2")[0, 4].argmax())
    positions = torch.tensor([divmod(place, 5)])
    own = zflib.Deconvnet(nets[1]).project(image, "conv2", 4, positions=positions).flatten()
    other = zflib.Deconvnet(nets[0]).project(image, "conv2", 1, positions=positions).flatten()
    wanted = float(torch.corrcoef(torch.stack([own, other]))[0, 1]) if other.any() else float("nan")
    assert found.shape == (2, 6) and found[0, 3].isnan() and float(found[1, 4]) == pytest.approx(1, abs=1e-5)
    assert float(found[0, 1]) == pytest.approx(wanted, abs=1e-4, nan_ok=True)


def test_a_rank_counts_those_that_are_not_silent():
    nothing = float("nan")
    likeness = torch.tensor([[0.3, 0.9, nothing, 0.5], [0.9, 0.2, 0.1, 0.3], [nothing, 0.2, 0.1, 0.3]])
    assert evolution_controls.rank_among(likeness, 0) == [(3, 3), (1, 4), None]


def test_the_early_rim_of_channel_3_is_not_its_own():
    run, world = evolution.load_run(), evolution.world()
    nets = {epoch: run.nets[epoch] for epoch in (0, 1, 12)}
    scene = zflib.data.centre_crop(nets[12].normalise(world.pixels[[int(run.winners("conv5")[12, 3])]]), 56)
    likeness = evolution_controls.rivals(nets, scene, "conv5", 3)
    (first, _), (second, answering), (last, _) = evolution_controls.rank_among(likeness, 3)
    assert first > 1 and second > answering / 3 and last == 1


def test_a_push_moves_every_filter_by_its_share_and_leaves_the_network_as_it_was():
    net = network(0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    pushed = evolution_controls.pushed(net, 0.3, torch.Generator().manual_seed(0))
    for layer in ("conv1", "conv2"):
        old, new = (n.get_submodule(layer).weight.detach().flatten(1) for n in (net, pushed))
        torch.testing.assert_close((new - old).norm(dim=1) / old.norm(dim=1), torch.full((len(old),), 0.3))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_pushes_are_chosen_by_how_many_winners_they_move():
    net, images = network(0), torch.randint(0, 256, (40, 3, 12, 12), dtype=torch.uint8)
    found = evolution_controls.matched_pushes(net, images, torch.arange(40) % 4, {"conv1": 0, "conv2": 6})
    moved = {layer: sum(count for count, _ in rows) / 2 for layer, rows in found.items()}
    assert moved["conv1"] <= 1 and moved["conv2"] >= 5
    assert all(same <= count for rows in found.values() for count, same in rows)


def test_jumps_and_those_within_a_class_are_counted():
    labels = torch.tensor([0, 0, 1, 1])
    assert evolution_controls.kept_class(torch.tensor([0, 0, 2, 3]), torch.tensor([1, 2, 3, 3]), labels) == (3, 2)


def test_each_training_has_its_own_share_of_jumps_within_a_class():
    runs = [{"pushed": {"conv1": [(4, 1), (6, 4)]}}, {"pushed": {"conv1": [(1, 1), (3, 0)]}}]
    assert evolution_controls.kept_shares(runs, "pushed", "conv1").tolist() == [0.5, 0.25]


def test_shares_of_jumps_are_those_of_find_peaks():
    nets, images = {0: network(0), 1: network(1)}, torch.randint(0, 256, (20, 3, 12, 12), dtype=torch.uint8)
    tops = [zflib.find_peaks(net, images, layers=["conv2"], k=1)["conv2"].images[:, 0] for net in nets.values()]
    assert evolution_controls.jump_shares(nets, images)["conv2"] == [float((tops[0] != tops[1]).float().mean())]


def test_what_is_shipped_can_be_drawn():
    found = evolution_controls.load_controls()
    assert {name: len(runs) for name, runs in found["agreements"].items()} == {"one-cycle": 5, "constant": 3}
    ax = show.numbers(torch.zeros(2, 2))
    for runs in (found["agreements"]["one-cycle"], [found["zfnet56"]]):
        assert isinstance(evolution_controls.draw_order(ax, runs, epoch=2), show.Axes)
    evolution_controls.draw_kept_class(ax, found["jumps"])
    evolution_controls.draw_rivals(ax, torch.tensor([[0.2, 0.3], [0.9, float("nan")]]), 1)
    evolution_controls.draw_settling(ax, found["agreements"]["constant"], "filters")
    evolution_controls.draw_rate(ax, evolution.small_recipe())
    evolution_controls.draw_by_layer(ax, found["jump shares"]["constant"], range(1, 13))
    evolution_controls.draw_gaps(ax, {"conv1": evolution_controls.JumpTest(-0.02, 9, 9, 0.01, 0.04)})
    assert "p = 0.040" in [text.get_text() for text in ax.texts]
    show.axes_pixels(ax)
