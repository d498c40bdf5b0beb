"""A cell that measures while a slider of the same network moves, in a kernel as JupyterLab runs it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

jupyter_client = pytest.importorskip("jupyter_client")
pytestmark = pytest.mark.nightly
ROOT = Path(__file__).resolve().parents[1]

SETUP = """
import json, threading, torch, zflib
from zflib import explore

net = zflib.load("zfnet56")
images = torch.randn(24, 3, 56, 56, generator=torch.Generator().manual_seed(0)) / 2
panel = explore.invariance(net, images[0])  # each move is a forward pass
slider, cell, moves = panel.controls["down"], threading.get_ident(), []
expected = {down: panel._draw(**panel.values | {"down": down})[1] for down in range(28)}
slider.observe(lambda change: moves.append(threading.get_ident() != cell), names="value")

def measured():
    found = zflib.find_peaks(net, images, layers=["conv1", "conv3"], k=3, batch_size=8)
    moved = zflib.invariance(net, images[:6], 3, transform="translate", amounts=(0, 2))
    projected = zflib.Deconvnet(net).project(images[:4], "conv4", [1, 2, 3, 4])
    return [*(p.values for p in found.values()), *moved.distance.values(), moved.probability, projected]

alone = measured()
print(slider.model_id)
"""
MEASURE = """
wrong, errors, rounds = 0, [], 25
for _ in range(rounds):
    try:
        wrong += sum(not torch.equal(a, b) for a, b in zip(alone, measured(), strict=True))
    except Exception as error:
        errors.append(str(error))
print(json.dumps({"numbers": rounds * len(alone), "wrong": wrong, "errors": errors, "moves": sum(moves)}))
"""
AFTER = "print(json.dumps([slider.value, panel.text == expected[slider.value], panel.status.value]))"


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def printed(client, request: str) -> str | None:
    """What the cell printed, once it is done; None if nothing has come for a moment."""
    text = ""
    while True:
        try:
            message = client.get_iopub_msg(timeout=120)
        except Exception as error:
            raise AssertionError("the kernel says nothing any more") from error
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream":
            text += message["content"]["text"]
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return text.strip().splitlines()[-1]


def test_a_slider_moves_while_a_cell_measures(kernel):
    kernel.control_channel.send(kernel.session.msg("create_subshell_request"))
    subshell = kernel.get_control_msg(timeout=30)["content"]["subshell_id"]
    comm = printed(kernel, kernel.execute(SETUP))
    request = kernel.execute(MEASURE)
    for number in range(1, 61):
        state = {"method": "update", "state": {"value": number * 9 % 28}, "buffer_paths": []}
        message = kernel.session.msg("comm_msg", {"comm_id": comm, "data": state})
        message["header"]["subshell_id"] = subshell
        kernel.shell_channel.send(message)
        time.sleep(0.05)
    found = json.loads(printed(kernel, request))
    time.sleep(2)  # until the last picture is drawn
    value, right, status = json.loads(printed(kernel, kernel.execute(AFTER)))
    print(found, value, right, status)
    assert found["moves"] >= 20 and not found["wrong"] and not found["errors"]
    assert (value, right, status) == (60 * 9 % 28, True, "")
