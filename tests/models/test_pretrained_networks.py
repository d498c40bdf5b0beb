"""torchvision's networks with their weights, offline: the file, its sum, what it may hold, and one sentence."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models import GoogLeNet_Weights, ResNet18_Weights, SqueezeNet1_1_Weights

import zflib
from zflib import data, show
from zflib.models import pretrained_networks

tv = torchvision.models


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Path:
    """torch's cache, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def published(folder: Path, content: bytes) -> str:
    """The address of a file that is named as torchvision names its files."""
    path = folder / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path.as_uri()


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_kept(hub, tmp_path):
    address = published(tmp_path, saved({"weight": torch.arange(3.0)}))
    for _ in range(2):
        assert torch.equal(pretrained_networks._tensors("mine", address)["weight"], torch.arange(3.0))
        Path(address.removeprefix("file://")).unlink(missing_ok=True)  # the second time there is no connection
    assert [path.name for path in hub.iterdir()] == [address.rpartition("/")[2]]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/net-00000000.pth", "file:///nowhere/net-00000000.pth"])
def test_without_a_connection_one_sentence_says_what_to_do(hub, address):
    with pytest.raises(ConnectionError, match=r"weights of vgg16 cannot be fetched from .*; put that file at .*net-0000"
                       r'.*, or use zflib.load\("squeezenet"\)'):  # fmt: skip
        pretrained_networks._tensors("vgg16", address)
    assert not list(hub.iterdir())


def test_the_real_address_without_a_connection(hub, monkeypatch):
    def offline(*given):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        ConnectionError, match=r"resnet18 cannot be fetched from https://download.pytorch.org/models/re"
    ):
        zflib.pretrained("resnet18")


def test_a_wrong_download_is_not_kept(hub, tmp_path):
    path = tmp_path / "net-00000000.pth"
    path.write_bytes(saved({}))
    with pytest.raises(ConnectionError, match="invalid hash value"):
        pretrained_networks._tensors("mine", path.as_uri())
    assert not list(hub.iterdir())


def test_a_damaged_file_in_the_cache_is_refused(hub, tmp_path):
    content = saved({"weight": torch.zeros(9)})
    address = published(tmp_path, content)
    hub.mkdir(parents=True)
    (hub / address.rpartition("/")[2]).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256 is \w{64} and should begin with \w{8}; remove it"):
        pretrained_networks._tensors("mine", address)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_loading_never_runs_code(hub, tmp_path):
    for content in (saved({"weight": Bomb(tmp_path / "ran")}), pickle.dumps(Bomb(tmp_path / "ran"))):
        with pytest.raises(ValueError, match="holds more than tensors, and code is never run"):
            pretrained_networks._tensors("mine", published(tmp_path, content))
    assert not (tmp_path / "ran").exists()


# --- the network -----------------------------------------------------------------------------------------------------


def given(monkeypatch, theirs) -> None:
    monkeypatch.setattr(pretrained_networks, "_tensors", lambda name, url: theirs.state_dict())


