"""The networks of the course by name, and the files that keep trained ones: weights with a model card beside them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from .. import _files
from .zfnet import ALEXNET56, SCENES56, ZFNET56, Geometry, ZFNet

__all__ = [
    "alexnet56", "conv_part", "device", "half", "load", "load_file", "save", "scenes56", "shipped", "snapshots",
    "zfnet56",
]  # fmt: skip


def zfnet56(num_classes: int = 200, *, batch_norm: bool = False) -> ZFNet:
    """The paper's network at quarter scale: 56x56 crops, 64-192-256-256-192 channels, fc 1024."""
    return ZFNet(num_classes, geometry=ZFNET56, batch_norm=batch_norm)


def alexnet56(num_classes: int = 200, *, batch_norm: bool = False) -> ZFNet:
    """`zfnet56` with Krizhevsky's first layer (11x11, stride 4): the twin of Figure 6."""
    return ZFNet(num_classes, geometry=ALEXNET56, batch_norm=batch_norm)


def scenes56(num_classes: int = 10, *, batch_norm: bool = False) -> ZFNet:
    """`zfnet56` with a quarter to three eighths of the channels: trained live, on scenes, in seconds to minutes."""
    return ZFNet(num_classes, geometry=SCENES56, batch_norm=batch_norm)


def device() -> torch.device:
    """The fastest device here: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def shipped() -> list[str]:
    """Names that `load` knows: the networks in data/ with a model card beside their weights."""
    return [name for name in _cards() if "-epoch" not in name]


def _cards() -> list[str]:
    """The shipped networks and, as name-epochNNN, their snapshots."""
    return sorted(card.stem for card in _files.SHIPPED.glob("*.json") if card.with_suffix(".pt").exists())


def load(name: str) -> ZFNet:
    """A trained network by name, in evaluation mode, from data/; its model card is in `net.card`.

    The file's SHA-256 must be the card's and only tensors are read from it: loading never runs code.
    An unknown name, a damaged file or a file that is not tensors raises ValueError.
    """
    if name not in _cards():
        known = ", ".join(shipped()) or "none yet"
        raise ValueError(f"name {name!r} is not a network that zflib ships; it has {known}")
    return load_file(_files.SHIPPED / f"{name}.pt")


def load_file(path: str | Path) -> ZFNet:
    """As `load`, for weights of your own: `path` as `save` took it, with or without .pt, its card beside it."""
    path, beside = _pair(path)
    if not path.is_file() or not beside.is_file():
        raise FileNotFoundError(f"{path} and its card {beside.name} are needed; models.save writes both")
    net, sha256 = _from_card(beside)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{path.name} is damaged: SHA-256 {found}, its card says {sha256}; fetch it again")
    try:
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")  # tensors only, never code
        net.load_state_dict({key: value.float() for key, value in state.items()})
        _check_weights(net)
    except Exception as error:
        reason = str(error).removeprefix("Error(s) in loading state_dict for ZFNet:")
        if isinstance(error, pickle.UnpicklingError):  # whose text advises to run its code
            reason = "it is no file of plain tensors"
        reason = textwrap.shorten(reason, 200, placeholder=" …")
        raise ValueError(
            f"{path.name} does not hold the weights of its card ({reason}); only tensors are read, "
            "as models.save writes them"
        ) from error
    return net.eval()


def _pair(path: str | Path) -> tuple[Path, Path]:
    """The files of a network, weights and card; its name may hold dots and may end in .pt."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file's path, got {path!r}")
    path = Path(path)
    name = path.name.removesuffix(".pt")
    return path.with_name(f"{name}.pt"), path.with_name(f"{name}.json")


