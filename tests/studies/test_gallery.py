"""Figure 2 as data: the nine strongest by brute force, measures against closed forms, and the file."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import zflib
from zflib import _files, data
from zflib.deconv.receptive_boxes import patches
from zflib.experiments.top_k import Peaks
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import gallery
from zflib.studies.channel_names import named_channels

TINY = Geometry(12, 10, (Conv(4, 3, padding=1, pool=True, norm=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))


@pytest.fixture(scope="module")
def net() -> ZFNet:
    torch.manual_seed(1)
    net = ZFNet(5, geometry=TINY).eval()
    net.classes, net.wnids = list("abcde"), list("ABCDE")
    net.card = {"sha256": "of these weights"}
    return net


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)


@pytest.fixture(scope="module")
def mined(net, pixels):
    names = [f"val_{i}.JPEG" for i in range(40)]
    layers, also = ["conv1", "conv2"], {"conv2": [5, 5]}
    return gallery.mine(net, pixels, torch.arange(40) % 5, layers=layers, chosen=2, k=4, names=names, also=also)


# --- measures --------------------------------------------------------------------------------------------------------


def test_purity_is_the_share_of_the_most_common():
    labels = torch.tensor([[1, 1, 1, 2], [1, 2, 3, 4], [2, 2, 4, 4], [7, 7, 7, 7]])
    assert gallery.purity(labels).tolist() == [0.75, 0.25, 0.5, 1.0]
    assert gallery.purity(labels.view(2, 2, 4)).shape == (2, 2)


def test_chance_purity_against_all_cases():
    counts = [2, 1, 1]  # four images, two of them drawn: 6 pairs, one of one class
    expected = np.mean([1.0 if a == b else 0.5 for a, b in itertools.combinations([0, 0, 1, 2], 2)])
    assert gallery.chance_purity(counts, k=2, draws=20000) == pytest.approx(expected, abs=0.01)
    assert gallery.chance_purity([50], k=9) == 1
    assert gallery.chance_purity([1] * 9, k=9) == pytest.approx(1 / 9)


def test_mean_correlation_against_numpy():
    pictures = torch.randn(2, 5, 3, 6, 7)
    for one, found in zip(pictures, gallery.mean_correlation(pictures)):
        table = np.corrcoef(one.flatten(1).numpy())
        assert float(found) == pytest.approx((table.sum() - 5) / 20, abs=1e-5)


def test_mean_correlation_of_known_pictures():
    one = torch.randn(3, 5, 5)
    assert float(gallery.mean_correlation(torch.stack([one, 3 * one + 2, one - 7]))) == pytest.approx(1, abs=1e-5)
    assert float(gallery.mean_correlation(torch.stack([one, -one]))) == pytest.approx(-1, abs=1e-5)
    assert float(gallery.mean_correlation(torch.stack([one, one, torch.full_like(one, 4.0)]))) == pytest.approx(
        1 / 3, abs=1e-5
    )
    with pytest.raises(ValueError, match="k at least 2"):
        gallery.mean_correlation(one[None])


def test_edge_maps_do_not_mind_sign_and_brightness_and_see_where_an_edge_is():
    step = torch.zeros(1, 1, 9, 9)
    step[..., 5:] = 3.0
    expected = torch.tensor([[0, 3 / 4], [0, 3 / 4]])  # an edge between columns 4 and 5, in a cell of four columns
    torch.testing.assert_close(gallery.edge_maps(step)[0, 0], expected)
    torch.testing.assert_close(gallery.edge_maps(7 - step), gallery.edge_maps(step))


def test_nearest_part_against_a_loop():
    world = zflib.scenes.scenes(30, seed=2)
    kinds = gallery.part_kinds(world)
    assert "eye" in kinds and "wheel" in kinds and len(kinds) == len(set(kinds))
    points = torch.rand(30, 2) * 64
    found, distances = gallery.nearest_part(world, torch.arange(30), points)
    for i in range(30):
        names = world.part_names[int(world.labels[i])]
        away = (world.parts[i, : len(names)] - points[i]).norm(dim=1)
        assert float(distances[i]) == pytest.approx(float(away.min()), abs=1e-4)
        assert names[int(away.argmin())].endswith(kinds[int(found[i])])


# --- the gallery -----------------------------------------------------------------------------------------------------


def test_mine_finds_labels_and_draws_every_winner(net, pixels, mined):
    images = data.centre_crop(net.normalise(torch.from_numpy(pixels)), 10)
    deconvnet = zflib.Deconvnet(net)
    for layer in ("conv1", "conv2"):
        strongest = deconvnet.activations(images, layer).flatten(2).amax(2)  # (40,C)
        order = strongest.argsort(dim=0, descending=True, stable=True)[:4].T
        living = gallery.alive(mined.peaks[layer])
        assert torch.equal(mined.peaks[layer].images[living], order[living])
        assert torch.equal(mined.labels[layer], mined.peaks[layer].images % 5)
        chosen = mined.chosen[layer].tolist()
        assert set(chosen) <= {*living.tolist(), 5} and len(set(chosen)) == len(chosen) >= 2
        for channel in chosen:
            check_drawn(net, deconvnet, images, layer, channel, order[channel], mined)
        assert torch.equal(mined.purities(layer), gallery.purity(mined.labels[layer][living]))
    assert 5 in mined.chosen["conv2"]
    winners = torch.cat([p.images.flatten() for p in mined.peaks.values()]).unique().tolist()
    assert mined.names == {number: f"val_{number}.JPEG" for number in winners}
    assert mined.counts.tolist() == [8] * 5 and mined.classes == list("abcde")


def check_drawn(net, deconvnet, images, layer, channel, winners, mined):
    """A channel's projections and the agreement of its patches, from the whole pictures of its strongest images."""
    whole = deconvnet.project(images[winners], layer, channel)
    corners = [zflib.receptive_field(net, layer, p) for p in mined.peaks[layer].positions[channel].tolist()]
    boxes = gallery.middle(torch.tensor(corners), 10)
    expected = patches(whole, boxes)
    torch.testing.assert_close(mined.nine(layer, channel), expected, rtol=1e-4, atol=1e-6)
    assert mined.fields[layer] == tuple(expected.shape[-2:])
    alike = float(gallery.mean_correlation(patches(images[winners], boxes)))
    row = mined.chosen[layer].tolist().index(channel)
    assert float(mined.patch_agreement[layer][row]) == pytest.approx(alike, abs=1e-5)


