"""The setup cell in the places where learners run it, Colab included, and run twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402

TWICE = "code = open(sys.argv[1]).read()\nexec(code, {**globals()})\nexec(code, globals())\n"
COLAB = "import types\nfor n in ('google', 'google.colab'):\n    sys.modules[n] = types.ModuleType(n)\n"


def run(tmp_path: Path, script: str, *, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `script` with the setup cell's path as its argument, in `folder`, with nothing of ours on the path."""
    (tmp_path / "cell.py").write_text(build.SETUP)
    (tmp_path / "script.py").write_text("import sys\n" + script)
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "JPY_SESSION_NAME")}
    return subprocess.run(
        [sys.executable, "-P", str(tmp_path / "script.py"), str(tmp_path / "cell.py")],
        cwd=folder, env=kept | {"MPLBACKEND": "Agg"} | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("folder", ["notebooks", ".", "tests/bench"])
def test_finds_the_project_from_any_folder_inside_it(tmp_path, folder):
    done = run(tmp_path, TWICE, folder=ROOT / folder)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith("zflib ") and "torch" in first and "device" in first


def test_survives_a_moved_working_directory(tmp_path):
    moved = "import os\ncode = open(sys.argv[1]).read()\nexec(code, globals())\nos.chdir('/')\nexec(code, globals())\n"
    done = run(tmp_path, moved, folder=ROOT / "notebooks")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("hint", ["JPY_SESSION_NAME", "__vsc_ipynb_file__"])
def test_asks_jupyter_and_vs_code_where_the_notebook_lies(tmp_path, hint):
    here = str(ROOT / "notebooks" / "00_start_here.ipynb")
    script = f"{hint} = {here!r}\n" + TWICE if hint.startswith("__") else TWICE
    done = run(tmp_path, script, folder=tmp_path, **({} if hint.startswith("__") else {hint: here}))
    assert done.returncode == 0, done.stderr


def test_on_colab_fetches_the_project_once_and_installs_nothing(tmp_path):
    spy = "import subprocess\ncalls, real = [], subprocess.run\n"
    spy += "subprocess.run = lambda a, **k: (calls.append(a[0]), real(a, **k))[1]\n"
    content = tmp_path / "content"
    content.mkdir()
    origin = tmp_path / "origin"
    shutil.copytree(ROOT / "zflib", origin / "zflib", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "-q", str(origin)], check=True)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]
    subprocess.run(["git", "-C", str(origin), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(origin), *commit], check=True)
    script = COLAB + spy + TWICE + "print(calls)\nprint(zflib.__file__)\n"
    done = run(tmp_path, script, folder=content, ZFLIB_REPOSITORY=origin.as_uri())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == "['git']"
    assert Path(done.stdout.splitlines()[-1]).is_relative_to(content)


def test_elsewhere_says_what_to_do(tmp_path):
    done = run(tmp_path, "exec(open(sys.argv[1]).read())\n", folder=tmp_path)
    assert done.returncode != 0
    assert "open this notebook inside the project's folder" in done.stderr
