"""What a notebook stores of a panel: an animation of its frames, for readers who run nothing."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

import zflib
from zflib import data, explore


def flat(value: int) -> np.ndarray:
    return np.full((8, 9, 3), value, np.uint8)


def stored(panel) -> list[int]:
    """The first pixel of every frame that is stored."""
    image, found = Image.open(io.BytesIO(base64.b64decode(panel._repr_mimebundle_()[0]["image/png"]))), []
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        found.append(image.convert("RGB").getpixel((0, 0))[0])
    return found


def test_a_panel_stores_its_picture_or_its_frames():
    panel = explore.panel(lambda a, b: (flat(a + b), "words"), a=(0, 100), b=(0, 100, 7))
    assert stored(panel) == [7]
    panel.frames = [{"a": 10}, flat(99), {"a": 30, "b": 0}]
    assert stored(panel) == [17, 99, 30] and panel.controls["a"].value == 0


def test_storing_frames_leaves_the_controls_where_they_were():
    photos = {"cat": data.photo("chelsea"), "cup": data.photo("coffee")}
    panel = explore.layers(zflib.load("zfnet56"), images=photos, layer="conv5")
    panel.frames = [{"photo": name} for name in photos]  # the strongest position is another one in each
    before = panel.values, panel.text
    stored(panel)
    assert (panel.values, panel.text) == before and panel.values["strongest"]


def test_a_stepper_stores_its_steps_at_most_twelve():
    assert stored(explore.stepper([flat(1), flat(2), flat(3)])) == [1, 2, 3]
    steps = stored(explore.stepper([flat(i) for i in range(40)]))
    assert len(steps) == 12 and steps[0] == 0 and steps[-1] == 39 and steps == sorted(steps)
    assert stored(explore.stepper([flat(5)])) == [5]


def test_what_is_stored_is_told_in_words():
    def words(panel) -> str:
        return panel._repr_mimebundle_()[1]["image/png"]["alt"]

    assert words(explore.panel(lambda big_step: flat(big_step), big_step=(0, 9))) == "a picture set by big step"
    told = words(explore.stepper([flat(1), flat(2), flat(3)], labels=["filter", "rectify", "pool"]))
    assert told == "an animation of 3 pictures; first: Step 1 of 3: filter; last: Step 3 of 3: pool"
