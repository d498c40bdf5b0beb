"""The panels of every notebook, in a real JupyterLab."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from driver import pixels, quiet, step, wait_until

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = [path for path in sorted(FOLDER.rglob("[0-9][0-9]_*.ipynb")) if "explore." in path.read_text()]

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_panels_of_a_notebook(path, ran):
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with ran(notebook, path.name) as page:
        panels = page.locator(".zf-fast")
        assert panels.count() > 0, "the notebook mentions explore but shows no panel"
        for panel in panels.all():
            panel.locator("img").wait_for()
            move(panel)
            quiet(panel)


def move(panel) -> None:
    """One step of the panel's first slider, else of its first menu, else a press of its first button."""
    before, slider, menu = pixels(panel), panel.get_by_role("slider").first, panel.locator("select").first
    if slider.count():
        slider.press(step(slider)[0])
    elif menu.count():
        menu.select_option(index=1 if menu.evaluate("e => e.selectedIndex") == 0 else 0)
    else:
        panel.get_by_role("button").first.click()
    wait_until(lambda: pixels(panel) != before)
