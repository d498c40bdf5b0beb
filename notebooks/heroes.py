"""A slide for each notebook: its title, its first stored picture and its question. Nothing is run."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

SIZE, MARGIN, GAP, INDENT, SPACING = (1920, 1080), 64, 32, 38, 18  # pixels
INK, ACCENT = "#1a1a1a", "#c24a00"
COLUMN = 560  # words beside a picture have at least this width
#: Which frame of an animation makes the point, if not its last one. 07: winners jump. 08: one side has lost the bar.
FRAMES = {"07": 6, "08": -2}


def hero(path: Path) -> Image.Image:
    """The first picture that a notebook has stored; of an animation its most telling frame."""
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg"):
                if kind in output.get("data", {}):
                    picture = Image.open(io.BytesIO(base64.b64decode(output["data"][kind])))
                    frames = getattr(picture, "n_frames", 1)
                    picture.seek(FRAMES.get(path.stem[:2], -1) % frames)
                    shown = picture.convert("RGBA").convert("RGB")
                    return shown.point(
                        lambda value: 255 if value > 250 else value
                    )  # a palette's white is not quite white
    raise ValueError(f"{path.name} has no stored picture: run python notebooks/build.py --run {path.stem[:2]}")


def words(path: Path) -> tuple[str, str, str]:
    """A notebook's number, its title and the question under its title."""
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    number, _, title = cells[0].split("\n")[0].lstrip("# ").partition(" · ")
    question = next(found[1] for cell in cells if (found := re.search(r"\*\*([^*]+\?)\*\*", cell)))
    return number, title.strip(), " ".join(question.replace("`", "").split())


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    wanted = font_manager.FontProperties(
        family="DejaVu Sans", weight="bold" if bold else "normal"
    )  # matplotlib brings it
    return ImageFont.truetype(font_manager.findfont(wanted), size)


def wrapped(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """The text in as few lines of at most `width` pixels as its words allow, about equally long."""
    lines = _filled(text, face, width)
    while len(narrower := _filled(text, face, width - 10)) == len(lines):  # no last word alone in its line
        lines, width = narrower, width - 10
        if width < max(face.getlength(word) for word in text.split()):
            break
    return "\n".join(lines)


def _filled(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    first, *others = text.split()
    lines = [first]
    for word in others:
        longer = f"{lines[-1]} {word}"
        lines = [*lines[:-1], longer] if face.getlength(longer) <= width else [*lines, word]
    return lines


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """As large as fits into width x height pixels, with its own proportions."""
    scale = min(width / picture.width, height / picture.height)
    return picture.resize((round(scale * picture.width), round(scale * picture.height)), Image.Resampling.LANCZOS)


def slide(path: Path) -> Image.Image:
    """(1920,1080) slide of a notebook: words above and below a wide picture, beside a tall one."""
    picture = hero(path)
    page = Image.new("RGB", SIZE, "white")
    if picture.width < 1.5 * picture.height:
        _beside(page, picture, *words(path))
    else:
        _above_and_below(page, picture, *words(path))
    return page


def _above_and_below(page: Image.Image, picture: Image.Image, number: str, title: str, question: str) -> None:
    draw, heading, asking = ImageDraw.Draw(page), font(64, bold=True), font(54)
    draw.text((MARGIN, 98), number, ACCENT, heading, anchor="ls")
    draw.text((MARGIN + heading.getlength(number) + 28, 98), title, INK, heading, anchor="ls")
    lines = wrapped(question, asking, SIZE[0] - 2 * MARGIN - INDENT)
    top = SIZE[1] - 48 - _height(draw, lines, asking)
    _ask(draw, (MARGIN, top), lines, asking)
    _paste(page, fitted(picture, SIZE[0] - 2 * MARGIN, top - 2 * GAP - 98), SIZE[0] / 2, (98 + top) / 2)


def _beside(page: Image.Image, picture: Image.Image, number: str, title: str, question: str) -> None:
    draw, heading, asking = ImageDraw.Draw(page), font(64, bold=True), font(54)
    small = fitted(picture, SIZE[0] - COLUMN - 3 * MARGIN, SIZE[1] - 96)
    column = SIZE[0] - small.width - 3 * MARGIN
    _paste(page, small, SIZE[0] - MARGIN - small.width / 2, SIZE[1] / 2)
    draw.text((MARGIN, 120), number, ACCENT, heading, anchor="ls")
    draw.multiline_text((MARGIN, 152), wrapped(title, heading, column), INK, heading, spacing=14)
    lines = wrapped(question, asking, column - INDENT)
    _ask(draw, (MARGIN, SIZE[1] - 96 - _height(draw, lines, asking)), lines, asking)


def _paste(page: Image.Image, picture: Image.Image, across: float, down: float) -> None:
    """With its middle there."""
    page.paste(picture, (round(across - picture.width / 2), round(down - picture.height / 2)))


def _height(draw: ImageDraw.ImageDraw, lines: str, face) -> int:
    return round(draw.multiline_textbbox((0, 0), lines, face, spacing=SPACING)[3])


def _ask(draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: str, face) -> None:
    """The question, behind a bar of colour."""
    left, top = corner
    draw.rectangle((left, top + 8, left + 9, top + _height(draw, lines, face)), fill=ACCENT)
    draw.multiline_text((left + INDENT, top), lines, INK, face, spacing=SPACING)


def write(folder: Path, paths: list[Path]) -> list[Path]:
    """One PNG for each notebook, named after it; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in paths:
        target = folder / f"{path.stem}.png"
        part = target.with_suffix(".png.part")
        slide(path).save(part, "PNG")
        written.append(part.replace(target))
    return written
