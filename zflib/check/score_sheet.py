"""What is solved, what was tried and what is open: kept in a small file beside the notebooks."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import _files
from .verdict import RIGHT, WRONG, Exercise, Verdict

FILE = "zflib-progress.json"
OPEN, TRIED, SOLVED = "open", "attempted", "solved"
_KNOWN = {WRONG: TRIED, RIGHT: SOLVED}


def keep(name: str, verdict: Verdict, folder: Path | None = None) -> None:
    """Note what a check said of exercise `name` in the file beside the notebook; what was solved stays solved.

    Only a notebook has such a file (`folder` None): elsewhere, and where it cannot be written, nothing happens.
    """
    if verdict.state not in _KNOWN or (folder is None and not _in_notebook()):
        return
    path = (folder or Path.cwd()) / FILE
    try:
        from filelock import FileLock  # two notebooks of one folder may be open

        with FileLock(path.with_name(f".{FILE}.lock"), timeout=5):
            known = read(path)
            if known.get(name) != SOLVED:
                text = json.dumps(known | {name: _KNOWN[verdict.state]}, indent=1, sort_keys=True)
                _files.write_atomically(path, (text + "\n").encode())
    except OSError:  # a folder that is not ours to write to, or a lock that is not given back
        pass


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def read(path: Path) -> dict[str, str]:
    """Exercise -> "attempted" or "solved", of a file that `keep` wrote; {} of one that is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: state for name, state in found.items() if state in (TRIED, SOLVED)} if isinstance(found, dict) else {}


def chapters() -> dict[str, list[str]]:
    """Chapter, like "05" -> the names of its exercises; the first line of a file in this folder says its number."""
    from .. import check

    found: dict[str, list[str]] = {}
    for name, module in _exercises(check):
        found.setdefault(module.__doc__.partition("notebook ")[2][:2], []).append(name)
    return dict(sorted(found.items()))


def _exercises(check) -> Iterator[tuple[str, object]]:
    """The exercises that notebooks call, and the modules that they come from."""
    for module in vars(check).copy().values():
        if getattr(module, "__package__", None) == __package__ and "notebook " in (module.__doc__ or ""):
            for name, value in vars(module).items():
                if isinstance(value, Exercise) or getattr(value, "is_exercise", False):
                    yield name, module


def progress(folder: str | Path = ".") -> None:
    """Print which exercises are solved, attempted or open, by notebook; `folder` is that of the notebooks."""
    known = read(Path(folder) / FILE)
    if not known:
        print("No exercise was attempted yet: run a notebook's check cells.")
        return
    for chapter, names in chapters().items():
        states = {state: [name for name in names if known.get(name, OPEN) == state] for state in (SOLVED, TRIED, OPEN)}
        parts = [f"{state}: {', '.join(some)}" for state, some in states.items() if some]
        print(f"{chapter}  {len(states[SOLVED])} of {len(names)}   {'; '.join(parts)}")


def report(folder: str | Path) -> None:
    """Print one table of many students: a row for every progress file below `folder`, a column for every notebook.

    A student is called after the folder that the file lies in. ValueError if there is no such file.
    """
    root = Path(folder).expanduser()
    files = sorted(root.rglob(FILE))
    if not files:
        raise ValueError(f"folder: there is no {FILE} below {root}; collect each student's in a folder of its own")
    columns = chapters()
    rows = [(file.parent.relative_to(root).as_posix(), read(file)) for file in files]
    width = max(len("student"), *(len(student) for student, _ in rows))
    print("student".ljust(width), *columns, " all", sep="  ")
    for student, known in rows:
        solved = [sum(known.get(name) == SOLVED for name in names) for names in columns.values()]
        cells = [f"{count or '.':>2}" for count in solved]
        print(student.ljust(width), *cells, f"{sum(solved):>4}", sep="  ")
    print("of".ljust(width), *(f"{len(names):>2}" for names in columns.values()), sep="  ")
