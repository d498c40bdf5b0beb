"""The table of exercises on the teacher's page: from the notebooks' headings and the mistakes that each check names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CALL = re.compile(r"^check\.(\w+)\(", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def exercises(path: Path) -> list[tuple[str, str, str]]:
    """Of a notebook: each exercise's title, its minutes ("" if none are given), and the name of its check."""
    found, title, minutes = [], "", ""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown" and HEADING.search(cell.source):
            heading = HEADING.findall(cell.source)[-1]
            title, _, rest = heading.removeprefix("Exercise").partition(" (")
            title = re.sub(r"^[\d ]*· ", "", title).strip()
            minutes = rest.removesuffix(" minutes)") if rest.endswith(" minutes)") else ""
        elif cell.cell_type == "code":
            found += [(title, minutes, name) for name in CALL.findall(cell.source)]
    return found


def mistakes(name: str) -> list[str]:
    """What goes wrong in an exercise, as its check says it, without the second half of the sentence: the way out."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from zflib import check

    exercise = getattr(check, name)
    if not hasattr(exercise, "mistakes"):  # any answer is scored, so no mistake has a name
        return [(exercise.__doc__ or "").split("\n")[0].rstrip(".")]
    if exercise.guess:
        return ["what a check says of a guess is not printed here"]
    # the three rules at a ReLU share their mistakes
    told = (re.sub(r"^(deconvnet|gradient|guided): ", "", sentence) for sentence in exercise.mistakes)
    halves = (re.split(r";|: ", sentence)[0] for sentence in told)
    return list(dict.fromkeys(half for half in halves if not re.fullmatch(r"\d mistakes", half)))


def table(paths: list[Path]) -> str:
    """A row for each exercise of the notebooks, in reading order."""
    rows = ["| notebook | exercise | check | minutes | what goes wrong |", "|---|---|---|---|---|"]
    for path in paths:
        place, shown = path.relative_to(ROOT).as_posix(), path.stem[:2] if path.stem[:2].isdigit() else path.stem
        deeper = "deeper/" if path.parent.name == "deeper" else ""
        for title, minutes, name in exercises(path):
            wrong = " · ".join(mistakes(name)).replace("|", "\\|")
            rows.append(f"| [{deeper}{shown}]({place}) | {title} | `{name}` | {minutes} | {wrong} |")
    return "\n".join(rows)


def page(paths: list[Path]) -> str:
    """The teacher's page with its table of exercises."""
    text = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
    new = f"<!-- exercises -->\n{table(paths)}\n<!-- end of exercises -->"
    return re.sub(r"<!-- exercises -->.*?<!-- end of exercises -->", lambda _: new, text, flags=re.DOTALL)
