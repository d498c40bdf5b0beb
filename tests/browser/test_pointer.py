"""A pointer in the picture of a panel, in a real JupyterLab: press, drag and let go, with a mouse and with a finger."""

from __future__ import annotations

import re

import pytest
from driver import notebook_of, quiet, wait_until

#: A picture that is wider than the page, so that it is shown smaller than it is.
CELL = """
import numpy as np, ipywidgets
from zflib import explore

def draw(x, y):
    pixels = np.full((400, 2400, 3), 255, np.uint8)
    pixels[:, max(0, x - 3) : x + 3] = pixels[max(0, y - 3) : y + 3] = 0
    return pixels, f"column {x}, row {y}"

def follow(x, y, start):
    return {"x": x, "y": y} if start[0] < 2000 else {}

controls = {"x": explore.panels.slider("x", 0, 2400, 0), "y": explore.panels.slider("y", 0, 400, 0)}
explore.Panel(draw, controls, pointer=follow)
"""


@pytest.fixture(scope="module")
def panel(ran):
    with ran(notebook_of([CELL]), "pointer.ipynb") as page:
        panel = page.locator(".zf-fast")
        panel.locator("img").wait_for()
        panel.scroll_into_view_if_needed()
        yield panel


def said(panel) -> tuple[int, int]:
    return tuple(map(int, re.findall(r"\d+", panel.locator("[aria-live]").inner_text())))


def place(panel, x: float, y: float) -> tuple[float, float]:
    """Where in the page a point of the 2400 x 400 picture lies."""
    box = panel.locator("img").bounding_box()
    assert box["width"] < 1400, "the picture is not scaled down"
    return box["x"] + x / 2400 * box["width"], box["y"] + y / 400 * box["height"]


def near(panel, x: float, y: float) -> bool:
    return abs(said(panel)[0] - x) <= 4 and abs(said(panel)[1] - y) <= 4


def test_press_drag_and_let_go(panel):
    mouse = panel.page.mouse
    mouse.move(*place(panel, 600, 100))
    mouse.down()
    wait_until(lambda: near(panel, 600, 100))
    mouse.move(*place(panel, 2200, 300), steps=30)  # far beyond where no drag may begin
    wait_until(lambda: near(panel, 2200, 300))
    mouse.up()
    mouse.move(*place(panel, 300, 50), steps=5)  # no longer held
    mouse.move(*place(panel, 2300, 50))
    mouse.down()
    mouse.move(*place(panel, 900, 200), steps=5)  # pressed where nothing follows
    mouse.up()
    panel.page.wait_for_timeout(500)
    assert near(panel, 2200, 300)
    assert [float(slider.get_attribute("aria-valuenow")) for slider in panel.get_by_role("slider").all()] == [
        *said(panel)
    ]
    quiet(panel)


def test_a_drag_that_leaves_the_picture_ends(panel):
    mouse = panel.page.mouse
    mouse.move(*place(panel, 500, 100))
    mouse.down()
    mouse.move(*place(panel, 500, 900), steps=10)
    mouse.up()
    mouse.move(*place(panel, 1500, 200), steps=5)
    panel.page.wait_for_timeout(500)
    wait_until(lambda: abs(said(panel)[0] - 500) <= 4)
    quiet(panel)


def test_while_a_picture_loads_the_pointer_keeps_its_place(panel):
    """A browser says that an image which is loading has no size of its own, and keeps its place in the page."""
    panel.locator("img").evaluate("img => Object.defineProperty(img, 'naturalWidth', {value: 0, configurable: true})")
    mouse = panel.page.mouse
    mouse.move(*place(panel, 700, 120))
    mouse.down()
    mouse.move(*place(panel, 1700, 220), steps=10)
    mouse.up()
    wait_until(lambda: near(panel, 1700, 220))
    panel.locator("img").evaluate("img => delete img.naturalWidth")
    quiet(panel)


def test_a_finger_drags_as_well(panel):
    session = panel.page.context.new_cdp_session(panel.page)

    def touch(kind: str, *points) -> None:
        touched = [dict(zip("xy", place(panel, *point))) for point in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})

    touch("touchStart", (400, 80))
    wait_until(lambda: near(panel, 400, 80))
    for x in range(400, 1300, 100):
        touch("touchMove", (x, 240))
    wait_until(lambda: near(panel, 1200, 240))
    touch("touchEnd")
    panel.page.wait_for_timeout(300)
    assert near(panel, 1200, 240)
    quiet(panel)
