"""The networks: geometry, names, response normalisation, and weights in files that cannot run code."""

import json
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import zflib
from zflib import _files, models
from zflib.models import ZFNET, Conv, Geometry
from zflib.models.response_norm import ResponseNorm
from zflib.train import filters

NAMES = ["conv1", "pool1", "norm1", "conv2", "pool2", "norm2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8"]


# --- geometry -------------------------------------------------------------------------------------------------------


def test_the_papers_network():
    with torch.device("meta"):
        net = zflib.ZFNet()
    assert net.layer_names == NAMES and net.num_classes == 1000
    assert net.map_sizes() == [110, 55, 26, 13, 13, 13, 13, 6]
    assert 61.5e6 < sum(p.numel() for p in net.parameters()) < 62.5e6
    d, images = zflib.Deconvnet(zflib.ZFNet(2, geometry=replace(ZFNET, hidden=(8, 8)))), torch.randn(1, 3, 224, 224)
    shapes = {tuple(step.shape[1:]) for step in d.record(images, "fc8").steps}
    for maps in ((96, 110, 110), (96, 55, 55), (256, 26, 26), (256, 13, 13), (384, 13, 13), (256, 6, 6)):
        assert maps in shapes


def test_the_quarter_scale():
    net = zflib.zfnet56()
    assert net.layer_names == NAMES and net.num_classes == 200
    assert net.map_sizes() == [28, 14, 14, 7, 7, 7, 7, 3]
    d, images = zflib.Deconvnet(net), torch.randn(1, 3, 56, 56)
    maps = [name for name in NAMES if name.startswith(("conv", "pool"))]
    for name, side in zip(maps, net.map_sizes(), strict=True):
        assert d.activations(images, name).shape[2:] == (side, side)
    fields = [zflib.receptive_field(net, f"conv{i}", (3, 3)) for i in range(1, 6)]
    assert [bottom - top for top, _, bottom, _ in fields] == [7, 27, 51, 67, 83]


def test_names_mean_the_maps_after_the_relu():
    torch.manual_seed(0)
    net, images = zflib.zfnet56(4).eval(), torch.randn(2, 3, 56, 56)
    d = zflib.Deconvnet(net)
    with torch.no_grad():
        assert torch.equal(d.activations(images, "conv1"), net.conv1(images).relu())
        assert torch.equal(d.activations(images, "fc8"), net(images))
    assert (d.activations(images, "fc6") >= 0).all() and (d.activations(images, "fc8") < 0).any()
    assert torch.equal(d.activations(images, "relu3"), d.activations(images, "conv3"))
    assert [net.layer_path(n) for n in ("conv2", "fc7", "fc8", "pool1", "norm2")] == [
        "relu2",
        "relu7",
        "fc8",
        "pool1",
        "norm2",
    ]


def test_a_network_of_other_shape():
    geometry = Geometry(32, 24, (Conv(4, 3), Conv(6, 3, stride=2, pool=True, norm=True)), hidden=(5,))
    net = zflib.ZFNet(3, geometry=geometry, batch_norm=True)
    assert net.layer_names == ["conv1", "conv2", "pool2", "norm2", "fc3", "fc4"] and net.conv1.bias is None
    assert net.eval()(torch.randn(2, 3, 24, 24)).shape == (2, 3)
    assert zflib.Deconvnet(net).project(torch.randn(1, 3, 24, 24), "fc3", 0).shape == (1, 3, 24, 24)


# --- pixels and units -----------------------------------------------------------------------------------------------


def coded(height, width):
    """A uint8 image whose red is the row and whose green is the column."""
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    image[..., 0] = torch.arange(height)[:, None]
    image[..., 1] = torch.arange(width)
    return image.numpy()


def test_preprocess_and_ten_crop():
    net = zflib.zfnet56(2)
    crop = net.denormalise(net.preprocess(coded(64, 80)))
    assert crop.shape == (1, 3, 56, 56)
    assert crop[0, 0, 0, 0].round() == 4 and crop[0, 1, 0, 0].round() == 12  # the centre
    crops = net.denormalise(net.ten_crop([coded(64, 64), coded(64, 64)]))
    assert crops.shape == (2, 10, 3, 56, 56)
    corners = [tuple(c[:2, 0, 0].round().int().tolist()) for c in crops[0, :5]]
    assert set(corners[:4]) == {(0, 0), (0, 8), (8, 0), (8, 8)} and corners[4] == (4, 4)
    assert torch.equal(crops[:, 5:], crops[:, :5].flip(-1))
    assert torch.equal(crops[0], crops[1])


