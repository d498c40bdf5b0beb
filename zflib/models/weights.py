"""The networks of the course by name, and the files that keep trained ones: weights with a model card beside them."""

import hashlib
import io
import json
import pickle
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from .. import _files
from .classifier import ImageClassifier
from .squeezenet import load_squeezenet
from .zfnet import Geometry, ZFNet


def device() -> torch.device:
    """The fastest device here: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def shipped() -> list[str]:
    """Names that `load` knows: the networks in data/ with a model card beside their weights, and "squeezenet"."""
    return sorted([*(name for name in _cards() if "-epoch" not in name), "squeezenet"])


def _cards() -> list[str]:
    """The shipped networks and, as name-epochNNN, their snapshots."""
    return sorted(card.stem for card in _files.SHIPPED.glob("*.json") if card.with_suffix(".pt").exists())


def load(name: str) -> ImageClassifier:
    """A trained network by name, in evaluation mode, from data/; its model card is in `net.card`.

    "squeezenet" was trained on ImageNet, its weights come inside the package `ndf`; FileNotFoundError without it.
    The file's SHA-256 must be the card's and only tensors are read from it: loading never runs code.
    An unknown name, a damaged file or a file that is not tensors raises ValueError.
    """
    if name == "squeezenet":
        return load_squeezenet()
    if name not in _cards():
        raise ValueError(f"name {name!r} is not a network that zflib ships; it has {', '.join(shipped())}")
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
        net.load_state_dict(_real_numbers(state))
        _check_finite(net.state_dict())
        _check_units(net.state_dict(), net.geometry.resize)
    except Exception as error:
        reason = str(error).removeprefix("Error(s) in loading state_dict for ZFNet:")
        if isinstance(error, pickle.UnpicklingError):  # whose text advises to run its code
            reason = "only tensors are read, never code"
        reason = textwrap.shorten(reason, 200, placeholder=" …")
        raise ValueError(
            f"{path.name} does not hold the weights of its card ({reason}); give a file that models.save wrote"
        ) from error
    return net.eval()


def _real_numbers(state) -> dict[str, torch.Tensor]:
    """The tensors by name, in single precision; ValueError that names what is none, or holds no real numbers."""
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, not tensors by name")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not isinstance(name, str):
            got = value.dtype if isinstance(value, torch.Tensor) else f"a value of type {type(value).__name__}"
            raise ValueError(f"{name!r} is {got}, not a tensor of real numbers")
    return {name: value.float() for name, value in state.items()}


def _check_units(weights: dict[str, torch.Tensor], side: int) -> None:
    """ValueError for a mean or a scale in which no image, resized to `side`, can be prepared."""
    mean, scale = weights["mean"], float(weights["scale"])
    if mean.shape not in ((3, 1, 1), (3, side, side)):
        wanted = f"(3,1,1), one value for each colour, or (3,{side},{side}), an image"
        raise ValueError(f"'mean' has shape {tuple(mean.shape)}, it must be {wanted}")
    if not scale > 0:
        raise ValueError(f"'scale' is {scale:g}, it must be above 0: pixels are divided by it")


def _pair(path: str | Path) -> tuple[Path, Path]:
    """The files of a network, weights and card; its name may hold dots and may end in .pt."""
    name = Path(path).name.removesuffix(".pt")
    return Path(path).with_name(f"{name}.pt"), Path(path).with_name(f"{name}.json")


def _from_card(path: Path) -> tuple[ZFNet, str]:
    """The network that a model card describes, still untrained, and the SHA-256 of its weights."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        with torch.device("cpu"):  # wherever torch makes tensors by default, and in whatever precision
            net = ZFNet(len(card["wnids"]), geometry=Geometry.from_dict(card["geometry"])).float()
        net.classes, net.wnids, net.card = card["classes"], card["wnids"], card
        if not len(net.classes) == len(net.wnids) == net.num_classes:
            raise ValueError("it must name as many classes as wnids")
        return net, card["sha256"]
    except Exception as error:
        what = f"{type(error).__name__} {error}"
        raise ValueError(f"{path.name} is not a model card: {what}; give one that models.save wrote") from error


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

    `path` may end in .pt. A network that could not be loaded again is a ValueError before anything is written.
    """
    (path, beside), buffer = _pair(path), io.BytesIO()
    _check_savable(net)
    torch.save(half(net), buffer)
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    fixed = {"classes": net.classes, "wnids": net.wnids, "geometry": asdict(net.geometry), "sha256": sha256}
    text = json.dumps(card | fixed, indent=1) + "\n"
    _files.write_atomically(path, content)
    _files.write_atomically(beside, text.encode())


def _check_savable(net: ZFNet) -> None:
    if not isinstance(net, ZFNet):
        raise TypeError(f"net must be a zflib.ZFNet, got {type(net).__name__}")
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise ValueError("net has batch normalisations; fold it first: models.save(filters.fold(net), path, card)")
    if not len(net.classes) == len(net.wnids) == net.num_classes:
        given = f"{len(net.classes)} classes and {len(net.wnids)} wnids"
        raise ValueError(f"net has {given} for {net.num_classes} outputs; set net.classes and net.wnids")
    _check_finite(half(net))
    _check_units(half(net), net.geometry.resize)


def _check_finite(weights: dict[str, torch.Tensor]) -> None:
    bad = next((key for key, value in weights.items() if not bool(value.isfinite().all())), None)
    if bad:
        raise ValueError(f"{bad} holds NaN, or values that half precision cannot hold (above 65504)")
