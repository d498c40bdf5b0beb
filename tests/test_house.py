"""The rules of the house that a machine can check: eleven folders, imports that fall one way, docstrings, ruff."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "zflib"
FILES = sorted(HOUSE.rglob("*.py"))
FOLDERS = ["atlas", "check", "data", "deconv", "experiments", "explore", "models", "record", "show", "studies", "train"]

#: A room may import from those above it, never from its own floor or from those below.
FLOORS = (
    ["_arguments", "_files"], ["data"], ["models", "record"], ["deconv", "train"], ["experiments"], ["show"],
    ["studies"], ["atlas", "check", "explore"],
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room(path: Path) -> str:
    """The folder of a file, or the name of a file that lies in no folder."""
    return path.relative_to(HOUSE).with_suffix("").parts[0]


@cache
def imports(path: Path) -> list[tuple[str, str]]:
    """(place, dotted name) of everything that a file imports; relative imports are made absolute."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from ((where, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: len(package) + 1 - node.level]) if node.level else []
            base = ".".join(above + ([node.module] if node.module else []))
            yield from ((where, f"{base}.{alias.name}") for alias in node.names)


def falls(importer: str, name: str) -> bool:
    """Whether a room may import a dotted name."""
    package, _, rest = name.partition(".")
    imported = rest.split(".")[0]
    if package != "zflib" or imported == importer:
        return True
    if importer == "record" and rest.startswith("models.response_norm"):  # a kind of layer that the recorder must know
        return True
    return imported in FLOOR and FLOOR[imported] < FLOOR[importer]


def public(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """The functions and classes of a file that others may use."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def none(offences: list[str]) -> None:
    assert not offences, "\n".join(["", *offences])


def test_the_package_has_these_folders_and_no_loose_files():
    assert sorted(path.parent.name for path in HOUSE.glob("*/__init__.py")) == FOLDERS
    assert not list(HOUSE.glob("[!_]*.py"))


def test_imports_fall_one_way():
    named = [(path, where, name) for path in FILES if room(path) in FLOOR for where, name in imports(path)]
    none([f"{where} imports {name}" for path, where, name in named if not falls(room(path), name)])


@pytest.mark.parametrize("package, only", [("ipywidgets", "explore"), ("ipyevents", "explore"), ("matplotlib", "show")])
def test_only_its_room_imports(package, only):
    others = [path for path in FILES if room(path) != only]
    none([where for path in others for where, name in imports(path) if name.split(".")[0] == package])


def test_torch_fx_is_used_nowhere():
    """Its tracing patches every network of the process, those of other threads included."""
    named = [where for path in FILES for where, name in imports(path) if (name + ".").startswith("torch.fx.")]
    none(named + [str(path) for path in FILES if re.search(r"\btorch\.fx\.\w", path.read_text())])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_what_it_is_for_in_one_sentence(folder):
    tree = ast.parse((HOUSE / folder / "__init__.py").read_text())
    purpose = (ast.get_docstring(tree) or "").split("\n\n")[0]  # a list of its files may follow
    assert len(re.findall(r"[.!?](?=\s|$)", purpose)) == 1 and purpose.endswith("."), purpose
    names = [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    assert "__all__" in names or folder == "studies"


@pytest.mark.parametrize("folder", [HOUSE, *(HOUSE / name for name in FOLDERS)], ids=lambda folder: folder.name)
def test_no_function_has_the_name_of_a_module_beside_it(folder):
    """`from zflib.data import photos` would give the one or the other, whichever was imported last."""
    modules = {path.stem for path in folder.iterdir()}
    named = [(path, node.name) for path in sorted(folder.glob("*.py")) for node in public(path)]
    none([f"{path.relative_to(ROOT)}: {name}" for path, name in named if name in modules])


def test_public_functions_have_docstrings():
    named = [(path, node) for path in FILES for node in public(path) if node.name != "main"]
    none([f"{path.relative_to(ROOT)}: {n.name}" for path, n in named if not ast.get_docstring(n)])


def test_requirements_are_lower_bounds_and_agree_with_the_package():
    lines = [l for l in (ROOT / "requirements.txt").read_text().splitlines() if l and not l.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+>=[\d.]+", line) for line in lines), "on Colab nothing may be reinstalled"
    declared = re.findall(r'"([a-z0-9-]+>=[\d.]+)"', (ROOT / "pyproject.toml").read_text().split("[tool.")[0])
    assert set(declared) - {"setuptools>=69"} == set(lines)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda c: c[0])
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.nightly
def test_an_installed_package_brings_its_networks(tmp_path):
    """What `pip install .` copies is enough to load one, far from the checkout."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("zflib", "data"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(install, check=True)
    assert not list(target.rglob("make")) and list((target / "share" / "zflib").glob("*.pt"))
    code = "import zflib; print(zflib.__file__, *zflib.load('zfnet56').layer_names)"
    environment = dict(os.environ, PYTHONPATH=str(target))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(str(target)), done.stderr
    assert done.stdout.endswith(" fc8\n")
