"""The slides: one for each chapter, of one size, with a picture that keeps its proportions."""

import base64
import io
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402
import heroes  # noqa: E402

CHAPTERS = build.chapters()


def stored(path: Path) -> bytes:
    """The first picture of a notebook, as it is stored."""
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            for kind, content in output.get("data", {}).items():
                if kind.startswith("image/"):
                    return base64.b64decode(content)
    raise AssertionError(path)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_has_a_slide_with_its_number_title_and_one_question(path):
    number, title, question = heroes.words(path)
    assert f"{number} · {title}" == build.title(path)
    assert question.endswith("?") and question.count("?") == 1
    assert heroes.slide(path).size == (1920, 1080)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_hero_is_the_first_stored_picture(path):
    picture = Image.open(io.BytesIO(stored(path)))
    shown = np.asarray(heroes.hero(path)).astype(int)
    assert shown.shape[1::-1] == picture.size
    assert shown.std() > 20, "a picture, not an empty frame"
    if path.stem[:2] in heroes.FRAMES:
        first = np.asarray(picture.convert("RGB")).astype(int)
        assert (np.abs(shown - first) > 50).any(), "another frame says more than the first"


@pytest.mark.parametrize("width, height", [(2000, 526), (2000, 1030), (1500, 1000), (1000, 1000), (400, 1000)])
@pytest.mark.parametrize("question", ["Why?", "How far can a very long question go before it needs a second line?"])
def test_a_picture_is_large_not_squeezed_and_not_covered(monkeypatch, width, height, question):
    monkeypatch.setattr(heroes, "hero", lambda path: Image.new("RGB", (width, height), (0, 0, 255)))
    monkeypatch.setattr(heroes, "words", lambda path: ("07", "Unpooling with switches and more", question))
    page = np.asarray(heroes.slide(Path("any")))
    blue = (page == (0, 0, 255)).all(axis=2)
    rows, columns = blue.any(axis=1).nonzero()[0], blue.any(axis=0).nonzero()[0]
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert wide / high == pytest.approx(width / height, rel=0.01)
    assert blue.sum() == high * wide, "no word on the picture"
    assert rows[0] > 30 and rows[-1] < 1050 and columns[0] > 30 and columns[-1] < 1890
    assert wide > 1700 or high > 650
    monkeypatch.setattr(heroes, "_paste", lambda *anything: None)
    words = np.asarray(heroes.slide(Path("any")))  # the same slide without its picture
    inked = (words < 200).any(axis=2)
    assert inked.sum() > 2000 and (page[inked] == words[inked]).all(), "no word behind the picture"
    border = np.concatenate([page[:20], page[-20:]], axis=1), np.concatenate([page[:, :20], page[:, -20:]], axis=0)
    assert all((edge == 255).all() for edge in border), "no word leaves the page"


def test_a_slide_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = CHAPTERS[0]
    (target,) = heroes.write(tmp_path / "slides", [path])
    assert target.name == f"{path.stem}.png" and Image.open(target).size == (1920, 1080)
    before = target.read_bytes()

    def half(self, part, kind):
        Path(part).write_bytes(b"half of it")
        raise OSError("the disk is full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="full"):
        heroes.write(tmp_path / "slides", [path])
    assert target.read_bytes() == before


def test_the_command_writes_one_slide_for_each_chapter_and_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "chapters", lambda: CHAPTERS[:2])
    monkeypatch.setattr(sys, "argv", ["build.py", "--heroes", str(tmp_path)])
    assert build.main() == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{path.stem}.png" for path in CHAPTERS[:2]]
    assert "2 slides" in capsys.readouterr().out
