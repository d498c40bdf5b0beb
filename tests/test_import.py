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

def used():  # seconds of CPU of this process so far
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

class Spy:  # asked first for every module that is imported
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
        if name == "zflib.data":  # the first import after torch
            print(used())

sys.meta_path.insert(0, Spy())
import zflib
print(used(), *sorted(set(sys.modules) & set(sys.argv[1:])))
"""


def imported(**environment: str) -> tuple[str, float, float, list[str]]:
    """OMP_WAIT_POLICY when torch is imported, CPU seconds up to torch and in all, heavy packages that came along."""
    kept = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", SCRIPT, *HEAVY, "matplotlib", "ipywidgets"]
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=True)
    policy, torch, ours, *heavy = done.stdout.split()
    return policy, float(torch), float(ours), heavy


def test_heavy_packages_are_imported_where_they_are_used():
    for path in (ROOT / "zflib").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & HEAVY, f"{path}: import it inside the function"


def test_threads_wait_passively_unless_you_say_otherwise():
    assert imported()[0] == "PASSIVE"
    assert imported(OMP_WAIT_POLICY="ACTIVE")[0] == "ACTIVE", "your own setting wins"


@pytest.mark.nightly
def test_import_costs_little_more_than_torch():
    runs = [imported() for _ in range(3)]  # torch and zflib in one process: a busy machine slows both
    assert all(heavy == [] for *_, heavy in runs)
    ratio = min(ours / torch for _, torch, ours, _ in runs)
    assert ratio <= 1.15, f"import zflib takes {ratio:.2f} times the CPU of import torch"
