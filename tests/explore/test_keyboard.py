"""Every explorer without a mouse: all of its controls take keys, and no click does what they cannot."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np
import pytest
import torch

import zflib
from zflib import data, explore
from zflib.models import Conv, Geometry, ZFNet

#: Sliders and menus take arrows; ticks, buttons and files space, texts letters: ipywidgets draws HTML's own.
BY_KEYS = (
    widgets.IntSlider, widgets.FloatSlider, widgets.SelectionSlider, widgets.Dropdown, widgets.Checkbox, widgets.Text,
    widgets.ToggleButtons, widgets.FileUpload, widgets.Play,
)  # fmt: skip
SHOWN = (widgets.Box, widgets.Image, widgets.HTML)

GEOMETRY = Geometry(12, 10, (Conv(6, 3, padding=1, pool=True), Conv(40, 3, padding=1, pool=True)), hidden=(8,))
PIXELS = np.random.default_rng(5).integers(0, 256, (60, 3, 12, 12), dtype=np.uint8)


def tiny() -> ZFNet:
    torch.manual_seed(0)
    net = ZFNet(5, geometry=GEOMETRY).eval()
    net.classes = list("abcde")
    return net


def photo(net) -> torch.Tensor:
    return net.preprocess(data.photo("coffee"))[0]


def directions() -> explore.Panel:
    net = tiny()
    channel = int(zflib.Deconvnet(net).activations(photo(net)[None], "conv2")[0].amax(dim=(1, 2)).argmax())
    return explore.directions(net, photo(net), "conv2", channel, found=torch.randn(4, 3, 10, 10))


MADE = {
    "correspondence": lambda: explore.correspondence(zflib.load("scenes56")),
    "directions": directions,
    "evolution": explore.evolution,
    "invariance": lambda: explore.invariance(tiny(), photo(tiny())),
    "layers": lambda: explore.layers(tiny(), ["chelsea", "coffee"]),
    "name_the_channel": lambda: explore.name_the_channel(tiny(), PIXELS, rounds=2, labels=torch.arange(60) % 5),
    "occlusion": lambda: explore.occlusion(tiny(), photo(tiny())),
    "panel": lambda: explore.panel(lambda grey, dark: np.full((9, 9, 3), grey // 2, np.uint8), grey=(0, 9), dark=True),
    "stepper": lambda: explore.stepper(list(PIXELS[:3].transpose(0, 2, 3, 1))),
    "units": lambda: explore.units(tiny(), PIXELS),
    "wall": lambda: explore.wall(tiny(), PIXELS),
}


@pytest.fixture(scope="module", params=MADE)
def panel(request) -> explore.Panel:
    return MADE[request.param]()


def test_these_are_all_explorers():
    assert set(MADE) == set(explore.__all__) - {"Panel"}


def parts(widget: widgets.Widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


def test_every_part_is_seen_only_or_takes_keys(panel):
    others = [type(part).__name__ for part in parts(panel) if not isinstance(part, (*BY_KEYS, *SHOWN))]
    assert not others
    assert all(not getattr(part, "disabled", False) for part in parts(panel))
    named = [part for part in parts(panel) if isinstance(part, BY_KEYS) and not isinstance(part, widgets.Play)]
    assert named and all(part.description or isinstance(part, widgets.ToggleButtons) for part in named), "unnamed"


def reached(control: widgets.Widget, value) -> bool:
    """Whether keys alone can set a control to a value."""
    if isinstance(control, widgets.IntSlider | widgets.FloatSlider):
        steps = (value - control.min) / control.step
        return control.min <= value <= control.max and abs(steps - round(steps)) < 1e-6
    options = getattr(control, "options", (True, False))
    return value in [option[1] if isinstance(option, tuple) else option for option in options]


def test_what_clicks_do_the_controls_can(panel):
    """A press sets values of the controls and nothing else; keys can set each of them, and the same picture follows."""
    if not panel._pointer:
        return
    height, width = panel.pixels.shape[:2]
    spots = [(x, y) for y in range(5, height, height // 6) for x in range(5, width, width // 9)]
    for x, y in spots:
        chosen = panel._pointer(x, y, (x, y))
        assert all(reached(panel.controls[name], value) for name, value in chosen.items()), (x, y, chosen)
    before = panel.values
    panel.point(*spots[len(spots) // 3], spots[len(spots) // 3])
    clicked, told, after = panel.pixels, panel.text, panel.values
    for values in (before, after):
        for name, value in values.items():
            if panel.controls[name].value != value:  # an upload's cannot be set in ipywidgets 7
                panel.controls[name].value = value
    assert panel.values == after and panel.text == told
    assert "along" in after or np.array_equal(panel.pixels, clicked)  # invariance's curves keep where they have been
