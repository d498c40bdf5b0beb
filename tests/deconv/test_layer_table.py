"""The table of layers: sizes, receptive fields and refusals against one look at each layer by itself."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import zflib
from zflib.deconv import Layers


def gelu_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=2), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.Flatten(),
        nn.LazyLinear(5),
    ).eval()  # fmt: skip


def made(net: nn.Module, size: int) -> nn.Module:
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    return net


@pytest.mark.parametrize("make", [torchvision.models.resnet18, lambda: torchvision.models.squeezenet1_1()])
def test_every_row_is_what_one_look_at_its_layer_gives(make):
    net = make().eval()
    table = zflib.layers(net, torch.zeros(3, 96, 80))
    used = [path for path, module in net.named_modules() if path and not isinstance(module, nn.Dropout)]
    assert {layer.name for layer in table} >= set(used)
    for layer in table[:: max(1, len(table) // 12)]:
        maps = zflib.Deconvnet(net).activations(torch.zeros(1, 3, 96, 80), layer.name)
        assert (layer.channels, layer.map) == (maps.shape[1], tuple(maps.shape[2:]))
        assert layer.kind == type(net.get_submodule(layer.name)).__name__ and not layer.refused
        sees = 0, 0, 96, 80
        if maps.dim() == 4:
            middle = maps.shape[2] // 2, maps.shape[3] // 2
            sees = zflib.receptive_field(net, layer.name, middle, size=(96, 80))
        assert layer.sees == (sees[2] - sees[0], sees[3] - sees[1])


def test_our_networks_have_their_own_names():
    net = zflib.zfnet56()
    table = zflib.layers(net)
    assert [layer.name for layer in table] == net.layer_names
    assert [layer.sees[0] for layer in table if layer.name.startswith("conv")] == [7, 27, 51, 67, 83]
    assert (table[0].kind, table[0].channels, table[0].map) == ("ReLU", 64, (28, 28))
    assert (table[-1].map, table[-1].sees) == ((), (56, 56))


def test_what_deconvnet_refuses_is_named():
    net = made(gelu_network(), 32)
    table = zflib.layers(net, torch.zeros(3, 32, 32))
    assert {layer.refused for layer in table} == {"GELU at '1'"}  # Deconvnet refuses the whole network
    with pytest.raises(zflib.deconv.Unsupported, match="module '1' is a GELU"):
        zflib.Deconvnet(net)
    ruled = zflib.layers(net, torch.zeros(3, 32, 32), rules={nn.GELU: lambda signal, before, after: signal})
    assert {layer.refused for layer in ruled} == {""}
    assert [layer.sees for layer in ruled[:4]] == [(5, 5), (5, 5), (7, 7), (15, 15)]


def test_an_operation_without_a_module_is_refused_where_it_stands():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, images):
            maps = self.first(images)
            return self.second(torch.tanh(maps))

    assert [layer.refused for layer in zflib.layers(Gated(), torch.zeros(3, 16, 16))] == ["", "tanh"]


def test_a_network_carries_its_rules():
    net = made(gelu_network(), 32)
    net.deconv_rules = {nn.GELU: lambda signal, before, after: signal.clamp(min=0)}
    images = torch.randn(2, 3, 32, 32)
    mine = zflib.Deconvnet(net).project(images, "3", 1)
    assert torch.equal(mine, zflib.Deconvnet(net, rules=net.deconv_rules).project(images, "3", 1)) and mine.any()
    assert not zflib.layers(net, images[0])[0].refused
    with pytest.raises(zflib.deconv.Unsupported, match="GELU"):
        zflib.Deconvnet(net, rules={})
    from zflib import explore

    panel = explore.layers(net, [images[0]], layer="3", layers=["1", "3"], preprocess=lambda photo: None)
    assert "of 3" in panel.text
    assert " of 3: " in explore.units(net, images, layers=["3"]).text


def test_depth_and_printing():
    net = torchvision.models.resnet18().eval()
    table = zflib.layers(net, depth=1)
    assert [layer.name for layer in table] == [name for name, _ in net.named_children()]
    lines = repr(table).splitlines()
    assert len(lines) == 11 and lines[0].split()[:2] == ["layer", "kind"] and "435×435" in lines[8]
    assert table._repr_html_().count("<tr>") == 11
    assert isinstance(table, Layers) and repr(Layers()).startswith("layer")


def test_tokens_have_no_field():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 8, 4, stride=4), nn.LayerNorm(8)

        def forward(self, images):
            return self.norm(self.patches(images).flatten(2).transpose(1, 2)).mean(1)

    *_, norm = zflib.layers(Tokens(), torch.zeros(3, 16, 16))
    assert (norm.channels, norm.map, norm.sees) == (8, (16,), None) and norm.refused


def test_bad_input():
    net = zflib.zfnet56()
    with pytest.raises(ValueError, match="do not fit this network, it takes at least 56x56"):
        zflib.layers(net, torch.zeros(3, 20, 20))
    small = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(392, 5))
    with pytest.raises(ValueError, match=r"\(1, 3, 224, 224\) do not fit .* takes, or give one if you"):
        zflib.layers(small)
    with pytest.raises(ValueError, match="depth must be a whole number, at least 1, got 0"):
        zflib.layers(net, depth=0)
    with pytest.raises(TypeError, match=r"net must be a torch network \(nn.Module\), got str"):
        zflib.layers("resnet18")
    with pytest.raises(TypeError, match="rules must be"):
        zflib.layers(net, rules={"GELU": lambda signal, before, after: signal})


def test_it_leaves_no_trace():
    net = torchvision.models.resnet18().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    zflib.layers(net, torch.randn(3, 64, 64))
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
