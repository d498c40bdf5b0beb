"""What notebook 05 draws and watches: the package's own steps, and geometries that the paper prints."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import zflib
from zflib import train
from zflib.data import scenes
from zflib.models import ZFNET
from zflib.studies import training
from zflib.train.steps import Run, prepare


@pytest.fixture(scope="module")
def images():
    world = scenes.scenes(70, seed=0)
    return train.Images(world.pixels.numpy(), world.labels, 56)


def test_what_is_watched_is_the_training_that_happens(images):
    kept = training.watch(zflib.scenes56(batch_norm=True), images, (0, 2))
    net = zflib.scenes56(batch_norm=True)
    prepare(net, images, training.PLAIN)
    assert torch.equal(kept[0], net.conv1.weight)
    net.train()
    run = Run(net, images, training.PLAIN, None)
    for epoch in range(2):  # 70 images are one batch of 64 an epoch
        run.progress.epoch = epoch
        run.step(*next(iter(run.batches())))
    assert list(kept) == [0, 2] and torch.equal(kept[2], net.conv1.weight)


def test_the_loop_of_the_notebook_is_the_packages_step(images):
    nets = [zflib.scenes56(batch_norm=True) for _ in range(2)]
    for net in nets:
        prepare(net, images, training.PLAIN)
        net.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(nets[0].parameters(), lr=training.PLAIN.lr, momentum=training.PLAIN.momentum)
    run = Run(nets[1], images, training.PLAIN, None)
    for _ in range(3):
        inputs, labels = torch.randn(8, 3, 56, 56), torch.randint(10, (8,))
        loss = F.cross_entropy(nets[0](inputs), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert run.step(inputs, labels) == pytest.approx(loss.item())
    for own, package in zip(nets[0].parameters(), nets[1].parameters()):
        assert torch.equal(own, package)


def test_krizhevskys_maps_are_those_of_his_paper():
    with torch.device("meta"):
        net = zflib.ZFNet(geometry=training.KRIZHEVSKY)
    assert net.map_sizes() == [55, 27, 27, 13, 13, 13, 13, 6]
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(62e6, rel=0.01)  # 60 when split over two GPUs


def test_the_ten_frames_are_where_ten_crop_cuts():
    square = torch.arange(3 * 40 * 40).view(3, 40, 40)
    _, axes = plt.subplots(1, 2)
    training.draw_crops(axes, torch.zeros(3, 40, 40, dtype=torch.uint8), 30, [f"answer {i}" for i in range(10)])
    crops = zflib.data.ten_crop(square[None], 30)[0]
    for ax, whole, wanted in zip(axes, (square, square.flip(-1)), (crops[:5], crops[5:])):
        for number, (line, crop) in enumerate(zip(ax.lines, wanted)):
            left, top = (round(float(np.min(values)) - 1 - 1.6 * number) for values in line.get_data())
            assert torch.equal(whole[:, top : top + 30, left : left + 30], crop)
    assert [text.get_text().split()[0] for ax in axes for text in ax.texts] == [str(i) for i in range(1, 11)]


def test_the_largest_number_of_each_crop_is_framed_and_the_mean_leads():
    probabilities = torch.tensor([[0.1, 0.7, 0.2]] * 6 + [[0.8, 0.1, 0.1]] * 4)
    ax = training.draw_vote(plt.figure().subplots(), probabilities, ["cat", "dog", "cup"], count=2)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dog", "cat"]
    rows = [float(np.mean(line.get_ydata()[:4])) for line in ax.lines[:11]]
    assert np.allclose(rows, [0] * 6 + [1] * 4 + [0], atol=1e-6)


def test_changed_layers_are_orange_and_positions_follow_the_stride():
    ax = training.draw_network(plt.figure().subplots(), ZFNET, "the paper")
    words = [text.get_text() for text in ax.texts]
    assert "conv1\n7×7\nstride 2\npool to 55" in words and "110×110\n96 maps" in words
    bold = [text.get_text().split("\n")[0] for text in ax.texts if text.get_weight() == "bold"]
    assert bold == ["conv1", "conv2"]
    ax = training.draw_looks(plt.figure().subplots(), torch.zeros(3, 33, 33, dtype=torch.uint8), ZFNET.convs[0])
    assert len(ax.collections[0].get_offsets()) == 14**2  # first pixels of windows: 0, 2, …, 26
