"""A slider answers while a cell runs, in JupyterLab as it is set up when it is installed."""

from __future__ import annotations

import time

import pytest
from driver import notebook_of, pixels, quiet, wait_until

PANEL = """
import time, torch, zflib
from zflib import explore

net = zflib.load("zfnet56")
image = net.preprocess(zflib.data.photo("coffee"))[0]
panel = explore.invariance(net, image)
panel
"""
#: What a cell may be busy with: our own measurements, or a loop, after it moved the slider itself.
BUSY = {
    "occlude": ("pass", "zflib.occlude(net, image, size=8, stride=1)"),
    "loop": ("panel.controls['down'].value += 3", "sum(number * number for number in range(200_000))"),
}
CELL = "{}\nend = time.time() + 8\nwhile time.time() < end:\n    {}"


@pytest.fixture(scope="module")
def page(ran):
    with ran(notebook_of([PANEL]), "busy.ipynb") as page:
        page.locator(".zf-fast img").wait_for()
        yield page


def run(page, code: str):
    """Run the code in a new cell at the end; its prompt, while it runs."""
    page.locator(".jp-Cell").last.click()
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.locator(".jp-Cell").last.locator(".cm-content").click()
    page.keyboard.insert_text(code)
    page.keyboard.press("Control+Enter")
    prompt = page.locator(".jp-Cell").last.locator(".jp-InputPrompt")
    page.locator(".jp-Cell").last.locator(".jp-InputPrompt", has_text="[*]").wait_for()
    return prompt


@pytest.mark.nightly
@pytest.mark.parametrize("name", BUSY)
def test_a_slider_answers_while_a_cell_runs(page, name, capsys):
    panel = page.locator(".zf-fast").first
    prompt = run(page, CELL.format(*BUSY[name]))
    page.wait_for_timeout(500)
    before, start = pixels(panel), time.monotonic()
    panel.get_by_role("slider").first.press("ArrowRight")
    wait_until(lambda: pixels(panel) != before)
    with capsys.disabled():
        print(f"\nwhile {name} runs: within {time.monotonic() - start:.1f} s")  # half a second of it is the look
    assert "[*]" in prompt.inner_text()
    wait_until(lambda: "[*]" not in prompt.inner_text())
    quiet(panel)