def test_normalise_and_back():
    net, pixels = zflib.zfnet56(2), torch.rand(2, 3, 4, 4) * 255
    net.scale.fill_(64.0)
    torch.testing.assert_close(net.denormalise(net.normalise(pixels)), pixels)
    assert net.normalise(net.mean.expand(1, 3, 2, 2)).abs().max() == 0
    assert net.normalise(pixels.byte()).dtype == torch.float32


# --- response normalisation -----------------------------------------------------------------------------------------

SETTINGS = [
    (5, 1e-4, 0.75, 2.0),
    (3, 1.0, 0.75, 1.0),
    (4, 0.5, 0.5, 2.0),
    (1, 1.0, 1.0, 1.0),
    (2, 0.3, 0.75, 0.5),
    (9, 2.0, 1.3, 1.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", [(2, 7, 3, 4), (2, 3, 2, 2), (3, 7, 5), (1, 1, 2, 2), (2, 6, 2, 2, 2)], ids=str)
def test_response_norm_is_torchs(settings, shape):
    torch.manual_seed(0)
    size, alpha, beta, k = settings
    ours, theirs = ResponseNorm(size, alpha=alpha, beta=beta, k=k), nn.LocalResponseNorm(size, alpha, beta, k)
    maps = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours(maps), theirs(maps))
    (a,), (b,) = (torch.autograd.grad(norm(maps), maps, grad) for norm in (ours, theirs))
    torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(ours, maps)


def test_response_norm_has_second_derivatives():
    """Backwards twice, and forwards over backwards as torch.func takes them."""
    norm = ResponseNorm(3, alpha=1.0)
    maps, direction, weight = torch.randn(3, 1, 5, 2, 2, dtype=torch.float64, generator=torch.manual_seed(0))
    assert torch.autograd.gradgradcheck(norm, maps.clone().requires_grad_())
    theirs = nn.LocalResponseNorm(3, 1.0, 0.75, 2.0)
    products = [
        torch.func.jvp(torch.func.grad(lambda x, f=f: (weight * f(x)).sum()), (maps,), (direction,))[1]
        for f in (norm, theirs)
    ]
    torch.testing.assert_close(*products)


def test_response_norm_of_units():
    """nn.LocalResponseNorm wants three axes; two are one place each."""
    maps = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ResponseNorm(3)(maps), nn.LocalResponseNorm(3, 1e-4, 0.75, 2.0)(maps[..., None])[..., 0])
    assert torch.autograd.gradcheck(ResponseNorm(3, alpha=1.0), maps)


def seconds(norm, maps, grad):
    start = time.perf_counter()
    norm(maps).backward(grad)
    return time.perf_counter() - start


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.nightly
def test_response_norm_is_faster(one_thread):
    """At least twice; alone on a machine it is more than three times (tests/bench/bench_response_norm.py)."""
    maps, ours, theirs = torch.randn(32, 64, 28, 28, requires_grad=True), ResponseNorm(), nn.LocalResponseNorm(5)
    grad = torch.randn(maps.shape)
    for _ in range(3):  # a machine that is busy gets more than one chance
        best = [min(seconds(norm, maps, grad) for _ in range(5)) for norm in (ours, theirs)]
        if best[1] > 2 * best[0]:
            return
    pytest.fail(f"{best[1] / best[0]:.2f} times as fast")


# --- files ----------------------------------------------------------------------------------------------------------

TINY = Geometry(16, 14, (Conv(4, 3, pool=True, norm=True),), hidden=(5,))


def trained(seed=0):
    torch.manual_seed(seed)
    net = zflib.ZFNet(3, geometry=TINY)
    net.classes, net.wnids = ["tench", "goldfish", "shark"], ["n01440764", "n01443537", "n01484850"]
    net.scale.fill_(58.5)
    return net


@pytest.fixture
def saved(tmp_path):
    models.save(trained(), tmp_path / "tiny.pt", {"name": "tiny", "accuracy": 0.5})
    return tmp_path / "tiny.pt"


def edit(path, **values):
    card = json.loads(path.with_suffix(".json").read_text()) | values
    path.with_suffix(".json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))


def reseal(path):
    import hashlib

    edit(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_round_trip(saved):
    net, again = trained(), models.load_file(saved)
    assert not again.training and again.layer_names == net.layer_names and again.geometry == net.geometry
    assert (again.classes, again.wnids, again.card["accuracy"]) == (net.classes, net.wnids, 0.5)
    for name, values in net.state_dict().items():
        assert again.state_dict()[name].dtype == torch.float32
        torch.testing.assert_close(again.state_dict()[name], values, rtol=1e-3, atol=1e-7)
    images = torch.randn(2, 3, 14, 14)
    torch.testing.assert_close(again(images), net.eval()(images), rtol=1e-2, atol=1e-3)
    models.save(again, saved, {})
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), models.load_file(saved).state_dict().values())
    )


