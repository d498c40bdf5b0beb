"""For all tests: two processes share the cores well only if threads that wait sleep, and if each uses its share."""

import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # kernels of notebooks inherit it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib
import matplotlib.pyplot as plt
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _no_figure_left():
    before = set(plt.get_fignums())  # of a wider fixture
    yield
    for number in set(plt.get_fignums()) - before:
        plt.close(number)


@pytest.hookimpl(tryfirst=True)  # before what is nightly is left out
def pytest_collection_modifyitems(items):
    """Notebooks that a class can skip, or that take long, run at night, and so does what needs the whole website."""
    slow = {path for path in {item.path for item in items} if path.suffix == ".ipynb" and _is_slow(path)}
    for item in items:
        if item.path in slow or "site" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.nightly)


def _is_slow(notebook) -> bool:
    seconds = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["zflib"]["seconds"]
    return notebook.parent.name == "deeper" or seconds > 40
