"""Explorers without a mouse, in a real JupyterLab: Tab reaches every control, keys move it, and buttons are pressed."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from driver import notebook_of, pixels, quiet, wait_until

SETUP = runpy.run_path(str(Path(__file__).resolve().parents[2] / "notebooks" / "build.py"))["SETUP"]
CELLS = [SETUP, "from zflib import explore\nnet = zflib.load('zfnet56')\nexplore.name_the_channel(net, rounds=2)",
         "explore.layers(net, ['chelsea'])"]  # fmt: skip
CONTROLS = "input:not([type=hidden]):not([type=file]), select, button, [role=slider]"
FOCUS = "panel => [...panel.querySelectorAll(CONTROLS)].indexOf(document.activeElement)".replace(
    "CONTROLS", repr(CONTROLS)
)

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def panels(ran):
    with ran(notebook_of(CELLS), "keyboard.ipynb") as page:
        found = page.locator(".zf-fast")
        found.nth(1).locator("img").wait_for()
        yield [found.nth(0), found.nth(1)]


@pytest.mark.parametrize("number", [0, 1], ids=["name_the_channel", "layers"])
def test_tab_reaches_every_control(panels, number):
    panel = panels[number]
    shown = [i for i, control in enumerate(panel.locator(CONTROLS).all()) if control.is_visible()]
    panel.locator(CONTROLS).nth(shown[0]).focus()
    seen = set()
    for _ in range(3 * len(shown)):
        seen.add(panel.evaluate(FOCUS))
        panel.page.keyboard.press("Tab")
    assert seen >= set(shown)


def test_the_game_is_played_by_keys(panels):
    panel, before = panels[0], pixels(panels[0])
    panel.get_by_role("textbox").first.focus()
    panel.page.keyboard.type("dots")
    panel.get_by_role("button", name="3", exact=True).press("Enter")
    wait_until(lambda: "of 1 right" in panel.locator("[aria-live]").inner_text())
    assert pixels(panel) != before
    panel.get_by_role("button", name="next", exact=True).press("Space")
    wait_until(lambda: "Write a name" in panel.locator("[aria-live]").inner_text())
    quiet(panel)
