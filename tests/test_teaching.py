"""The teacher's page: what it points at exists, its minutes add up, and they are enough for what they hold."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402
import teaching  # noqa: E402

from zflib import check  # noqa: E402

TEXT = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
LINK_OR_HEADING = re.compile(r"\[[^\]]+\]\((notebooks/[^)]+)\)|“([^”]+)”")
PLANS = {"90 minutes": 90, "Half a day: 240 minutes": 240}


def part(title: str) -> str:
    """What stands under a heading of the page."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]


def rows(title: str) -> list[list[str]]:
    """The cells of the rows of the table under a heading."""
    lines = [line for line in part(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def pointed_at(text: str) -> list[tuple[str, str]]:
    """The (notebook, heading) pairs of a line: a heading belongs to the notebook that was named last."""
    found, notebook = [], None
    for place, heading in LINK_OR_HEADING.findall(text):
        notebook = place or notebook
        found += [(notebook, heading)] if heading else []
    return found


def without_minutes(heading: str) -> str:
    return re.sub(r" \(\d+ minutes\)$", "", heading).replace("`", "")


def sections(notebook: str) -> dict[str, dict]:
    """Heading -> words, figures and predictions up to the next heading, and the minutes of its exercise."""
    current = {"words": 0, "figures": 0, "predictions": 1, "exercise": 0}  # the opening asks one question
    found = {"the opening picture": current}
    for cell in nbformat.read(ROOT / notebook, 4).cells:
        if {"zf-setup", "zf-top", "zf-bottom"} & set(cell.metadata.get("tags", [])):
            continue
        if cell.cell_type == "code":
            pictures = sum(any("image/" in kind for kind in output.get("data", {})) for output in cell.outputs)
            current["figures"] += pictures * (2 if "explore." in cell.source else 1)  # what moves takes twice as long
            continue
        for line in re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL).splitlines():
            if re.match("##+ ", line):
                minutes = re.search(r"\((\d+) minutes\)", line)
                current = {"words": 0, "figures": 0, "predictions": 0, "exercise": int(minutes[1]) if minutes else 0}
                found[without_minutes(line.lstrip("# "))] = current
            elif not line.startswith("# "):
                current["words"] += len(line.split())
                current["predictions"] += line.count("*Predict")
    return found


def needed(line: str, seen: list[str]) -> float:
    """The minutes that a row of a plan needs; `seen` are the notebooks of the rows before, and grows."""
    minutes = 0.0
    places = [place for place, heading in LINK_OR_HEADING.findall(line) if place]
    named = pointed_at(line) + [(place, "the opening picture") for place in places if "the opening picture" in line]
    for notebook, heading in named:
        section = sections(notebook)[heading]
        minutes += section["words"] / 130 + section["figures"] + 2 * section["predictions"]
        minutes += 0 if "not the exercise" in line else section["exercise"]
    for place in places:
        minutes += 0 if place in seen else nbformat.read(ROOT / place, 4).metadata.zflib.seconds / 60
        minutes += 0.5 if seen[-1:] != [place] else 0  # to find it among the tabs
        seen.append(place)
    return minutes


def test_links_resolve():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_quoted_heading_is_in_the_notebook_that_is_named_before_it():
    pairs = [pair for line in re.split(r"\n(?=\||\n)", TEXT) for pair in pointed_at(line)]
    assert len(pairs) > 60
    for notebook, heading in pairs:
        if notebook is None:  # prose about the page itself
            assert any(heading in sections(name) for name, _ in pairs if name) or heading == "quotation marks", heading
        else:
            assert heading in sections(notebook), f"{notebook} has no heading {heading!r}"


@pytest.mark.parametrize("title", PLANS)
def test_the_minutes_of_a_plan_add_up(title):
    assert sum(int(row[0]) for row in rows(title)) == PLANS[title]


@pytest.mark.parametrize("title", PLANS)
def test_each_step_of_a_plan_has_the_minutes_that_it_needs(title):
    seen = []
    for minutes, what, *_ in rows(title):
        assert needed(what, seen) <= int(minutes), f"{what}: {minutes}"


def test_a_semester_has_ninety_minutes_a_week_and_enough_for_each_notebook():
    weeks = rows("A semester")
    assert [int(row[0]) for row in weeks] == list(range(1, 16))
    for _, what, minutes, *_ in weeks:
        before, notebook, talk = map(int, minutes.split(" + "))
        assert before + notebook + talk == 90
        (place,) = re.findall(r"\((notebooks/[^)]+)\)", what)
        assert nbformat.read(ROOT / place, 4).metadata.zflib.reading <= notebook, what


def test_the_page_is_the_first_link_of_the_readme():
    assert re.search(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))[1] == "TEACHING.md"


def test_every_exercise_that_a_notebook_checks_has_a_row_with_its_minutes_and_mistakes():
    for path in build.paths():
        for title, minutes, name in teaching.exercises(path):
            assert re.search(
                rf"\({re.escape(str(path.relative_to(ROOT)))}\) \| {re.escape(title)} \| `{name}` \|", TEXT
            )
            assert minutes or path not in build.chapters(), f"{path.name}: {title} says no minutes"
            assert all(teaching.mistakes(name))


def test_the_table_names_mistakes_and_keeps_the_way_out_to_the_check():
    """No second half of any sentence, nothing of a guess, and of each exercise all that has a name."""
    table = TEXT[TEXT.index("<!-- exercises -->") :]
    assert teaching.mistakes("unpool")[0] == "the values are at the top-left of each window"
    assert "use the switches" not in table and "keep its strongest activation alone" not in table
    assert not any(sentence in table for sentence in check.which_rule.mistakes)
    assert len(teaching.mistakes("unpool")) == len(check.unpool.mistakes)