def _check_weights(net: ZFNet) -> None:
    """ValueError for weights that a network cannot work with, whatever their shapes."""
    bad = next((key for key, value in net.state_dict().items() if not bool(value.isfinite().all())), None)
    if bad:
        raise ValueError(f"{bad} holds NaN or infinite values")
    if net.scale.shape != () or not float(net.scale) > 0:
        raise ValueError(f"scale must be a positive number, got {net.scale.tolist()}")
    shape, least = tuple(net.mean.shape), net.geometry.resize
    if shape != (3, 1, 1) and (len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] or shape[1] < least):
        raise ValueError(f"mean must be (3,1,1), or an image of at least {least}x{least} pixels, got {shape}")


def _from_card(path: Path) -> tuple[ZFNet, str]:
    """The network that a model card describes, still untrained, and the SHA-256 of its weights."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        net = ZFNet(len(card["wnids"]), geometry=Geometry.from_dict(card["geometry"]))
        net.classes, net.wnids, net.card = card["classes"], card["wnids"], card
        if not all(isinstance(names, list) and len(names) == net.num_classes for names in (net.classes, net.wnids)):
            raise ValueError("classes and wnids must be two lists of equal length")
        return net, card["sha256"]
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} is not a model card: {type(error).__name__} {error}; models.save writes one"
        ) from error


def snapshots(name: str) -> dict[int, ZFNet]:
    """epoch -> the convolutional part of a shipped network after that epoch of its training, the last one included."""
    found = [card for card in _cards() if card.rpartition("-epoch")[0] == name]
    if not found:
        names = sorted({card.rpartition("-epoch")[0] for card in _cards() if "-epoch" in card})
        raise ValueError(f"name {name!r} has no snapshots here; {', '.join(names) or 'none'} has")
    last = load(name)
    nets = {int(card.rpartition("-epoch")[2]): load(card) for card in found}
    return dict(sorted(nets.items())) | {last.card["epochs"]: conv_part(last)}


def conv_part(net: ZFNet) -> ZFNet:
    """A copy of `net` that ends with its last pool."""
    part = ZFNet(0, geometry=replace(net.geometry, hidden=None))
    kept = part.state_dict().keys()
    part.load_state_dict({key: value for key, value in net.state_dict().items() if key in kept})
    part.card = net.card
    return part.eval()


def half(net: nn.Module) -> dict[str, torch.Tensor]:
    """The weights in half precision: as they are shipped."""
    return {key: value.half() for key, value in net.state_dict().items()}


def save(net: ZFNet, path: str | Path, card: dict) -> None:
    """Weights in half precision to `path`.pt, and to `path`.json the card with their SHA-256; both atomically.

    `path` may end in .pt. What could not be loaded again, or a card that is not JSON, is refused before anything is
    written: ValueError or TypeError.
    """
    (path, beside), buffer = _pair(path), io.BytesIO()
    _check_savable(net)
    weights = half(net)
    _check_finite(weights)
    _check_weights(net)
    torch.save(weights, buffer)
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    fixed = {"classes": net.classes, "wnids": net.wnids, "geometry": asdict(net.geometry), "sha256": sha256}
    try:
        text = json.dumps(card | fixed, indent=1) + "\n"
    except (TypeError, ValueError) as error:
        raise TypeError(f"card must be a dict of numbers, strings and lists, as JSON has them ({error})") from error
    _files.write_atomically(path, content)
    _files.write_atomically(beside, text.encode())


def _check_savable(net: ZFNet) -> None:
    if not isinstance(net, ZFNet):
        raise TypeError(f"net must be a zflib.ZFNet, got {type(net).__name__}")
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise ValueError("net has batch normalisations; fold it first: models.save(filters.fold(net), path, card)")
    if (len(net.classes), len(net.wnids)) != (net.num_classes,) * 2:
        given = f"{len(net.classes)} classes and {len(net.wnids)} wnids"
        raise ValueError(f"net: it has {given} for {net.num_classes} outputs; set net.classes and net.wnids")


def _check_finite(weights: dict[str, torch.Tensor]) -> None:
    lost = next((key for key, value in weights.items() if not bool(value.isfinite().all())), None)
    if lost:
        raise ValueError(f"net: {lost} holds values that half precision cannot, NaN or above 65504; train it again")