def test_damaged_and_cut_off_files(saved):
    content, promised = saved.read_bytes(), json.loads(saved.with_suffix(".json").read_text())["sha256"]
    for damaged in (content[:-100], content[:900] + bytes([content[900] ^ 1]) + content[901:], b""):
        saved.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=rf"tiny.pt is damaged: SHA-256 [0-9a-f]{{64}}, its card says {promised}; fetch it again"
        ):
            models.load_file(saved)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_loading_never_runs_code(saved, tmp_path):
    for write in (
        lambda f: torch.save({"conv1.weight": Bomb(tmp_path / "ran")}, f),
        lambda f: pickle.dump(Bomb(tmp_path / "ran"), f),
    ):
        with open(saved, "wb") as file:
            write(file)
        reseal(saved)
        with pytest.raises(
            ValueError, match=r"tiny.pt does not hold the weights of its card \(only tensors are read, never code\)"
        ) as caught:
            models.load_file(saved)
        assert "weights_only" not in str(caught.value)  # torch's advice: to run the code after all
        assert not (tmp_path / "ran").exists()


def test_files_that_are_not_weights(saved):
    for content in (b"not a torch file", b"PK\x03\x04"):
        saved.write_bytes(content)
        reseal(saved)
        with pytest.raises(ValueError, match=r"tiny.pt does not hold the weights of its card"):
            models.load_file(saved)
    for content in ([1, 2], {"conv1.weight": torch.zeros(1)}, {"conv1.weight": "text"}, torch.zeros(3)):
        torch.save(content, saved)
        reseal(saved)
        with pytest.raises(ValueError, match=r"tiny.pt does not hold the weights of its card"):
            models.load_file(saved)


@pytest.mark.parametrize("more, reason", [
    ({"epoch": 3}, "'epoch' is a value of type int, not a tensor of real numbers"),
    ({"optimizer": {"lr": 0.1}}, "'optimizer' is a value of type dict, not a tensor"),
    ({"conv1.weight": torch.zeros(1, dtype=torch.complex64)}, "'conv1.weight' is torch.complex64, not a tensor"),
    ({"scale": torch.tensor(1)}, "'scale' is torch.int64, not a tensor of real numbers"),
])  # fmt: skip
def test_a_state_that_holds_other_things(saved, more, reason):
    torch.save(torch.load(saved, weights_only=True) | more, saved)
    reseal(saved)
    with pytest.raises(ValueError, match=rf"tiny.pt does not hold the weights of its card \({reason}"):
        models.load_file(saved)


@pytest.mark.parametrize("key", ["sha256", "classes", "wnids", "geometry"])
def test_cards_without_a_key(saved, key):
    edit(saved, **{key: None})
    with pytest.raises(ValueError, match=rf"tiny.json is not a model card: .*'{key}'; give one that models.save wrote"):
        models.load_file(saved)


@pytest.mark.parametrize("geometry", [{"crop": 3}, {"unknown": 1}], ids=str)
def test_cards_with_a_wrong_geometry(saved, geometry):
    edit(saved, geometry=geometry)
    with pytest.raises(ValueError, match=r"tiny.json is not a model card"):
        models.load_file(saved)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff\xfe"])
def test_cards_that_are_no_cards(saved, text):
    saved.with_suffix(".json").write_bytes(text)
    with pytest.raises(ValueError, match=r"tiny.json is not a model card"):
        models.load_file(saved)


def test_cards_with_too_few_names(saved):
    edit(saved, classes=["a"])
    with pytest.raises(ValueError, match=r"tiny.json is not a model card: .*as many classes as wnids"):
        models.load_file(saved)