def test_every_channel_has_the_tile_of_its_strongest_image(net, pixels, mined):
    images = data.centre_crop(net.normalise(torch.from_numpy(pixels)), 10)
    for layer, channels in (("conv1", 4), ("conv2", 6)):
        for channel in range(channels):
            image = images[mined.peaks[layer].images[channel, :1]]
            box = zflib.receptive_field(net, layer, mined.peaks[layer].positions[channel, 0].tolist())
            whole = zflib.Deconvnet(net).project(image, layer, channel)
            expected = patches(whole, gallery.middle(torch.tensor([box]), 10))[0]
            torch.testing.assert_close(mined.tile(layer, channel), expected, rtol=1e-4, atol=1e-6)
    channel = int(mined.chosen["conv1"][0])
    assert torch.equal(mined.tile("conv1", channel), mined.nine("conv1", channel)[0])
    assert mined.class_names("conv1", 0) == ["abcde"[label] for label in mined.labels["conv1"][0]]


def test_large_projections_are_averaged_down_and_fewer_can_be_drawn(net, pixels):
    def mine(**options):
        return gallery.mine(net, pixels, torch.zeros(40, dtype=torch.int64), layers=["conv2"], chosen=6, k=4, **options)

    whole, small = mine(), mine(side=3, projected=2)
    assert whole.projections["conv2"].shape[1:] == (4, 3, 9, 9) and whole.fields == small.fields == {"conv2": (9, 9)}
    means = whole.projections["conv2"][:, :2].unflatten(-1, (3, 3)).unflatten(-3, (3, 3)).mean(dim=(-1, -3))
    torch.testing.assert_close(small.projections["conv2"], means)
    assert small.tiles["conv2"].shape == (6, 3, 3, 3)


def test_middle_keeps_the_centre():
    boxes = torch.tensor([[-10, -4, 10, 3], [0, 0, 5, 6]])
    assert gallery.middle(boxes, 6).tolist() == [[-3, -4, 3, 2], [0, 0, 5, 6]]


def test_dead_channels_are_not_drawn():
    values = torch.tensor([[9.0, 8], [0.05, 0.04], [0, 0], [5, 0], [4, 3]])
    peaks = Peaks(values, torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2, 2, dtype=torch.int64))
    assert gallery.alive(peaks).tolist() == [0, 4]
    assert gallery.sample_channels(peaks, 2).tolist() == [0, 4]
    assert gallery.sample_channels(peaks, 3).tolist() == [0, 4]


def test_the_file_gives_back_what_was_saved(mined, tmp_path):
    path = tmp_path / "small-peaks.npz"
    gallery.save(mined, path)
    again = gallery.load_file(path)
    for layer in mined.layers:
        for what in ("values", "images", "positions"):
            assert torch.equal(getattr(again.peaks[layer], what), getattr(mined.peaks[layer], what))
        for what in ("labels", "chosen", "patch_agreement"):
            assert torch.equal(getattr(again, what)[layer], getattr(mined, what)[layer])
        for what in ("tiles", "projections"):
            kept, drawn = getattr(again, what)[layer], getattr(mined, what)[layer]
            largest = drawn.abs().amax(dim=(-3, -2, -1), keepdim=True)
            assert kept.shape == drawn.shape and bool(((kept - drawn).abs() <= largest * 0.501 / 127).all())
            assert bool((kept.abs().amax(dim=(-3, -2, -1)) > 0).any())
    assert (again.names, again.classes, again.network) == (mined.names, mined.classes, "of these weights")
    assert again.fields == mined.fields
    assert again.chance() == mined.chance() and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_silent_channel_is_kept_as_zeros(mined, tmp_path):
    silent = replace(mined, tiles={layer: torch.zeros_like(tiles) for layer, tiles in mined.tiles.items()})
    gallery.save(silent, tmp_path / "silent.npz")
    assert all(not tiles.any() for tiles in gallery.load_file(tmp_path / "silent.npz").tiles.values())


