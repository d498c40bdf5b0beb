"""Calls at the same time give what calls one after the other give, and networks of others notice nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import zflib
from zflib import explore, train
from zflib.data.image_source import images_of
from zflib.models import Conv, Geometry, ZFNet

THREADS, ROUNDS = 4, 3


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def pictures(seed: int, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, 20, 20, generator=torch.Generator().manual_seed(seed))


def peaks(net, seed):
    found = zflib.find_peaks(net, pictures(seed, 40), layers=["3", "4"], k=3)
    return [part for layer in found.values() for part in (layer.values, layer.images, layer.positions)]


def squares(net, seed):
    maps = zflib.occlude(net, pictures(seed)[0], size=6, stride=4, layer="4")
    return [maps.probability, maps.prediction, maps.activity]


def moves(net, seed):
    found = zflib.invariance(net, pictures(seed), 0, transform="translate", amounts=(0, 2, 5), layers=("0", "4"))
    return [*found.distance.values(), found.probability]


def parts(net, seed):
    boxes = torch.tensor([[2, 3, 9, 11]]).expand(6, 4)
    return [zflib.correspondence(net, pictures(seed), boxes, layer="4").changes]


def projections(net, seed):
    deconvnet = zflib.Deconvnet(net)
    images = pictures(seed)
    return [
        deconvnet.project(images, "4", 3),
        deconvnet.project_all(images[0], "4"),
        deconvnet.activations(images, "9"),
    ]


def ascents(net, seed):
    return [zflib.activation_maximisation(net, "4", seed, start=pictures(seed)[0], steps=3, jitter=1)]


def curved(net, seed):
    return list(zflib.curvature(net, pictures(seed)[0], "4", seed, k=1, step=0.3))


def fields(net, seed):
    return [torch.tensor(zflib.receptive_field(net, "4", (seed % 5, 2), size=20))]


def chosen(net, seed):
    return [images_of(net, pictures(seed, 20), torch.tensor([[seed, 3], [5, 0]]))]


def drawn(net, seed):
    image = pictures(seed)[0]
    panels = [
        explore.layers(net, [image], layers=["4"], layer="4", preprocess=lambda photo: None),
        explore.invariance(net, image, layers=["0", "4"]),
        explore.occlusion(net, image, layer="4"),
    ]
    for panel in panels:
        control = [control for control in panel.controls.values() if hasattr(control, "max")][-1]
        control.value = control.max
    panels[1]._draw.__self__.whole.wait()  # what the panel measures on in the background
    assert not any(panel.status.value for panel in panels)
    return [torch.tensor(list(panel.text.encode())) for panel in panels] + [torch.from_numpy(panels[0].pixels.copy())]


CALLS = [peaks, squares, moves, parts, projections, ascents, curved, fields, chosen, drawn]


def at_once(jobs):
    """What each job returns, all of them started in the same moment."""
    gate = threading.Barrier(len(jobs))

    def run(job):
        gate.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def equal(some, others) -> bool:
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_four_threads_give_what_one_gives(call, training):
    net = small_net().train(training)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    alone = [call(net, seed) for seed in range(THREADS)]
    for _ in range(ROUNDS):
        together = at_once([lambda seed=seed: call(net, seed) for seed in range(THREADS)])
        assert all(equal(a, b) for a, b in zip(alone, together))
    assert net.training == training and all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_different_calls_on_one_network():
    net = small_net()
    jobs = [lambda call=call: call(net, 1) for call in CALLS]
    alone = [job() for job in jobs]
    for _ in range(ROUNDS):
        assert all(equal(a, b) for a, b in zip(alone, at_once(jobs)))


def test_a_forward_pass_of_the_owner_is_not_heard_and_not_ended():
    net = small_net().eval()
    images, stop, failed = pictures(9), threading.Event(), []
    expected = net(images)

    def owner():
        while not stop.is_set():
            if not torch.equal(net(images), expected):
                failed.append("another result")

    thread = threading.Thread(target=owner)
    thread.start()
    try:
        alone = [call(net, 1) for call in CALLS]
        again = [call(net, 1) for call in CALLS]
    finally:
        stop.set()
        thread.join()
    assert not failed and all(equal(a, b) for a, b in zip(alone, again))


def test_other_networks_notice_nothing():
    net, other, stop, errors = small_net(), small_net(), threading.Event(), []

    def neighbour():
        while not stop.is_set():
            try:
                other(pictures(3))
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        for seed in range(4):
            squares(net, seed)
            peaks(net, seed)
    finally:
        stop.set()
        thread.join()
    assert not errors


def trained(folder, looker=None):
    """The weights after an epoch on noise; `looker` looks at the network from another thread all the while."""
    geometry = Geometry(12, 10, (Conv(4, 3, padding=1, pool=True), Conv(6, 3, padding=1, pool=True)), hidden=(8,))
    net, stop = ZFNet(3, geometry=geometry, batch_norm=True), threading.Event()
    pixels = np.random.default_rng(0).integers(0, 256, (400, 3, 12, 12), dtype=np.uint8)
    some = train.Images(pixels, torch.arange(400) % 3, 10)
    recipe = replace(train.RECIPES["scenes"], epochs=1, batch=4)

    def look():
        while not stop.is_set():
            looker(net)

    thread = threading.Thread(target=look) if looker else None
    if thread:
        thread.start()
    try:
        train.train(net, some, some, recipe, folder, report=lambda row: None)
    finally:
        stop.set()
        if thread:
            thread.join()
    return net.state_dict()


def test_a_network_that_is_looked_at_while_it_trains_learns_the_same(tmp_path):
    alone = trained(tmp_path / "alone")
    seen = trained(tmp_path / "seen", lambda net: zflib.Deconvnet(net).activations(torch.zeros(1, 3, 10, 10), "conv2"))
    assert all(torch.equal(alone[key], seen[key]) for key in alone)