@pytest.mark.parametrize("key, value, reason", [
    ("fc2.bias", torch.full((5,), torch.nan), "fc2.bias holds NaN"),
    ("conv1.weight", torch.full((4, 3, 3, 3), torch.inf), "conv1.weight holds NaN"),
    ("conv1.bias", None, r'Missing key\(s\) in state_dict: "conv1.bias"'),
    ("fc2.bias", torch.zeros(9), "size mismatch for fc2.bias"),
    ("mean", torch.zeros(7), r"'mean' has shape \(7,\), it must be \(3,1,1\), one value for each colour, or \(3,"),
    ("mean", torch.zeros(3), r"'mean' has shape \(3,\), it must be \(3,1,1\)"),
    ("mean", torch.zeros(1, 1, 1), r"'mean' has shape \(1, 1, 1\), it must be \(3,1,1\)"),
    ("mean", torch.zeros(3, 1, 2), r"'mean' has shape \(3, 1, 2\), it must be \(3,1,1\)"),
    ("mean", torch.zeros(()), r"'mean' has shape \(\), it must be \(3,1,1\)"),
    ("mean", torch.zeros(0, 1, 1), r"'mean' has shape \(0, 1, 1\), it must be \(3,1,1\)"),
    ("scale", torch.tensor(0.0), "'scale' is 0, it must be above 0: pixels are divided by it"),
    ("scale", torch.tensor(-2.0), "'scale' is -2, it must be above 0"),
])  # fmt: skip
def test_weights_that_do_not_work_are_refused_with_the_reason(saved, key, value, reason):
    state = torch.load(saved, weights_only=True) | {key: value}
    torch.save({key: value for key, value in state.items() if value is not None}, saved)
    reseal(saved)
    with pytest.raises(ValueError, match=rf"tiny.pt does not hold the weights of its card \(.*{reason}") as caught:
        models.load_file(saved)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 350


@pytest.mark.parametrize("name", ["zf.v2", "zf.v2.pt", "zf"])
def test_a_name_may_hold_dots(name, tmp_path):
    models.save(trained(1), tmp_path / "zf", {"name": "first"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    models.save(trained(2), tmp_path / name, {"name": "second"})
    if name != "zf":
        assert all((tmp_path / file).read_bytes() == content for file, content in before.items())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["zf.json", "zf.pt", "zf.v2.json", "zf.v2.pt"]
    for again in (name, str(tmp_path / name), f"{name.removesuffix('.pt')}.pt"):
        assert models.load_file(tmp_path / again).card["name"] == "second"


def test_missing_files(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pt and its card none.json are needed; models.save writes both"):
        models.load_file(tmp_path / "none.pt")
    saved.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"card tiny.json are needed"):
        models.load_file(saved)


def test_unknown_names_list_the_names(saved, monkeypatch):
    monkeypatch.setattr(_files, "SHIPPED", saved.parent)
    assert models.shipped() == ["squeezenet", "tiny"] and zflib.load("tiny").classes[0] == "tench"
    for name in ("zfnet", "../tiny"):
        with pytest.raises(ValueError, match="is not a network that zflib ships; it has squeezenet, tiny"):
            zflib.load(name)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    _files.write_atomically(path, b"old")
    assert path.read_bytes() == b"old" and path.stat().st_mode & 0o777 == 0o644

    def fails(*args):
        raise OSError("disk full")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fails)
            with pytest.raises(OSError, match="disk full"):
                _files.write_atomically(path, b"new and longer")
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
    _files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


def test_an_interrupted_save_leaves_a_pair_that_loads_or_says_so(saved, monkeypatch):
    """Weights and card are two files: between their two renames the sums differ, and loading says so."""
    expected, real = models.load_file(saved).state_dict(), _files.write_atomically

    def once(path, content):
        if path.suffix == ".pt":
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(_files, "write_atomically", once)
    with pytest.raises(KeyboardInterrupt):
        models.save(trained(1), saved, {})
    assert all(torch.equal(a, b) for a, b in zip(expected.values(), models.load_file(saved).state_dict().values()))


def test_saving_says_what_is_wrong(tmp_path):
    net = trained()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        models.save(net, tmp_path / "nowhere" / "tiny.pt", {})
    net.fc3.weight.data[0, 0] = 1e9
    with pytest.raises(ValueError, match=r"fc3.weight holds NaN, or values that half precision cannot hold"):
        models.save(net, tmp_path / "tiny.pt", {})
    with pytest.raises(ValueError, match="net has 2 classes and 3 wnids for 3 outputs"):
        net = trained()
        net.classes = net.classes[:2]
        models.save(net, tmp_path / "tiny.pt", {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        models.save(trained(), tmp_path / "tiny.pt", {"a": torch.zeros(1)})
    assert not list(tmp_path.iterdir())
    net = zflib.ZFNet(3, geometry=TINY, batch_norm=True)
    net.classes, net.wnids = list("abc"), list("abc")
    with pytest.raises(ValueError, match="net has batch normalisations; fold it first"):
        models.save(net, tmp_path / "tiny.pt", {})
    models.save(filters.fold(net), tmp_path / "tiny.pt", {})
    assert models.load_file(tmp_path / "tiny").classes == ["a", "b", "c"]