def test_it_is_torchvisions_network_with_its_classes_and_its_images(monkeypatch):
    torch.manual_seed(0)
    theirs = tv.squeezenet1_1().eval()
    given(monkeypatch, theirs)
    net, how = zflib.pretrained("squeezenet1_1"), SqueezeNet1_1_Weights.DEFAULT.transforms()
    assert not net.training and net.classes == SqueezeNet1_1_Weights.DEFAULT.meta["categories"]
    photo = data.photo("coffee")
    images = net.preprocess(photo)
    torch.testing.assert_close(images[0], how(photo), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(net(images), theirs(how(photo)[None]), atol=1e-4, rtol=1e-4)
    square = photo.resize((384, 256), 2).crop((80, 16, 304, 240))
    assert np.abs(show.image_pixels(images[0], net).astype(int) - np.asarray(square).astype(int)).max() <= 1


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18", "googlenet"])
def test_the_networks_of_the_paper_and_of_its_time(monkeypatch, name):
    torch.manual_seed(0)
    auxiliary = {"aux_logits": True, "init_weights": False, "transform_input": True} if name == "googlenet" else {}
    theirs = tv.get_model(name, weights=None, **auxiliary).eval()
    given(monkeypatch, theirs)
    net = zflib.pretrained(name)
    images = net.preprocess(data.photo("coffee"))
    with torch.no_grad():
        torch.testing.assert_close(net(images), theirs(images))
    table = zflib.layers(net, images[0])
    assert not any(layer.refused for layer in table) and not any("aux" in layer.name for layer in table)
    layer = [layer.name for layer in table if layer.map][-1]
    assert zflib.Deconvnet(net).project(images, layer, 0).shape == images.shape


def test_googlenets_file_holds_what_only_training_needs(monkeypatch):
    theirs = tv.googlenet(init_weights=False, transform_input=True)
    given(monkeypatch, theirs)
    net = zflib.pretrained("googlenet")
    assert net.transform_input and net.aux1 is None and not net.training
    assert GoogLeNet_Weights.DEFAULT.meta["categories"] == net.classes
    assert torch.equal(net.fc.weight, theirs.fc.weight)


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match=r"name 'resnt18' is not a classifier of torchvision; it has alexnet, .*vgg16"):
        zflib.pretrained("resnt18")


# --- how a network takes images --------------------------------------------------------------------------------------


def test_a_network_of_ones_own_says_how_it_takes_images():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    keys, half = list(net.state_dict()), copy.deepcopy(net)
    made = zflib.models.with_preprocessing(
        net, resize=40, crop=32, mean=(0.5,) * 3, std=(0.25,) * 3, classes=["a", "b"]
    )
    assert made is net and list(net.state_dict()) == keys and not hasattr(half, "mean")
    grey = np.full((50, 60, 3), 128, np.uint8)
    images = net.preprocess([grey, grey])
    assert images.shape == (2, 3, 32, 32) and net.ten_crop(grey).shape == (1, 10, 3, 32, 32)
    torch.testing.assert_close(images, torch.full_like(images, (128 / 255 - 0.5) / 0.25))
    torch.testing.assert_close(net.denormalise(images), torch.full_like(images, 128))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(net)))
    assert torch.equal(copied.preprocess(grey), images[:1]) and copied.classes == ["a", "b"]
    found = zflib.find_peaks(net.double(), np.stack([grey.transpose(2, 0, 1)[:, :40, :40]] * 2), layers="1")
    assert found["1"].images.tolist()[0][:2] == [0, 1]
    assert ResNet18_Weights.DEFAULT.transforms().mean == list(zflib.models.classifier.IMAGENET_MEAN)


@pytest.mark.parametrize("wrong, sentence", [
    ({"crop": 0}, "crop must be pixels, at least 1, got 0"),
    ({"crop": (48, 80)}, r"crop must be pixels, .* give a function as preprocess= .*, got \(48, 80\)"),
    ({"resize": 100}, "resize must be pixels, at least as many as crop, 224, got 100"),
    ({"mean": (0.5, 0.5)}, "mean must be three finite numbers, for red, green and blue"),
    ({"std": (0.2, 0, 0.2)}, "std must be above 0 for each colour"),
    ({"mean": (124, 116, 104)}, r"mean and std are of colours from 0 to 1, got \(124, 116, 104\) .*; divide by 255"),
    ({"std": (58, 57, 57)}, r"mean and std are of colours from 0 to 1, .*; divide by 255"),
    ({"classes": "cat"}, "classes must be a list of names, one for each output, or left out, got 'cat'"),
    ({"classes": None}, "classes must be a list of names, one for each output, or left out, got None"),
])  # fmt: skip
def test_images_that_make_no_sense(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        zflib.models.with_preprocessing(torch.nn.ReLU(), **wrong)
