"""The house rules that a machine can check: ruff, imports that point one way, docstrings, lower bounds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = sorted((ROOT / "zflib").rglob("*.py"))


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda c: c[0])
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package, room", [("ipywidgets", "explore"), ("matplotlib", "show.py")])
def test_only_its_room_imports(package, room):
    assert {path.relative_to(ROOT / "zflib").parts[0] for path in ROOMS if package in imported(path)} == {room}


ORDER = (
    ["data", "scenes"],
    ["models"],
    ["deconv"],
    ["peaks", "occlusion", "invariance", "correspondence"],
    ["show"],
    ["explore"],
)


def neighbours(room: str) -> set[str]:
    """The rooms that a room, or a folder of rooms, imports from."""
    path, found = ROOT / "zflib" / room, set()
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        inside = len(file.relative_to(ROOT / "zflib").parts) - 1
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1 + inside:
                found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def reached(room: str) -> set[str]:
    """The rooms that a room needs, and what they need, and so on."""
    found, ahead = set(), [room]
    while ahead:
        new = neighbours(ahead.pop()) - found
        found |= new
        ahead += new
    return found


def test_what_a_room_needs_is_found():
    assert {"models", "files", "show"} <= reached("explore") and {"tape", "norm"} <= reached("deconv")


@pytest.mark.parametrize("level", range(len(ORDER)), ids=lambda level: "-".join(ORDER[level]))
def test_imports_point_one_way(level):
    later = {room for rooms in ORDER[level + 1 :] for room in rooms}
    for room in ORDER[level]:
        assert not reached(room) & later, room


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(ROOT / "zflib")))
def test_public_functions_have_docstrings(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.col_offset == 0:
            assert ast.get_docstring(node) or node.name == "main", f"{path.name}: {node.name}"


def test_requirements_are_lower_bounds_and_agree_with_the_package():
    lines = [l for l in (ROOT / "requirements.txt").read_text().splitlines() if l and not l.startswith("#")]
    assert all(re.fullmatch(r"[a-z-]+>=[\d.]+", line) for line in lines), "on Colab nothing may be reinstalled"
    declared = re.findall(r'"([a-z-]+>=[\d.]+)"', (ROOT / "pyproject.toml").read_text().split("[tool.")[0])
    assert set(declared) - {"setuptools>=69"} <= set(lines)
