"""The panels in a real JupyterLab: every control is moved with the keyboard, and the picture follows."""

from __future__ import annotations

import runpy
import statistics
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / "notebooks" / "build.py"))["SETUP"]
NOTEBOOKS = [p for p in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")) if "explore." in p.read_text()]

#: One number for the decoded picture: its address changes with every redraw, even of the same pixels.
PIXELS = """async img => {
  await img.decode();
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


def changed(page, panel, before: int) -> int:
    """Wait for a picture that differs from `before`; the new one's number."""
    image = panel.locator("img").element_handle()
    page.wait_for_function(
        f"([img, old]) => ({PIXELS})(img).then(now => now !== old)", arg=[image, before], timeout=20_000
    )
    return pixels(panel)


def returned(page, panel, before: int) -> None:
    image = panel.locator("img").element_handle()
    page.wait_for_function(
        f"([img, old]) => ({PIXELS})(img).then(now => now === old)", arg=[image, before], timeout=20_000
    )


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
def explorer(lab, chromium):
    """(page, panel) of a notebook with the setup cell of all notebooks and one explorer."""
    folder, address = lab
    cells = [SETUP, 'from zflib import explore\nexplore.layers(zflib.load("zfnet56"))']
    put(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), folder / "explorer.ipynb")
    page = chromium.new_page(viewport={"width": 1400, "height": 1600})
    page.set_default_timeout(120_000)
    run_all(page, address("explorer.ipynb"))
    panel = page.locator(".zf-fast")
    panel.locator("img").wait_for()
    yield page, panel
    page.close()


def test_slider_changes_the_picture_and_brings_it_back(explorer):
    page, panel = explorer
    handle, before = panel.get_by_role("slider"), pixels(panel)
    handle.press("ArrowRight")
    changed(page, panel, before)
    handle.press("ArrowLeft")
    returned(page, panel, before)
    quiet(panel)


@pytest.mark.parametrize(
    ("menu", "choice"), [("photo", "coffee"), ("layer", "conv2"), ("layer", "fc8"), ("rule", "gradient")]
)
def test_menu_changes_the_picture_and_brings_it_back(explorer, menu, choice):
    page, panel = explorer
    select = panel.locator(".widget-dropdown", has_text=menu).locator("select")
    first, before = select.evaluate("e => e.selectedOptions[0].text"), pixels(panel)
    select.select_option(choice)
    changed(page, panel, before)
    select.select_option(first)
    returned(page, panel, before)
    quiet(panel)


def test_words_follow_the_slider(explorer):
    page, panel = explorer
    words = panel.locator("[aria-live]")
    page.wait_for_function("() => document.querySelector('.zf-fast [aria-live]').innerText.includes('of conv5')")
    before = words.inner_text()
    panel.get_by_role("slider").press("ArrowRight")
    page.wait_for_function("old => document.querySelector('.zf-fast [aria-live]').innerText !== old", arg=before)
    panel.get_by_role("slider").press("ArrowLeft")
    page.wait_for_function("old => document.querySelector('.zf-fast [aria-live]').innerText === old", arg=before)


def test_key_press_to_changed_picture(explorer, capsys):
    page, panel = explorer
    panel.locator("img").evaluate(STOPWATCH)
    press_keys(page, panel, 3)  # the first ones warm the network up
    for _ in range(3):  # another program may take the processor for a while
        times = press_keys(page, panel, 30)
        p95 = statistics.quantiles(times, n=20)[-1]
        with capsys.disabled():
            median = statistics.median(times)
            print(f"\nkey press to changed picture: median {median:.0f} ms, p95 {p95:.0f} ms of {len(times)}")
        if p95 < 400:
            return
    pytest.fail(f"p95 of {p95:.0f} ms from key press to changed picture; 400 ms is the limit, 100 ms the aim")


def press_keys(page, panel, count: int) -> list[float]:
    """Milliseconds from each of `count` key presses to the changed picture; six steps to the right, six to the left."""
    handle = panel.get_by_role("slider")
    page.evaluate("window.times.length = 0")
    for number in range(1, count + 1):
        handle.press("ArrowRight" if number % 12 < 6 else "ArrowLeft")
        page.wait_for_function("count => window.times.length >= count", arg=number)
    return page.evaluate("window.times")


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
        _move(page, panel)
        quiet(panel)


def _move(page, panel) -> None:
    """One step of the panel's first slider, or its first menu if it has none."""
    before, slider = pixels(panel), panel.get_by_role("slider").first
    if slider.count():
        at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        slider.press("ArrowLeft" if at_end else "ArrowRight")
    else:
        menu = panel.locator("select").first
        menu.select_option(index=1 if menu.evaluate("e => e.selectedIndex") == 0 else 0)
    changed(page, panel, before)
