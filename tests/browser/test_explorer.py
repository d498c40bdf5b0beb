"""The panels in a real JupyterLab: every control is moved with the keyboard, and the picture follows."""

from __future__ import annotations

import runpy
import statistics
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / "notebooks" / "build.py"))["SETUP"]
NOTEBOOKS = [p for p in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")) if "explore." in p.read_text()]

EXPLORER = 'from zflib import explore\nexplore.layers(zflib.load("zfnet56"))'
READY = """import numpy as np
frames = np.random.default_rng(0).integers(0, 256, (12, 245, 932, 3), np.uint8)
explore.stepper(list(frames))"""
UNITS = "explore.units(zflib.load('zfnet56'), zflib.scenes.scenes(64).pixels)"
OCCLUSION = """net = zflib.load('zfnet56')
explore.occlusion(net, net.preprocess(zflib.data.photo('chelsea')))"""
INVARIANCE = "explore.invariance(net, net.preprocess(zflib.data.photo('coffee')))"
CORRESPONDENCE = "explore.correspondence(zflib.load('scenes56'))"

CELLS = SETUP, EXPLORER, READY, UNITS, OCCLUSION, INVARIANCE, CORRESPONDENCE

#: One number for the decoded picture, once it rests: its address changes with every redraw, even of equal pixels.
PIXELS = """async img => {
  for (let seen = null; seen !== img.src;) {
    seen = img.src;
    await new Promise(done => setTimeout(done, 250));
    await img.decode().catch(() => { seen = null; });  // replaced while it was decoded
  }
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
  const context = canvas.getContext('2d');
  context.drawImage(img, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data.reduce((a, v) => (a * 31 + v) >>> 0, 7);
}"""
#: Milliseconds from the key to the decoded new picture, measured inside the page.
STOPWATCH = """img => {
  window.times = [];
  let pressed = 0;
  window.addEventListener('keydown', () => { pressed = performance.now(); }, true);
  new MutationObserver(async () => {
    await img.decode();
    window.times.push(performance.now() - pressed);
  }).observe(img, {attributeFilter: ['src']});
}"""

#: Runs that ended: every code cell that is not empty has its number, or none has been waiting for two seconds.
FINISHED = """() => {
  const cells = [...document.querySelectorAll('.jp-CodeCell')]
    .filter(cell => cell.querySelector('.cm-content').textContent.trim());
  const prompts = cells.map(cell => cell.querySelector('.jp-InputPrompt').textContent);
  const ran = prompts.filter(text => /\\[\\d+\\]/.test(text));
  if (!ran.length || prompts.some(text => text.includes('*'))) { window.still = 0; return false; }
  window.still = window.still || performance.now();
  return ran.length === prompts.length || performance.now() - window.still > 2000;
}"""
#: What the cell before the first one without a number has written: the error that ended the run.
STOPPED = """() => {
  const cells = [...document.querySelectorAll('.jp-CodeCell')];
  const number = cell => /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt').textContent);
  const waits = cell => !number(cell) && cell.querySelector('.cm-content').textContent.trim();
  const last = cells.filter(number).pop();
  const error = last && last.querySelector("[data-mime-type$='jupyter.error'], [data-mime-type$='jupyter.stderr']");
  return cells.some(waits) || error && /Error|Interrupt/.test(error.textContent)
    ? 'the run stopped: ' + last.querySelector('.jp-OutputArea').textContent.slice(-1500) : '';
}"""


def put(notebook, path: Path) -> None:
    """Write the notebook with a kernel's name in it: without one, Lab would open a dialog."""
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def run_all(page, address: str) -> None:
    """Open the notebook, run it from top to bottom and wait for its last cell; no cell may end in an error."""
    page.goto(address)
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    page.get_by_text("| Idle").first.wait_for()  # before that, Run All would ask which kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(FINISHED, timeout=240_000)
    stopped = page.evaluate(STOPPED)
    assert not stopped, stopped


def pixels(panel) -> int:
    return panel.locator("img").evaluate(PIXELS)


def wait_until(condition, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing happened within {seconds} seconds"
        time.sleep(0.05)


def step(slider) -> tuple[str, str]:
    """The keys for a step and back: to the right unless the slider is at its end."""
    at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
    return ("ArrowLeft", "ArrowRight") if at_end else ("ArrowRight", "ArrowLeft")


def quiet(panel) -> None:
    alert = panel.locator("[role=alert]")
    assert alert.count() == 0, alert.first.inner_text()


@pytest.mark.parametrize("cells", [["1 / 0", "2"], ["1", "1 / 0"]], ids=["then more", "at the end"])
def test_a_cell_that_fails_is_noticed(cells, lab, page):
    folder, address = lab
    put(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), folder / "fails.ipynb")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_all(page, address("fails.ipynb"))


@pytest.fixture(scope="module")
def panel(lab, chromium):
    """The explorer of a notebook that has the setup cell of all; below it are pictures drawn already."""
    folder, address = lab
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    put(nbformat.v4.new_notebook(cells=cells), folder / "explorer.ipynb")
    page = chromium.new_page(viewport={"width": 1400, "height": 1600})
    page.set_default_timeout(120_000)
    run_all(page, address("explorer.ipynb"))
    panel = page.locator(".zf-fast").first
    panel.locator("img").wait_for()
    yield panel
    page.close()


def test_slider_changes_the_picture_and_brings_it_back(panel):
    handle, before = panel.get_by_role("slider"), pixels(panel)
    there, back = step(handle)
    handle.press(there)
    wait_until(lambda: pixels(panel) != before)
    handle.press(back)
    wait_until(lambda: pixels(panel) == before)
    quiet(panel)


CHOICES = [("photo", "coffee"), ("layer", "conv2"), ("layer", "fc8"), ("rule", "gradient"), ("rule", "guided")]


@pytest.mark.parametrize(("menu", "choice"), CHOICES)
def test_menu_changes_the_picture_and_brings_it_back(panel, menu, choice):
    select = panel.locator(".widget-dropdown", has_text=menu).locator("select")
    first, before = select.evaluate("e => e.selectedOptions[0].text"), pixels(panel)
    select.select_option(choice)
    wait_until(lambda: pixels(panel) != before)
    select.select_option(first)
    wait_until(lambda: pixels(panel) == before)
    quiet(panel)


def test_words_follow_the_slider(panel):
    handle, words, _ = panel.get_by_role("slider"), panel.locator("[aria-live]"), pixels(panel)
    before = words.inner_text()
    assert "of conv5" in before
    there, back = step(handle)
    handle.press(there)
    wait_until(lambda: words.inner_text() != before)
    handle.press(back)
    wait_until(lambda: words.inner_text() == before)
    quiet(panel)


def test_key_press_to_changed_picture(panel, capsys):
    """Within 400 ms, or on a busy machine within three times what a picture takes that is drawn already."""
    ready = press_keys(panel.page.locator(".zf-fast").nth(1), 30)
    times = press_keys(panel, 30)
    p95, least = (statistics.quantiles(some, n=20)[-1] for some in (times, ready))
    with capsys.disabled():
        print(f"\nkey press to changed picture: median {statistics.median(times):.0f} ms, p95 {p95:.0f} ms")
        print(f"the same, drawn ahead of time: median {statistics.median(ready):.0f} ms, p95 {least:.0f} ms")
    assert p95 < max(400, 3 * least)


OTHERS = {"units, channel": (2, -1, 24), "occlusion, row": (3, 0, 24), "occlusion, column": (3, 1, 24),
          "occlusion, size": (3, -1, 9), "invariance, down": (4, 0, 24), "invariance, angle": (4, -1, 24),
          "correspondence, size": (5, -1, 5)}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_key_press_in_the_other_explorers(panel, capsys, name):
    """As above, for Figures 2, 5, 7 and 8; every press asks for a picture not drawn before."""
    number, slider, count = OTHERS[name]
    ready = press_keys(panel.page.locator(".zf-fast").nth(1), 15)
    other = panel.page.locator(".zf-fast").nth(number)
    times = press_keys(other, count, slider=slider, turn=100)
    p95, least = (statistics.quantiles(some, n=20)[-1] for some in (times, ready))
    with capsys.disabled():
        print(f"\n{name}: median {statistics.median(times):.0f} ms, p95 {p95:.0f} ms")
    quiet(other)
    assert p95 < max(400, 3 * least)


def press_keys(panel, count: int, *, first: int = 3, slider: int = 0, turn: int = 6) -> list[float]:
    """Milliseconds from each key press to the changed picture; `turn` steps to the right, as many to the left.

    The `first` presses, which warm the network up, are left out.
    """
    handle, page = panel.get_by_role("slider").nth(slider), panel.page
    handle.press("Home")
    pixels(panel)  # at rest
    panel.locator("img").evaluate(STOPWATCH)
    for number in range(1, first + count + 1):
        handle.press("ArrowRight" if (number - 1) % (2 * turn) < turn else "ArrowLeft")
        page.wait_for_function("count => window.times.length >= count", arg=number)
    return page.evaluate("window.times")[first:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_panels_of_a_notebook(path, lab, page):
    folder, address = lab
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    put(notebook, folder / path.name)
    run_all(page, address(path.name))
    panels = page.locator(".zf-fast")
    assert panels.count() > 0, "the notebook mentions explore but shows no panel"
    for panel in panels.all():
        panel.locator("img").wait_for()
        _move(panel)
        quiet(panel)


def _move(panel) -> None:
    """One step of the panel's first slider, or its first menu if it has none."""
    before, slider = pixels(panel), panel.get_by_role("slider").first
    if slider.count():
        slider.press(step(slider)[0])
    else:
        menu = panel.locator("select").first
        menu.select_option(index=1 if menu.evaluate("e => e.selectedIndex") == 0 else 0)
    wait_until(lambda: pixels(panel) != before)
