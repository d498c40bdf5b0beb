"""Presses on the wall, on a photograph, on a map and on a face, in a real JupyterLab."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from driver import notebook_of, pixels, quiet, wait_until

SETUP = runpy.run_path(str(Path(__file__).resolve().parents[2] / "notebooks" / "build.py"))["SETUP"]
CELLS = [SETUP, "from zflib import explore\nnet = zflib.load('zfnet56')",
         "explore.wall(net, zflib.data.scenes.scenes(64).pixels, unit='conv5:20')",
         "explore.layers(net, ['chelsea'])", "explore.correspondence(zflib.load('scenes56'))"]  # fmt: skip
PANELS = ["wall", "layers", "correspondence"]

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def panels(ran):
    with ran(notebook_of(CELLS), "wall.ipynb") as page:
        found = page.locator(".zf-fast")
        found.nth(len(PANELS) - 1).locator("img").wait_for()
        yield {name: found.nth(number) for number, name in enumerate(PANELS)}


def press(panel, x: float, y: float) -> None:
    """A click on a point of the picture, in its own pixels."""
    image = panel.locator("img")
    image.scroll_into_view_if_needed()
    scale = image.evaluate("e => e.getBoundingClientRect().width / e.naturalWidth")
    image.click(position={"x": x * scale, "y": y * scale})


def words(panel) -> str:
    return panel.locator("[aria-live]").inner_text()


def test_a_press_on_a_tile_opens_its_channel(panels):
    panel = panels["wall"]
    assert words(panel).startswith("conv5:20.")
    before = pixels(panel)
    press(panel, 28 + 60 * 3 + 29, 21 + 60 * 2 + 29)  # the third row, the fourth tile
    wait_until(lambda: words(panel).startswith("conv5:35."))
    assert pixels(panel) != before
    press(panel, 28 + 60 * 4 + 29, 21 + 60 * 1 + 29)
    wait_until(lambda: words(panel).startswith("conv5:20.") and pixels(panel) == before)
    quiet(panel)


def test_arrow_keys_move_the_marked_tile(panels):
    panel = panels["wall"]
    panel.get_by_role("slider").nth(1).press("ArrowRight")
    wait_until(lambda: words(panel).startswith("conv5:21."))
    panel.get_by_role("slider").nth(1).press("ArrowLeft")
    wait_until(lambda: words(panel).startswith("conv5:20."))
    quiet(panel)


@pytest.mark.parametrize("x, row, column", [(252 + 120, 3, 3), (252 + 18, 3, 0), (252 + 222, 3, 6)])
def test_a_press_in_the_map_chooses_the_position(panels, x, row, column):
    panel = panels["layers"]
    press(panel, x, 21 + 120)
    wait_until(lambda: f"at row {row}, column {column} of its 7×7 map" in words(panel))
    assert not panel.get_by_role("checkbox").is_checked()
    quiet(panel)


def test_a_press_in_the_photograph_chooses_the_position_and_the_tick_goes_back(panels):
    panel = panels["layers"]
    press(panel, 60, 21 + 200)
    wait_until(lambda: "has the value" in words(panel) and "at row 5, column 1" in words(panel))
    panel.get_by_role("checkbox").check()
    wait_until(lambda: "is strongest" in words(panel))
    quiet(panel)


def test_a_drag_in_a_face_moves_all_masks(panels):
    panel, before = panels["correspondence"], pixels(panels["correspondence"])
    image, mouse = panel.locator("img"), panel.page.mouse
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    mouse.move(box["x"] + 60, box["y"] + 70)
    mouse.down()
    mouse.move(box["x"] + 120, box["y"] + 120, steps=10)
    mouse.up()
    wait_until(lambda: re.search(r"\d+ px (up|down), \d+ px (left|right)", words(panel)) and pixels(panel) != before)
    quiet(panel)


@pytest.mark.parametrize("view", ["raw", "lit", "grey", "calm"])
def test_buttons_choose_how_projections_are_drawn(panels, view):
    panel = panels["layers"]
    panel.get_by_role("checkbox").check()  # elsewhere the channel may be silent
    wait_until(lambda: "is strongest" in words(panel))
    before = pixels(panel)
    panel.get_by_role("button", name=view).click()
    wait_until(lambda: pixels(panel) != before)
    assert f"{view}" in panel.locator(".mod-active").inner_text()
    quiet(panel)
