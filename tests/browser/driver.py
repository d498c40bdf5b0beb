"""Driving a notebook in JupyterLab: run it, move its sliders with the keyboard, read its pictures."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat

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

#: When each new picture was decoded, while something is dragged.
FRAMES = """img => {
  window.watcher = new MutationObserver(async () => {
    await img.decode().catch(() => {});
    window.shown.push(performance.now());
  });
  window.shown = [];
  window.watcher.observe(img, {attributeFilter: ['src']});
}"""

#: Runs that ended: every code cell that is not empty has its number, or none has been waiting for two seconds.
#: A folded cell shows neither its source nor its number.
FINISHED = """() => {
  const cells = [...document.querySelectorAll('.jp-CodeCell')]
    .filter(cell => cell.querySelector('.cm-content')?.textContent.trim());
  const prompts = cells.map(cell => cell.querySelector('.jp-InputPrompt').textContent);
  const ran = prompts.filter(text => /\\[\\d+\\]/.test(text));
  if (!ran.length || prompts.some(text => text.includes('*'))) { window.still = 0; return false; }
  window.still = window.still || performance.now();
  return ran.length === prompts.length || performance.now() - window.still > 2000;
}"""
#: What the cell before the first one without a number has written: the error that ended the run.
STOPPED = """() => {
  const cells = [...document.querySelectorAll('.jp-CodeCell')];
  const number = cell => /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt')?.textContent);
  const waits = cell => !number(cell) && cell.querySelector('.cm-content')?.textContent.trim();
  const last = cells.filter(number).pop();
  const error = last && last.querySelector("[data-mime-type$='jupyter.error'], [data-mime-type$='jupyter.stderr']");
  return cells.some(waits) || error && /Error|Interrupt/.test(error.textContent)
    ? 'the run stopped: ' + last.querySelector('.jp-OutputArea').textContent.slice(-1500) : '';
}"""


def notebook_of(cells):
    """A notebook with these code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


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
    page.wait_for_function(FINISHED, timeout=600_000)
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
