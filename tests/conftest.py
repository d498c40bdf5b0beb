"""For all tests: two processes share the cores well only if threads that wait sleep, and if each uses its share."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # kernels of notebooks inherit it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib
import pytest

matplotlib.use("Agg")


@pytest.hookimpl(tryfirst=True)  # before what is nightly is left out
def pytest_collection_modifyitems(items):
    """What a class can skip runs at night, and so does what needs all pages of the website."""
    for item in items:
        if item.path.parent.name == "deeper" or "site" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.nightly)