def test_load_refuses_damage_other_weights_and_code(mined, tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "SHIPPED", tmp_path)
    for photographs, words in ((False, r"Tiny ImageNet; .* small --data"), (True, r"photographs; .* small --photo")):
        with pytest.raises(ValueError, match=rf"'small' has no gallery here over {words}.* makes one"):
            gallery.load("small", photographs=photographs)
    path = tmp_path / "small-peaks.npz"
    gallery.save(mined, path)
    assert gallery.load("small").network == mined.network
    gallery.save(replace(mined, names={0: "of photographs"}), tmp_path / "small-photographs.npz")
    assert gallery.load("small", photographs=True).names == {0: "of photographs"}
    (tmp_path / "small.json").write_text('{"sha256": "of others"}')
    with pytest.raises(ValueError, match="other weights than small has now"):
        gallery.load("small")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a gallery, or damaged"):
            gallery.load_file(path)
    np.savez(path, about=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="is not a gallery"):
        gallery.load_file(path)


def test_bad_input_is_named(net, pixels, mined):
    labels = torch.zeros(40, dtype=torch.int64)

    def mine(count=40, labels=labels, chosen=1, layers=("conv1",)):
        return gallery.mine(net, pixels[:count], labels, layers=layers, chosen=chosen)

    wrong = [
        (lambda: mine(labels=labels[:3]), r"labels must be one for each image, got \(3,\) for 40 images"),
        (lambda: mine(labels=labels + 5), "labels must be classes from 0 to 4, got 5"),
        (lambda: mine(labels=labels.float()), "labels must be .* integers"),
        (lambda: mine(3, labels[:3]), "images must be at least k = 9"),
        (lambda: mine(layers=["conv9"]), "layer 'conv9' is not"),
        (lambda: mined.tile("conv9", 0), "layer 'conv9' is not in this gallery; it has conv1, conv2"),
        (lambda: mined.tile("conv1", 4), "channel must be a channel of conv1, from 0 to 3, got 4"),
        (
            lambda: mined.nine("conv1", 9),
            r"channel must be one of those drawn, \[.*\], got 9; `tile` has",
        ),
        (lambda: gallery.load_file("nowhere.npz"), "nowhere.npz is not a gallery, .*No such file"),
        (lambda: gallery.images_of(net, iter(pixels), torch.tensor([0])), "an iterator gives each image once"),
    ]
    for call, sentence in wrong:
        with pytest.raises((ValueError, TypeError, OSError), match=sentence):
            call()


FILES = sorted([*_files.SHIPPED.glob("*-peaks.npz"), *_files.SHIPPED.glob("*-photographs.npz")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_gallery_fits_its_network(path):
    name, _, kind = path.stem.rpartition("-")
    found, trained = gallery.load(name, photographs=kind == "photographs"), zflib.load(name)
    assert path.stat().st_size < 15 << 20
    assert found.layers == trained.conv_names
    for layer in found.layers:
        channels = len(found.peaks[layer].values)
        assert len(found.tiles[layer]) == channels == CHANNELS[name](trained, layer)
        assert int(found.peaks[layer].images.max()) < int(found.counts.sum())
        assert len(found.projections[layer]) == len(found.chosen[layer])
    assert kind == "photographs" or found.classes == trained.classes


CHANNELS = {
    "zfnet56": lambda net, layer: net.get_submodule(layer).out_channels,
    "squeezenet": lambda net, layer: {"conv1": 64}.get(layer) or 2 * net.get_submodule(layer).expand1x1.out_channels,
}


@pytest.mark.parametrize("path", [path for path in FILES if "photographs" in path.name], ids=lambda path: path.stem)
def test_named_channels_are_among_those_drawn(path):
    name = path.stem.rpartition("-")[0]
    found = gallery.load(name, photographs=True)
    assert list(named_channels(name)) and int(found.counts.sum()) == 1000
    for layer, channels in named_channels(name).items():
        assert 5 <= len(channels) <= 8 and set(channels) <= set(found.chosen[layer].tolist())
        assert set(channels) <= set(gallery.alive(found.peaks[layer]).tolist())
        assert len(set(channels.values())) == len(channels), "each has a name of its own"
