"""The notebooks' structure: what nbval does not see. (That their code runs is nbval's part: `pytest` collects them.)"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402

PATHS = build.paths()
IDS = [path.stem for path in PATHS]
CHAPTERS = build.chapters()
CHECK = re.compile(r"^check\.\w+\(", re.MULTILINE)


@pytest.fixture(params=PATHS, ids=IDS)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, 4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def text(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_generated_parts_are_up_to_date(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    assert build.main() == 0, capsys.readouterr().out


def test_is_valid_and_small(path, notebook):
    nbformat.validate(notebook)
    assert path.stat().st_size < 3 << 20
    assert "widgets" not in notebook.metadata


def test_begins_with_title_links_and_the_same_setup_cell(notebook):
    assert notebook.cells[0].source.startswith("# ")
    assert notebook.cells[1].metadata.tags == ["zf-top"]
    assert notebook.cells[-1].metadata.tags == ["zf-bottom"]
    assert [cell.source for cell in tagged(notebook, "zf-setup")] == [build.SETUP]
    assert code(notebook)[0].source == build.SETUP


def test_was_stored_by_one_run_from_a_fresh_kernel(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_a_compared_cell_has_a_stored_output(notebook):
    compared = tagged(notebook, "nbval-check-output")
    assert compared, "tag a few stable outputs with nbval-check-output"
    assert all(cell.outputs for cell in compared)


def test_shows_a_picture_within_five_code_cells(notebook):
    first = [output for cell in code(notebook)[:5] for output in cell.outputs]
    assert any({"image/png", "image/jpeg"} & output.get("data", {}).keys() for output in first)


def test_cells_are_few_short_and_explained(notebook):
    lengths = [len(cell.source.splitlines()) for cell in code(notebook) if cell.source != build.SETUP]
    assert len(notebook.cells) <= 65
    assert len(code(notebook)) <= len(notebook.cells) / 2
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 8


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_is_a_lesson_of_an_hour(path):
    notebook = nbformat.read(path, 4)
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    figures = [output for output in outputs if {"image/png", "image/jpeg"} & output.get("data", {}).keys()]
    assert len(notebook.cells) <= 45
    # The last cell is generated: links, and a summary in Korean that repeats what a reader of English has read.
    lesson = text(notebook).removesuffix(notebook.cells[-1].source)
    assert len(re.sub(r"<[^>]+>", "", lesson).split()) <= 1600
    assert len(figures) <= 10
    assert 2 <= len(CHECK.findall("\n".join(cell.source for cell in code(notebook)))) <= 3, "two or three exercises"
    assert notebook.metadata["zflib"]["reading"] <= 60, "minutes, exercises included"


def test_runs_in_a_minute(path, notebook):
    trains = path.stem[:2] in ("05", "12")  # live
    assert notebook.metadata["zflib"]["seconds"] <= (180 if trains else 60)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_has_what_every_chapter_has(path):
    notebook = nbformat.read(path, 4)
    prose, source = text(notebook), "\n".join(cell.source for cell in code(notebook))
    assert "You will be able to" in prose
    assert re.search(r"\|\s*ours", prose, re.IGNORECASE), "a table of what the paper got and what we got"
    assert "explore." in source, "a widget"
    assert len(CHECK.findall(source)) >= 2, "two exercises"
    assert prose.count("<details>") >= 2, "hints"


def test_links_resolve(path, notebook):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text(notebook)):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_readme_links_resolve(name):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
