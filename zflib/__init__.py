"""zflib: "Visualizing and Understanding Convolutional Networks" rebuilt from its parts."""

from __future__ import annotations

import platform

import torch

from . import data, deconv, models, peaks, train
from .deconv import Deconvnet
from .models import ZFNet, load, zfnet56
from .peaks import receptive_field

__version__ = "0.1.0"
__all__ = [
    "Deconvnet", "ZFNet", "data", "deconv", "device", "load", "models", "peaks", "receptive_field", "train",
    "versions", "zfnet56",
]  # fmt: skip


def device() -> torch.device:
    """The fastest device here: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def versions(on: torch.device | str = "cpu") -> str:
    """One line for a notebook's first cell: zflib, torch, Python and the device."""
    return f"zflib {__version__} · torch {torch.__version__} · Python {platform.python_version()} · device {on}"
