"""`import zflib` costs little more than `import torch`, and asks waiting threads to sleep."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torchvision", "scipy", "skimage", "sklearn"}  # each brings a second or more along

SCRIPT = """
import os, resource, sys

class Spy:  # asked first for every module that is imported
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))

sys.meta_path.insert(0, Spy())
import {package}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, *sorted(set(sys.modules) & set(sys.argv[1:])))
"""


def imported(package: str, **environment: str) -> tuple[str, float, list[str]]:
    """OMP_WAIT_POLICY when `package` imports torch, the CPU seconds that all takes, heavy packages that came along."""
    kept = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", SCRIPT.format(package=package), *HEAVY, "matplotlib", "ipywidgets"]
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=True)
    policy, seconds, *heavy = done.stdout.split()
    return policy, float(seconds), heavy


def test_heavy_packages_are_imported_where_they_are_used():
    for path in (ROOT / "zflib").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & HEAVY, f"{path}: import it inside the function"


@pytest.mark.nightly
def test_import_is_cheap_and_threads_wait_passively():
    runs = [(imported("torch"), imported("zflib"), imported("zflib", OMP_WAIT_POLICY="ACTIVE")) for _ in range(3)]
    for torch, ours, active in runs:
        assert (torch[0], ours[0], active[0]) == ("None", "PASSIVE", "ACTIVE"), "your own setting wins"
        assert ours[2] == []
    torch, ours = (min(run[i][1] for run in runs) for i in (0, 1))
    assert ours <= 1.15 * torch, f"import zflib takes {ours:.2f} s of CPU, import torch {torch:.2f} s"
