"""What everybody can read: text alternatives of stored figures, contrast of text, colours that the colour-blind see."""

from __future__ import annotations

import ast
import re
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from nbconvert import HTMLExporter
from skimage.color import rgb2lab

from zflib import show
from zflib.check import verdict
from zflib.explore import charts, correspondence_explorer, directions_explorer, panels
from zflib.show import diagram, drops, inks
from zflib.studies import (
    ablation_drawn,
    architecture_drawn,
    curvature,
    dogs,
    evolution_controls,
    localisation,
    moves,
    parts_and_places,
    training,
    transfer,
    transposes,
)

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"))
FILES = sorted((ROOT / "zflib").rglob("*.py"))

LARGE = 3.0  # contrast that WCAG 2.1 asks of text from 24 px, or from 18.7 px in bold, and of marks (1.4.11)
APART = 15.0  # least distance of two colours in CIE Lab (CIE76); two that can just be told apart have 2.3


# --- text alternatives -----------------------------------------------------------------------------------------------


def pictures(notebook):
    """(number of the cell, its text alternative or None) of every stored picture."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & output.get("data", {}).keys():
                yield number, output.metadata.get(kind, {}).get("alt")
            for image in BeautifulSoup(output.get("data", {}).get("text/html", ""), "html.parser").select("img"):
                yield number, image.get("alt")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_stored_picture_has_a_text_alternative(path):
    silent = [number for number, alt in pictures(nbformat.read(path, 4)) if not re.search(r"[^\W\d]{3}", alt or "")]
    assert not silent, f"cells {silent}; figures get theirs from python notebooks/build.py --run {path.name[:2]}"


def test_nbconvert_reads_the_text_alternatives():
    """The website's pages do, and `jupyter nbconvert --template classic`. JupyterLab 4.6 shows PNG and JPEG without."""
    output = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    output.metadata = {"image/png": {"alt": "2 pictures: <cat>; dog"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    assert [image["alt"] for image in BeautifulSoup(page, "html.parser").select("img")] == ["2 pictures: <cat>; dog"]


# --- contrast of text ------------------------------------------------------------------------------------------------


def rgb(colour):
    """matplotlib's kind of colour, from PIL's too."""
    return tuple(part / 255 for part in colour) if not isinstance(colour, str) and max(colour) > 1 else colour


def test_contrast_is_that_of_wcag():
    assert show.contrast("white", "black") == pytest.approx(21)
    assert show.contrast("#777777", "white") == pytest.approx(4.48, abs=0.005)  # the known grey that just fails
    assert show.contrast("red", "white") == pytest.approx(4.0, abs=0.005)


@pytest.mark.parametrize("ground", ["white", "black", "#17191d", "0.5", (0.9, 0.6, 0.1)])
def test_ink_is_read_on_its_ground_and_keeps_colours_that_are(ground):
    for colour in [*show.CURVES, show.ORANGE, "grey", "white", "yellow"]:
        assert show.contrast(show.ink(colour, ground), ground) >= inks.TEXT
    assert show.ink("#0072b2") == "#0072b2" and show.contrast(show.black_or_white(ground), ground) >= inks.TEXT


@pytest.mark.parametrize("name", [show.DIVERGING, "Oranges", "Blues", "Greys"])
def test_numbers_are_read_in_every_square(name):
    for ground in mpl.colormaps[name](np.linspace(0, 1, 101)):
        assert show.contrast(show.black_or_white(ground), ground) >= inks.TEXT


CHOSEN = {"ink", "black_or_white"}  # functions that give a colour which can be read
WRITERS = {"text", "_text", "annotate", "_line"}  # those that write; PLACE: which argument is the colour
PLACE = {"_text": 4}


def called(node: ast.expr) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""


def text_colours(tree: ast.Module):
    """Every expression for the colour of a text; where a function only hands its own argument on, that of its calls."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        own = {argument.arg for argument in function.args.args + function.args.kwonlyargs}
        for node in (node for node in ast.walk(function) if called(node) in WRITERS):
            found = [word.value for word in node.keywords if word.arg in ("color", "fill", "colour")]
            found += node.args[PLACE[called(node)] :][:1] if called(node) in PLACE else []
            yield from (value for value in found if not (function.name in WRITERS and ast.unparse(value) in own))


def values(tree: ast.Module) -> dict[str, ast.expr]:
    """Every expression that a name stands for in a file, by the name; of several the last one."""
    found = {}
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Assign)):
        target, value = node.targets[0], node.value
        several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        pairs = zip(target.elts, value.elts) if several else [(target, value)]
        found |= {ast.unparse(name): one for name, one in pairs}
    return found


def is_read(colour: ast.expr, named: dict[str, ast.expr]) -> bool:
    """Whether a text passes on white, or has the colour that `show.ink` or `black_or_white` chose for its ground."""
    if isinstance(colour, ast.IfExp):
        return is_read(colour.body, named) and is_read(colour.orelse, named)
    if isinstance(colour, ast.Name):
        others = {name: value for name, value in named.items() if name != colour.id}
        return colour.id in named and is_read(named[colour.id], others)
    if isinstance(colour, ast.Constant | ast.Tuple):
        return show.contrast(rgb(ast.literal_eval(colour)), "white") >= inks.TEXT
    return called(colour) in CHOSEN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_written_on_pictures_can_be_read(path):
    tree = ast.parse(path.read_text())
    named = values(tree)
    hard = [f"line {value.lineno}: {ast.unparse(value)}" for value in text_colours(tree) if not is_read(value, named)]
    assert not hard, "write it in show.ink(colour)"


@pytest.mark.parametrize("colour", [diagram.INK, diagram.FAINT, diagram.UP, diagram.DOWN, diagram.SWITCH])
def test_the_words_of_the_machine_can_be_read(colour):
    assert show.contrast(rgb(colour), "white") >= inks.TEXT


@pytest.mark.parametrize("state, colour", verdict._COLOURS.items())
def test_verdicts_and_alerts_bring_their_own_ground(state, colour):
    """Dark themes of JupyterLab would swallow them."""
    badge = BeautifulSoup(verdict.Verdict(state, "so")._repr_html_(), "html.parser").select_one("b")["style"]
    assert f"color:#ffffff;background:{colour}" in badge and show.contrast("white", colour) >= inks.TEXT
    text, ground = re.findall(r"#\w{6}", panels.ALERT)
    assert show.contrast(text, ground) >= inks.TEXT


def test_the_atlas_is_read_by_day_and_by_night():
    css = (ROOT / "zflib" / "atlas" / "style.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]
    assert len(themes) == 2
    for theme in themes:
        for name in set(re.findall(r"color: var\(--(\w+)\)", re.sub(r"[\w-]+-color:", "", css))) - {"paper"}:
            assert show.contrast(theme[name], theme["paper"]) >= inks.TEXT, (name, theme[name])
        assert show.contrast(theme["mark"], theme["paper"]) >= LARGE  # the frame of what has the focus


# --- colours for the colour-blind ------------------------------------------------------------------------------------

#: What is seen with complete dichromacy, linear RGB: Machado, Oliveira and Fernandes 2009, table 1, severity 1.0.
MACHADO = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colour, sight: str) -> np.ndarray:
    """(3,) CIE Lab of a colour as it is seen."""
    parts = np.array(to_rgb(rgb(colour)))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(MACHADO[sight]) @ linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


def nearest(colours) -> tuple[float, str]:
    """The least distance of two of the colours in any of the three kinds of sight, and which two."""
    return min(
        (float(np.linalg.norm(seen(one, sight) - seen(other, sight))), f"{one} and {other}, {sight}")
        for one, other in combinations(colours, 2) for sight in MACHADO
    )  # fmt: skip


#: Colours that mean different things in one figure.
TOGETHER = {
    "curves": show.CURVES,
    "machine": [diagram.UP, diagram.DOWN, diagram.SWITCH, diagram.PALE],
    "ablation": [ablation_drawn.CONV, ablation_drawn.FULLY, ablation_drawn.INK],
    "ablation, ours and the paper's": [ablation_drawn.CONV, ablation_drawn.PAPER],
    "architecture": list(architecture_drawn.COLOURS.values()),
    "architecture, bands": list(architecture_drawn.BANDS.values()),
    "correspondence": list(correspondence_explorer.COLOURS.values()),
    "curvature": [colour for _, colour in curvature.STYLES.values()],
    "directions": list(directions_explorer.COLOURS.values()),
    "dogs": [*dogs.COLOURS.values(), "#0072b2"],
    "evolution, jumps": [colour for _, colour, _ in evolution_controls.JUMPERS.values()],
    "evolution, layers": evolution_controls.SHADES,
    "localisation": list(localisation.COLOURS),
    "moves": [moves.BLUE, moves.ORANGE, moves.INK],
    "parts": [parts_and_places.CONTROL, parts_and_places.PART, parts_and_places.PLACE],
    "quiet bars": [charts.QUIET, show.ORANGE],
    "training, crops": training.COLOURS,
    "training, changes": [training.CHANGED, training.SAME],
    "transfer, curves": [transfer.BLUE, transfer.RUST, transfer.PINK, "black", transfer.GREY],
    "transfer, zfnet56": [transfer.RUST, transfer.GREEN, transfer.PINK],
    "transfer, squeezenet": [transfer.BLUE, transfer.GREEN, transfer.PINK],
    "transposes": [transposes.STAMP, transposes.OTHER],
}


def test_sight_is_simulated():
    assert nearest(["#ff0000", "#00a000"])[0] < nearest(["#0000ff", "#ffa000"])[0]
    assert nearest(["#00795a", "#777777"])[0] < APART, "green and grey, to a deuteranope"


@pytest.mark.parametrize("name", TOGETHER)
def test_colours_of_one_figure_stay_apart(name):
    distance, pair = nearest(TOGETHER[name])
    assert distance >= APART, pair


def test_lines_in_colours_that_are_close_differ_in_another_way():
    """Two of the colours of five pictures are close to a deuteranope, and filters and their walk have one colour."""
    assert len(set(moves.LINES)) == len(moves.PICTURES)
    styles = [line for line, *_ in evolution_controls.LINES.values()]
    assert len(set(styles)) == len(styles)


@pytest.mark.parametrize("name", [show.DIVERGING, show.SEQUENTIAL, drops.LOSS, "Oranges", "Blues", "Greys"])
@pytest.mark.parametrize("sight", MACHADO)
def test_scales_of_colours_are_in_order_for_every_sight(name, sight):
    """Lightness rises or falls all the way; of the diverging one in each half, whose ends are apart."""
    colours = mpl.colormaps[name](np.linspace(0, 1, 21)) if isinstance(name, str) else name(np.linspace(0, 1, 21))
    lab = [seen(colour[:3], sight) for colour in colours]
    halves = [lab[:11], lab[10:]] if name == show.DIVERGING else [lab]
    for half in halves:
        steps = [after[0] - before[0] for before, after in pairwise(half)]
        assert all(step > -0.5 for step in steps) or all(step < 0.5 for step in steps)
    assert np.linalg.norm(lab[0] - lab[-1]) >= APART
