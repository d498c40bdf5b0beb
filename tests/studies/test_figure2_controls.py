"""The controls of Figure 2 against loops and closed forms."""

from __future__ import annotations

import pytest
import torch

import zflib
from zflib import data
from zflib.experiments.top_k import Peaks
from zflib.studies import figure2_controls as controls
from zflib.studies import gallery
from zflib.studies.units import Units


@pytest.fixture(scope="module")
def world():
    return zflib.scenes.scenes(24, seed=3)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return zflib.scenes56().requires_grad_(False).eval()


def parts_of(world, image):
    return world.parts[image, : len(world.part_names[int(world.labels[image])])]


def test_the_share_of_an_object_against_a_loop(world):
    shares = controls.share_of_object(world, within=5)
    for image in (0, 7, 23):
        on = [(r, c) for r in range(64) for c in range(64) if world.masks[image, r, c]]
        near = [(parts_of(world, image) - torch.tensor(place)).norm(dim=1).min() < 5 for place in on]
        assert float(shares[image]) == pytest.approx(sum(map(bool, near)) / len(on))


def test_winners_at_parts_against_a_loop(net, world):
    peaks = zflib.find_peaks(net, world.pixels, layers=["conv2"], k=5)["conv2"]
    found, living = controls.at_parts(net, world, peaks, "conv2"), gallery.alive(peaks)
    shares, margin = controls.share_of_object(world), (64 - 56) // 2
    for row, channel in enumerate(living.tolist()):
        on, near, expected = 0, 0, 0.0
        for image, position in zip(peaks.images[channel].tolist(), peaks.positions[channel].tolist()):
            top, left, bottom, right = zflib.receptive_field(net, "conv2", position)
            middle = torch.tensor([(top + bottom - 1) / 2 + margin, (left + right - 1) / 2 + margin])
            place = middle.round().long().clamp(0, 63).tolist()
            if world.masks[image, *place]:
                on, expected = on + 1, expected + float(shares[image])
                near += bool((parts_of(world, image) - middle).norm(dim=1).min() < 6)
        assert (int(found.on[row]), int(found.near[row])) == (on, near)
        assert float(found.expected[row]) == pytest.approx(expected, abs=1e-5)
    assert found.on.sum() > 20 and found.near.sum() > 0


def test_the_share_is_a_ratio_with_its_error():
    counts = controls.AtParts(torch.tensor([4, 4, 4]), torch.tensor([1, 2, 3]), torch.tensor([2.0, 2.0, 2.0]))
    share, error = counts.share()
    assert share == pytest.approx(0.5)
    assert error == pytest.approx(0.25 / 3**0.5)  # equal counts: the standard error of 1/4, 1/2, 3/4
    assert counts.chance() == (pytest.approx(0.5), 0)


def test_random_peaks_all_fire_and_are_what_the_network_gives(net, world):
    peaks = controls.peaks_at_random(net, world.pixels, "conv3", k=4, pool=20)
    images = gallery.images_of(net, world.pixels, torch.arange(24))
    maps = zflib.Deconvnet(net).activations(images, "conv3")
    pool = torch.randperm(24, generator=torch.Generator().manual_seed(0))[:20]
    fires = (maps[pool].amax(dim=(2, 3)) > 0).sum(dim=0)  # (C,)
    assert torch.equal((peaks.images >= 0).sum(dim=1), fires.clamp(max=4))
    for channel, rank in (peaks.images >= 0).nonzero().tolist():
        image, (row, column) = int(peaks.images[channel, rank]), peaks.positions[channel, rank].tolist()
        assert image in pool and float(peaks.values[channel, rank]) > 0
        assert float(peaks.values[channel, rank]) == pytest.approx(float(maps[image, channel, row, column]), abs=1e-4)
        assert float(maps[image, channel].max()) == pytest.approx(float(maps[image, channel, row, column]), abs=1e-4)
    assert all(len(set(row[row >= 0].tolist())) == int((row >= 0).sum()) for row in peaks.images)


def test_other_seeds_draw_other_images(net, world):
    one, other = (controls.peaks_at_random(net, world.pixels, "conv1", k=4, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.images, other.images)


def test_projections_of_one_place_agree_and_the_numbers_are_those_of_the_gallery(net, world):
    peaks = zflib.find_peaks(net, world.pixels, layers=["conv2"], k=3)["conv2"]
    same = Peaks(*(part[:, :1].repeat_interleave(3, dim=1) for part in (peaks.values, peaks.images, peaks.positions)))
    channels = gallery.alive(peaks)[:2]
    drawn, seen = controls.contour_agreement(Units(net, world.pixels, peaks={"conv2": same}), "conv2", channels)
    assert torch.allclose(drawn, torch.ones(2), atol=1e-4) and torch.allclose(seen, torch.ones(2), atol=1e-4)
    units = Units(net, world.pixels, peaks={"conv2": peaks})
    drawn, _ = controls.contour_agreement(units, "conv2", channels)
    expected = gallery.mean_correlation(gallery.edge_maps(units.unit("conv2", int(channels[0])).projections))
    assert float(drawn[0]) == pytest.approx(float(expected))


def test_strongest_and_random_are_measured_on_the_same_channels(net):
    windows = data.windows({"chelsea": data.photo("chelsea")}, sizes=(64,), stride=0.5)
    found = controls.strongest_and_random(net, windows, "conv2", count=3)
    assert [len(values) for values in found.values()] == [3] * 4
    peaks = controls.peaks_at_random(net, windows.pixels, "conv2")
    living = gallery.sample_channels(zflib.find_peaks(net, windows.pixels, layers=["conv2"])["conv2"], 3, seed=5)
    drawn, seen = controls.contour_agreement(Units(net, windows.pixels, peaks={"conv2": peaks}), "conv2", living)
    assert torch.allclose(found["random projections"], drawn) and torch.allclose(found["random patches"], seen)


def test_the_mean_and_its_error():
    assert controls.mean_and_error(torch.tensor([1.0, 2.0, 3.0])) == (2.0, pytest.approx(1 / 3**0.5))
