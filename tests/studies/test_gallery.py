"""Figure 2 as data: windows, the nine strongest by brute force, measures against closed forms, and the file."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import zflib
from zflib import _files, data, experiments, models
from zflib.experiments.top_images import Peaks
from zflib.models import Conv, Geometry, ZFNet
from zflib.studies import gallery, units

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
    return gallery.mine(net, pixels, torch.arange(40) % 5, layers=["conv1", "conv2"], chosen=2, k=4, names=names)


# --- windows ---------------------------------------------------------------------------------------------------------


def test_windows_are_the_picture_at_their_boxes():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = data.windows({"noise": picture}, sizes=(16, 32), stride=0.5, side=16)
    assert len(found) == 4 * 5 + 1 * 2 and found.names == ("noise",)
    for i in range(20):  # these are as large as a window: nothing is resized
        top, left, bottom, right = found.boxes[i].tolist()
        assert (bottom - top, right - left) == (16, 16)
        assert np.array_equal(found.pixels[i].permute(1, 2, 0).numpy(), picture[top:bottom, left:right])
    half = Image.fromarray(picture).crop((0, 0, 32, 32)).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.abs(found.pixels[20].permute(1, 2, 0).numpy().astype(int) - np.asarray(half)).max() <= 1
    assert len({tuple(box) for box in found.boxes.tolist()}) == len(found)


def test_windows_of_the_shipped_photographs():
    found = data.windows(sizes=(216,), stride=1)
    assert found.pixels.shape[1:] == (3, 64, 64) and found.pixels.dtype == torch.uint8
    assert "motorcycle" not in found.names and len(found.names) == 7


def test_a_box_in_a_window_is_found_in_its_picture():
    found = data.windows({"grey": np.zeros((100, 120, 3), np.uint8)}, sizes=(80,), stride=0.25, side=20)
    whole = torch.tensor([-1, -1, 19, 19])  # a crop of 18 pixels begins 1 pixel inside: this is the whole window
    for i in range(len(found)):
        assert found.inside(torch.tensor(i), whole, crop=18).tolist() == found.boxes[i].tolist()
    assert found.inside(torch.tensor([0]), torch.tensor([[0, 1, 2, 3]]), crop=18).tolist() == [[4, 8, 12, 16]]


@pytest.mark.parametrize("wrong, sentence", [
    ({"pictures": {}}, "pictures must be a dict"), ({"pictures": [np.zeros((9, 9, 3))]}, "pictures must be a dict"),
    ({"sizes": ()}, "sizes and side must be"), ({"sizes": (4,)}, "at least 8"), ({"stride": 0}, "stride must be"),
    ({"stride": 2}, "stride must be"), ({"side": 1.5}, "sizes and side"), ({"sizes": (5000,)}, "no window of 5000"),
])  # fmt: skip
def test_windows_names_what_is_wrong(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        data.windows(**wrong)


def test_suppress_overlaps_keeps_the_strongest_of_each_place():
    boxes = torch.tensor([[[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [0, 20, 10, 30], [0, 28, 10, 38]]])
    owners = torch.tensor([[0, 0, 1, 0, 0]])
    peaks = Peaks(
        torch.tensor([[5.0, 4, 3, 2, 1]]), torch.tensor([[10, 11, 12, 13, 14]]), torch.arange(10).view(1, 5, 2)
    )
    kept = experiments.suppress_overlaps(
        peaks, owners, boxes, k=4
    )  # 11 shows 10's place; 12 is another picture; 14 touches 13 only
    assert kept.images.tolist() == [[10, 12, 13, 14]] and kept.values.tolist() == [[5, 3, 2, 1]]
    assert kept.positions[0, 1].tolist() == [4, 5]
    few = experiments.suppress_overlaps(peaks, owners, boxes, k=5)
    assert few.images[0, 4] == -1 and few.values[0, 4] == -torch.inf and few.positions[0, 4].tolist() == [-1, -1]
    assert experiments.suppress_overlaps(peaks, owners, boxes, k=4, overlap=0.99).images.tolist() == [[10, 11, 12, 13]]


# --- measures --------------------------------------------------------------------------------------------------------


def test_purity_is_the_share_of_the_most_common():
    labels = torch.tensor([[1, 1, 1, 2], [1, 2, 3, 4], [2, 2, 4, 4], [7, 7, 7, 7]])
    assert gallery.purity(labels).tolist() == [0.75, 0.25, 0.5, 1.0]
    assert gallery.purity(labels.view(2, 2, 4)).shape == (2, 2)
    for wrong in (torch.rand(2, 3), torch.empty(2, 0, dtype=torch.int64), torch.tensor(3)):
        with pytest.raises(ValueError, match="labels must be"):
            gallery.purity(wrong)


def test_chance_purity_against_all_cases():
    counts = [2, 1, 1]  # four images, two of them drawn: 6 pairs, one of one class
    expected = np.mean([1.0 if a == b else 0.5 for a, b in itertools.combinations([0, 0, 1, 2], 2)])
    assert gallery.chance_purity(counts, k=2, draws=20000) == pytest.approx(expected, abs=0.01)
    assert gallery.chance_purity([50], k=9) == 1
    assert gallery.chance_purity([1] * 9, k=9) == pytest.approx(1 / 9)
    with pytest.raises(ValueError, match="counts must be"):
        gallery.chance_purity([3, 3], k=9)


def test_agreement_against_numpy():
    pictures = torch.randn(2, 5, 3, 6, 7)
    for one, found in zip(pictures, gallery.agreement(pictures)):
        table = np.corrcoef(one.flatten(1).numpy())
        assert float(found) == pytest.approx((table.sum() - 5) / 20, abs=1e-5)


def test_agreement_of_known_pictures():
    one = torch.randn(3, 5, 5)
    assert float(gallery.agreement(torch.stack([one, 3 * one + 2, one - 7]))) == pytest.approx(1, abs=1e-5)
    assert float(gallery.agreement(torch.stack([one, -one]))) == pytest.approx(-1, abs=1e-5)
    assert float(gallery.agreement(torch.stack([one, one, torch.full_like(one, 4.0)]))) == pytest.approx(
        1 / 3, abs=1e-5
    )
    with pytest.raises(ValueError, match="k at least 2"):
        gallery.agreement(one[None])


def test_contours_do_not_mind_sign_and_brightness_and_see_where_an_edge_is():
    step = torch.zeros(1, 1, 9, 9)
    step[..., 5:] = 3.0
    expected = torch.tensor([[0, 3 / 4], [0, 3 / 4]])  # an edge between columns 4 and 5, in a cell of four columns
    torch.testing.assert_close(gallery.contours(step)[0, 0], expected)
    torch.testing.assert_close(gallery.contours(7 - step), gallery.contours(step))
    with pytest.raises(ValueError, match="larger than cells of 4"):
        gallery.contours(step[..., :4, :4])


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
    with pytest.raises(ValueError, match="points must be"):
        gallery.nearest_part(world, torch.arange(3), torch.rand(2, 2))


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
        assert set(mined.chosen[layer].tolist()) <= set(living.tolist()) and len(mined.chosen[layer]) == 2
        for row, channel in enumerate(mined.chosen[layer].tolist()):
            expected = deconvnet.project(images[order[channel]], layer, channel)
            torch.testing.assert_close(mined.projections[layer][row], expected, rtol=1e-4, atol=1e-6)
            boxes = [zflib.receptive_field(net, layer, p) for p in mined.peaks[layer].positions[channel].tolist()]
            seen = zflib.experiments.patches(images[order[channel]], gallery.middle(torch.tensor(boxes), 10))
            assert float(mined.patch_agreement[layer][row]) == pytest.approx(float(gallery.agreement(seen)), abs=1e-5)
        assert torch.equal(mined.purities(layer), gallery.purity(mined.labels[layer][living]))
    winners = torch.cat([p.images.flatten() for p in mined.peaks.values()]).unique().tolist()
    assert mined.names == {number: f"val_{number}.JPEG" for number in winners}
    assert mined.counts.tolist() == [8] * 5 and mined.classes == list("abcde")


def test_cropped_projections_are_what_lies_in_the_receptive_field(net, mined):
    cut = mined.cropped(net, "conv1")
    assert cut.shape == (2, 4, 3, 3, 3)
    for row, channel in enumerate(mined.chosen["conv1"].tolist()):
        for place, position in enumerate(mined.peaks["conv1"].positions[channel].tolist()):
            inside = zflib.show.crop_box(
                mined.projections["conv1"][row, place], zflib.receptive_field(net, "conv1", position)
            )
            assert cut[row, place].abs().sum() == pytest.approx(float(inside.abs().sum()), rel=1e-4)


def test_middle_keeps_the_centre():
    boxes = torch.tensor([[-10, -4, 10, 3], [0, 0, 5, 6]])
    assert gallery.middle(boxes, 6).tolist() == [[-3, -4, 3, 2], [0, 0, 5, 6]]


def test_dead_channels_are_not_drawn():
    values = torch.tensor([[9.0, 8], [0.05, 0.04], [0, 0], [5, 0], [4, 3]])
    peaks = Peaks(values, torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2, 2, dtype=torch.int64))
    assert gallery.alive(peaks).tolist() == [0, 4]
    assert gallery.draw(peaks, 2).tolist() == [0, 4]
    with pytest.raises(ValueError, match="number must be from 1 to 2"):
        gallery.draw(peaks, 3)


def test_the_file_gives_back_what_was_saved(mined, tmp_path):
    path = tmp_path / "small-peaks.npz"
    gallery.save(mined, path)
    again = gallery.load_file(path)
    for layer in mined.layers:
        for what in ("values", "images", "positions"):
            assert torch.equal(getattr(again.peaks[layer], what), getattr(mined.peaks[layer], what))
        assert torch.equal(again.labels[layer], mined.labels[layer]) and torch.equal(
            again.chosen[layer], mined.chosen[layer]
        )
        torch.testing.assert_close(again.projections[layer], mined.projections[layer], rtol=1e-3, atol=1e-4)
    assert (again.names, again.classes, again.network) == (mined.names, mined.classes, "of these weights")
    assert again.chance() == mined.chance() and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_load_refuses_damage_other_weights_and_code(mined, tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "SHIPPED", tmp_path)
    with pytest.raises(ValueError, match=r"'small' has no gallery here; python -m zflib\.gallery small makes one"):
        gallery.load("small")
    path = tmp_path / "small-peaks.npz"
    gallery.save(mined, path)
    assert gallery.load("small").network == mined.network
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


def test_bad_input_is_named(net, pixels):
    labels = torch.zeros(40, dtype=torch.int64)
    wrong = [
        (
            lambda: gallery.mine(net, pixels, labels[:3], layers=["conv1"], chosen=1),
            "labels must be one for each of the 40",
        ),
        (
            lambda: gallery.mine(net, pixels[:3], labels[:3], layers=["conv1"], chosen=1),
            "images must be at least k = 9",
        ),
        (lambda: gallery.mine(net, pixels, labels, layers=["conv1"], chosen=99), "number must be from 1"),
        (lambda: gallery.mine(net, pixels, labels, layers=["conv1"], chosen="2"), "number must be from 1"),
        (lambda: gallery.mine(net, pixels, labels.float(), layers=["conv1"], chosen=1), "labels must be .* integers"),
        (
            lambda: gallery.mine(net, pixels, labels - 1, layers=["conv1"], chosen=1),
            "labels must be classes from 0 to 4",
        ),
        (
            lambda: gallery.mine(net, pixels, labels + 5, layers=["conv1"], chosen=1),
            "labels must be classes from 0 to 4",
        ),
        (lambda: gallery.mine(net, pixels, None, layers=["conv1"], chosen=1), "labels must be one class for each"),
        (
            lambda: gallery.mine(net, pixels, labels, layers=["conv1"], chosen={"conv2": [0]}),
            "chosen: the layer must be",
        ),
        (lambda: gallery.mine(net, pixels, labels, layers=["conv1"], chosen={"conv1": [4]}), "channels 0 to 3, got"),
        (lambda: gallery.load_file("nowhere.npz"), "there is no file 'nowhere.npz'; gallery.save writes one"),
        (lambda: gallery.mine(net, pixels, labels, layers=["conv9"], chosen=1), "layer 'conv9' is not"),
        (lambda: gallery.images_of(net, iter(pixels), torch.tensor([0])), "an iterator gives each image once"),
        (lambda: units.Units(net, pixels, layers=["conv2"], peaks={"conv1": None}), "peaks has no layer 'conv2'"),
        (lambda: units.Units(net, pixels, layers=["conv1"], labels=labels[:2]), "labels must be one for each image"),
    ]
    for call, sentence in wrong:
        with pytest.raises((ValueError, TypeError, OSError), match=sentence):
            call()


def test_the_command_mines_and_writes(net, pixels, tmp_path, monkeypatch, capsys):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(f"val_{i}.JPEG\tA\n" for i in range(40)))
    monkeypatch.setattr(models, "load", lambda name: net)
    monkeypatch.setattr(
        gallery.data, "tiny_imagenet", lambda root, split: (pixels, torch.arange(40) % 5, list("ABCDE"))
    )
    out = tmp_path / "small-peaks.npz"
    gallery.main(["small", "--data", str(tmp_path), "--out", str(out), "--channels", "1", "--first", "30"])
    found = gallery.load_file(out)
    assert found.counts.sum() == 30 and max(found.names) < 30 and found.names[min(found.names)].startswith("val_")
    assert "conv2: purity" in capsys.readouterr().out
    monkeypatch.setattr(net, "wnids", list("FGHIJ"))
    with pytest.raises(SystemExit, match="was not trained on the classes"):
        gallery.main(["small", "--data", str(tmp_path), "--out", str(out)])


# --- one unit --------------------------------------------------------------------------------------------------------


def test_a_unit_is_the_deconvnets_and_its_boxes_are_the_fields(net, pixels, mined):
    known = units.Units(net, pixels, peaks=mined.peaks, labels=torch.arange(40) % 5)
    images = data.centre_crop(net.normalise(torch.from_numpy(pixels)), 10)
    for layer in ("conv1", "conv2"):
        for channel in gallery.alive(mined.peaks[layer]).tolist():
            unit, peaks = known.unit(layer, channel), mined.peaks[layer]
            assert torch.equal(unit.images, images[peaks.images[channel]])
            boxes = [zflib.receptive_field(net, layer, position) for position in peaks.positions[channel].tolist()]
            assert unit.boxes.tolist() == [list(box) for box in boxes]
            whole = zflib.Deconvnet(net).project(unit.images, layer, channel, positions=peaks.positions[channel])
            cut = gallery.cut(net, layer, whole, peaks.positions[channel])
            torch.testing.assert_close(unit.projections, cut, rtol=1e-4, atol=1e-6)
            assert known.names(unit) == [net.classes[n % 5] for n in unit.numbers.tolist()]
            assert float(unit.map.max()) == pytest.approx(float(peaks.values[channel, 0]), rel=1e-4)


def test_words_count_what_repeats(net, pixels, mined):
    unit = units.Units(net, pixels, peaks=mined.peaks).unit("conv1", int(mined.chosen["conv1"][0]))
    assert "They are: fox ×2, cat." in units.describe_unit(unit, ["fox", "cat", "fox"])
    assert units.describe_unit(unit, ["a", "b", "c"]).endswith("They are: a, b, c.")
    assert "over the fourth" in units.describe_unit(unit, []) and "They are" not in units.describe_unit(unit, [])


def test_spotlight_dims_where_the_map_is_zero():
    white = np.full((8, 8, 3), 200, np.uint8)
    lit = units.spotlight(white, torch.tensor([[0.0, 0.0], [0.0, 5.0]]))
    assert lit[0, 0, 0] == 100 and lit[7, 7, 0] == 200 and lit.shape == white.shape
    assert (units.spotlight(white, torch.zeros(2, 2)) == 100).all()


def test_a_shipped_gallery_fits_its_network():
    for path in _files.SHIPPED.glob("*-peaks.npz"):
        name = path.name.removesuffix("-peaks.npz")
        found, trained = gallery.load(name), zflib.load(name)
        assert path.stat().st_size < 8 << 20
        assert found.layers == [layer for layer in trained.layer_names if layer.startswith("conv")]
        for layer in found.layers:
            assert len(found.peaks[layer].values) == trained.get_submodule(layer).out_channels
            assert int(found.peaks[layer].images.max()) < int(found.counts.sum())
        assert replace(found).classes == trained.classes
