"""zflib: "Visualizing and Understanding Convolutional Networks" rebuilt from its parts."""

from __future__ import annotations

import importlib
import platform

import torch

from . import data, deconv, firing, masks, models, peaks, scenes, transforms
from .correspondence import Comparison, Correspondence, correspondence
from .deconv import Deconvnet
from .invariance import Invariance, invariance
from .models import ZFNet, alexnet56, device, load, scenes56, zfnet56
from .occlusion import OcclusionMaps, occlude
from .peaks import find_peaks, receptive_field

__version__ = "0.1.0"
__all__ = [
    "Comparison", "Correspondence", "Deconvnet", "Invariance", "OcclusionMaps", "ZFNet", "alexnet56", "correspondence",
    "data", "deconv", "device", "dogs", "evolution", "find_peaks", "firing", "invariance", "load", "masks", "models",
    "occlude", "peaks", "receptive_field", "scenes", "scenes56", "train", "transforms", "versions", "zfnet56",
]  # fmt: skip


def versions(on: torch.device | str = "cpu") -> str:
    """One line for a notebook's first cell: zflib, torch, Python and the device."""
    return f"zflib {__version__} · torch {torch.__version__} · Python {platform.python_version()} · device {on}"


def __getattr__(name: str):
    if name in ("dogs", "evolution", "train"):  # on first use: `python -m zflib.train` must not find it imported yet
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
