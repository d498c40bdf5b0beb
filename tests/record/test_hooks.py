"""Hooks that hear their own thread only, and networks that stay as they were for everybody else."""

import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import zflib
from zflib.record import hooks, listening, watched


class Pause(nn.Module):
    """Keeps one thread waiting in the middle of its forward pass."""

    def __init__(self):
        super().__init__()
        self.thread, self.there, self.go_on = None, threading.Event(), threading.Event()

    def forward(self, x):
        if threading.get_ident() == self.thread:
            self.there.set()
            assert self.go_on.wait(20)
        return x


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Dropout(), Pause(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU()
    ).eval()  # fmt: skip


@contextmanager
def paused(net, call, found):
    """`call` runs in a thread of its own and waits in the network's Pause while the block runs."""
    pause = net[3]

    def run():
        pause.thread = threading.get_ident()
        found.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    assert pause.there.wait(20)
    try:
        yield
    finally:
        pause.go_on.set()
        thread.join(20)


def look(net, images, layer="5"):
    with watched(net, [layer]) as see:
        found, scores = see(images)
    return torch.cat([found[layer].flatten(), scores.flatten()])


def stopped(net, images):
    kept = []
    with listening(net, {"1": kept.append}) as run:
        assert run(images.clone()) is None
    return kept[0]


CALLS = {
    "project": lambda net, images: zflib.Deconvnet(net).project(images, "6", 0, positions=(1, 1)),
    "gradient": lambda net, images: zflib.Deconvnet(net, rule="gradient").project_all(images[0], "6"),
    "watched": look,
    "listening": stopped,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("waiting", ["project", "watched"])
def test_two_threads_on_one_network_do_not_hear_each_other(name, waiting):
    net, images, others = network(), torch.randn(2, 3, 9, 9), torch.randn(2, 3, 9, 9)
    alone, expected, found = CALLS[waiting](net, images), CALLS[name](net, others), []
    with paused(net, lambda: CALLS[waiting](net, images), found):
        assert torch.equal(CALLS[name](net, others), expected)
    assert torch.equal(found[0], alone)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_thread_that_finds_another_modes_waits():
    net, images = network(), torch.randn(2, 3, 9, 9)
    expected, found, second = look(net, images), [], []
    net.train()
    with paused(net, lambda: look(net, images), found):
        other = threading.Thread(target=lambda: second.append(look(net, images)))
        other.start()
        other.join(0.2)
        assert other.is_alive() and not second
    other.join(20)
    assert torch.equal(found[0], expected) and torch.equal(second[0], expected)
    assert all(module.training for module in net.modules())


def test_a_network_in_evaluation_mode_keeps_nobody_waiting():
    net, images = network(), torch.randn(2, 3, 9, 9)
    with paused(net, lambda: look(net, images), []):
        assert hooks.LOCK.acquire(timeout=5)
        hooks.LOCK.release()


def test_listening_hears_the_first_use_and_stops_after_the_last():
    net, images, heard = network(), torch.randn(2, 3, 9, 9), []
    net.append(net[6])  # used twice
    net.append(nn.Tanh())
    callbacks = {path: lambda out, path=path: heard.append((path, out.clone())) for path in ("6", "1")}
    net[8].register_forward_hook(lambda *_: pytest.fail("it went on"))
    with listening(net, callbacks) as run:
        for _ in range(2):
            assert run(images.clone()) is None
        assert [path for path, _ in heard] == ["1", "6"] * 2
        net[6](images)  # not a pass of run
        assert len(heard) == 4
    del net[8]
    with listening(net, callbacks, stop=False) as run:
        torch.testing.assert_close(run(images.clone()), heard[1][1])
    with pytest.raises(ValueError, match="layer 'part' took no part in the forward pass"):
        net.part = nn.ReLU()
        net.forward = lambda x: nn.functional.relu(x)
        with listening(net, {"part": print}) as run:
            run(images)


def test_images_that_do_not_fit():
    net = zflib.zfnet56(3)
    with pytest.raises(ValueError, match="do not fit this network, it takes at least 56x56 pixels"):
        zflib.Deconvnet(net).project(torch.randn(1, 3, 3, 2), "fc8", 0)
