"""torchvision's networks with their ImageNet weights, ready for every function of zflib."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import torch
from torch import nn

from .classifier import with_preprocessing

#: How these are built to fit their weights; the two auxiliary classifiers are for training only.
INCEPTION = {"transform_input": True, "aux_logits": False, "init_weights": False}
SETTINGS = {"googlenet": INCEPTION, "inception_v3": INCEPTION}
AUXILIARY = ("aux", "AuxLogits")


def pretrained(name: str) -> nn.Module:
    """torchvision's network `name` ("alexnet", "vgg16", "resnet18", "googlenet", …) with its default ImageNet weights.

    In evaluation mode, with preprocess, classes and the rest of `with_preprocessing`; its layers are module paths, see
    `zflib.layers`. The weights are downloaded once, into torch.hub.get_dir(); later calls need no connection. Their
    SHA-256 must begin as torchvision says and only tensors are read from them: loading never runs code.
    ConnectionError without a connection, ValueError for an unknown name or a damaged file.
    """
    from torchvision import models as torchvisions

    names = torchvisions.list_models(module=torchvisions)
    if name not in names:
        raise ValueError(f"name {name!r} is not a classifier of torchvision; it has {', '.join(names)}")
    weights = torchvisions.get_model_weights(name).DEFAULT
    state = {key: value for key, value in _tensors(name, weights.url).items() if not key.startswith(AUXILIARY)}
    net = torchvisions.get_model(name, weights=None, **SETTINGS.get(name, {}))
    net.load_state_dict(state)
    how = weights.transforms()
    return with_preprocessing(net.eval(), resize=how.resize_size[0], crop=how.crop_size[0], mean=how.mean, std=how.std,
                              classes=weights.meta["categories"])  # fmt: skip


def _tensors(name: str, url: str) -> dict[str, torch.Tensor]:
    """The weights by name, from the file in torch's cache, which is fetched if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        _download(name, url, path)
    content, begins = path.read_bytes(), path.stem.rpartition("-")[2]  # torchvision's names end in the sum's beginning
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(begins):
        raise ValueError(f"{path} is damaged: its SHA-256 is {found} and should begin with {begins}; remove it")
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors, and code is never run; remove it") from error


def _download(name: str, url: str, path: Path) -> None:
    """Whole or not at all: torch writes another file first and checks the sum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:  # URLError among them; RuntimeError: a wrong sum
        raise ConnectionError(
            f"the weights of {name} cannot be fetched from {url} ({error}); put that file at {path}, or use "
            'zflib.load("squeezenet"), an ImageNet network that needs no download'
        ) from error
