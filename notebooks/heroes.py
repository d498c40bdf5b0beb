"""A slide for each notebook: its title, its first stored picture and its question. Nothing is run."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

SIZE, MARGIN, GAP = (1920, 1080), 64, 36  # pixels
INK, QUIET, ACCENT = "#1a1a1a", "#6b6b6b", "#c24a00"
COLUMN = 520  # the width of the words where they stand beside the picture
#: Which frame of an animation makes the point; others show their last one. 07: the jumps. 08: one side has lost the bar.
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
                    return picture.convert("RGBA").convert("RGB")
    raise ValueError(f"{path.name} has no stored picture: run python notebooks/build.py --run {path.stem[:2]}")


def words(path: Path) -> tuple[str, str, str]:
    """A notebook's number, its title and the question under its title."""
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    number, _, title = cells[0].split("\n")[0].lstrip("# ").partition(" · ")
    question = next(found[1] for cell in cells if (found := re.search(r"\*\*([^*]+\?)\*\*", cell)))
    return number, title.strip(), " ".join(question.replace("`", "").split())


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    wanted = font_manager.FontProperties("DejaVu Sans", weight="bold" if bold else "normal")  # matplotlib brings it
    return ImageFont.truetype(font_manager.findfont(wanted), size)


def wrapped(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """The text in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if face.getlength(longer) <= width else [*lines, word]
    return "\n".join(lines)


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
    draw, wide = ImageDraw.Draw(page), SIZE[0] - 2 * MARGIN
    heading, asking = font(60, bold=True), font(48)
    draw.text((MARGIN, 96), number, ACCENT, heading, anchor="ls")
    draw.text((MARGIN + heading.getlength(number) + 28, 96), title, INK, heading, anchor="ls")
    lines = wrapped(question, asking, wide - 36)
    asked = draw.multiline_textbbox((0, 0), lines, asking, spacing=14)[3]
    bottom = SIZE[1] - 56
    _paste(page, picture, (MARGIN, 96 + GAP, SIZE[0] - MARGIN, bottom - asked - GAP))
    _ask(draw, (MARGIN, bottom - asked), lines, asking)


def _beside(page: Image.Image, picture: Image.Image, number: str, title: str, question: str) -> None:
    draw = ImageDraw.Draw(page)
    heading, asking = font(60, bold=True), font(46)
    draw.text((MARGIN, 112), number, ACCENT, heading, anchor="ls")
    name = wrapped(title, heading, COLUMN)
    draw.multiline_text((MARGIN, 146), name, INK, heading, spacing=14)
    lines = wrapped(question, asking, COLUMN - 36)
    asked = draw.multiline_textbbox((0, 0), lines, asking, spacing=16)[3]
    _ask(draw, (MARGIN, SIZE[1] - 80 - asked), lines, asking, spacing=16)
    _paste(page, picture, (MARGIN + COLUMN + GAP, 48, SIZE[0] - 48, SIZE[1] - 48))


def _paste(page: Image.Image, picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    """In the middle of the box: left, top, right, bottom."""
    left, top, right, bottom = box
    small = fitted(picture, right - left, bottom - top)
    page.paste(small, ((left + right - small.width) // 2, (top + bottom - small.height) // 2))


def _ask(draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: str, face, spacing: int = 14) -> None:
    """The question, behind a bar of colour."""
    left, top = corner
    bottom = draw.multiline_textbbox((left, top), lines, face, spacing=spacing)[3]
    draw.rectangle((left, top + 6, left + 9, bottom), fill=ACCENT)
    draw.multiline_text((left + 36, top), lines, INK, face, spacing=spacing)


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
