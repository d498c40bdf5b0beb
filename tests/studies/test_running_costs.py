"""What the experiments cost: bytes against a closed form, seconds against a sleeping network, other sizes."""

import time

import pytest
import torch
from torch import nn

import zflib
from zflib.studies import running_costs
from zflib.studies.running_costs import Cost, costs, kept_bytes


class Sleepy(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, images):
        time.sleep(0.03)
        return self.features(images).mean((2, 3))


def test_a_forward_pass_takes_as_long_as_it_sleeps():
    found = costs(Sleepy().eval(), torch.randn(3, 16, 16), "features.2")
    assert [cost.what for cost in found] == ["forward pass", "record", "projection", "occluding square"]
    assert found["forward pass"].seconds >= 0.03 and found["record"].seconds >= 0.03
    assert found["projection"].seconds < 0.03  # it needs no forward pass
    assert found[0] is found["forward pass"]


def test_it_times_a_projection_that_is_not_empty(monkeypatch):
    net, drawn = Sleepy().eval(), []
    net.features[0].weight.data[0], net.features[0].bias.data[0] = 0.0, -1.0  # the first channel is silent
    descend = zflib.Deconvnet.descend
    monkeypatch.setattr(zflib.Deconvnet, "descend", lambda *given: drawn.append(descend(*given)) or drawn[-1])
    costs(net, torch.randn(3, 16, 16), "features.2", repeats=1)
    assert drawn and all(picture.any() for picture in drawn)


@pytest.mark.parametrize("rule, masks", [("deconvnet", 0), ("gradient", 4 * 16 * 16)])
def test_what_a_record_keeps_is_counted(rule, masks):
    tape = zflib.Deconvnet(Sleepy().eval(), rule=rule).record(torch.randn(2, 3, 16, 16), "features.2")
    pooled = 4 * 8 * 8
    assert kept_bytes(tape) == 2 * (pooled * 8 + pooled * 4 + masks)  # switches int64, activations float32, masks bool


def test_other_sizes_by_the_formula():
    net = zflib.load("squeezenet")
    small, large = (kept_bytes(zflib.Deconvnet(net).record(torch.zeros(1, 3, s, s), "fire5")) for s in (227, 454))
    assert Cost("record", 1.0, small, 227 * 227).at(454, 454).megabytes == pytest.approx(large, rel=0.05)
    assert Cost("record", 1.0, 2.0, 100).at(20, 10, times=3) == Cost("record", 6.0, 12.0, 200)


def test_it_prints_as_a_table():
    text = repr(running_costs.Costs([Cost("forward pass", 0.02, 0.0, 1), Cost("record", 0.03, 2.5, 1)]))
    assert [line.split()[-2:] for line in text.splitlines()[1:]] == [["20.0", "–"], ["30.0", "2.5"]]
