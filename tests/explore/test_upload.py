"""A photograph of the learner's own, loaded in a panel, with the values that ipywidgets 7 and 8 give."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

import zflib
from zflib import data, explore
from zflib.explore.upload import loaded


def png(name: str) -> bytes:
    file = io.BytesIO()
    data.photo(name).save(file, "PNG")
    return file.getvalue()


def upload(control, name: str, content: bytes) -> None:
    """As the front end does it, in ipywidgets 7 and in 8."""
    about = {"name": name, "type": "image/png", "size": len(content)}
    if isinstance(control.value, dict):
        control.set_trait("value", {name: {"metadata": about, "content": content}})
    else:
        when = datetime.now(UTC)
        control.value = ({**about, "last_modified": when, "content": memoryview(content)},)


@pytest.fixture(scope="module")
def net():
    return zflib.load("zfnet56")


def test_both_kinds_of_value_are_understood():
    assert loaded({"a.png": {"metadata": {"name": "a.png"}, "content": b"1"}}) == ("a.png", b"1")
    assert loaded(({"name": "a.png", "content": memoryview(b"1")},)) == ("a.png", b"1")


def test_occlusion_looks_at_it(net):
    panel = explore.occlusion(net, net.preprocess(data.photo("chelsea")), label=3)
    upload(panel.controls["own"], "cup.png", png("coffee"))
    assert panel.status.value == ""
    expected = explore.occlusion(net, net.preprocess(data.photo("coffee")))
    assert panel.text == expected.text and np.array_equal(panel.pixels, expected.pixels)
    upload(panel.controls["own"], "notes.txt", b"no image")
    assert "notes.txt is not an image that Pillow can read" in panel.status.value and panel.text == expected.text
    panel.controls["row"].value = 0  # the photograph before is still there
    assert panel.status.value == "" and "row 0" in panel.text and panel.text != expected.text


def test_layers_adds_it_to_the_menu(net):
    panel = explore.layers(net, ["chelsea"])
    for name, content in (("cup.png", png("coffee")), ("cup.png", png("rocket"))):
        upload(panel.controls["own"], name, content)
    assert list(panel.controls["photo"].options) == ["chelsea", "cup.png", "cup.png 2"]
    for name, photo in (("cup.png 2", "rocket"), ("cup.png", "coffee"), ("chelsea", "chelsea")):
        assert name == panel.values["photo"] and panel.status.value == ""
        expected = explore.layers(net, {name: data.photo(photo)})
        expected.controls["channel"].value = panel.values["channel"]
        assert np.array_equal(panel.pixels, expected.pixels)
        following = {"cup.png 2": "cup.png"}.get(name, "chelsea")
        panel.controls["photo"].value = following
    upload(panel.controls["own"], "notes.txt", b"")
    assert "notes.txt is not an image" in panel.status.value and panel.values["photo"] == "chelsea"


def test_a_network_that_cannot_prepare_photographs_has_no_button():
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    assert "own" not in explore.layers(plain, torch.zeros(3, 9, 9), layers=["0"]).controls
