"""The networks of the course: the paper's ZFNet, its quarter-scale `zfnet56`, and `load`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from . import data, files
from .norm import ResponseNorm


@dataclass(frozen=True)
class Conv:
    """One convolutional layer: conv -> ReLU -> (3x3/2 max pool) -> (response normalisation)."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: bool = False
    norm: bool = False


@dataclass(frozen=True)
class Geometry:
    """Everything that fixes the shapes of a network; `resize` and `crop` are in pixels."""

    resize: int
    crop: int
    convs: tuple[Conv, ...]
    hidden: tuple[int, ...] | None = (4096, 4096)  # None: the convolutional part alone
    dropout: float = 0.5

    @staticmethod
    def from_dict(values: dict) -> Geometry:
        convs = tuple(Conv(**conv) for conv in values["convs"])
        hidden = values["hidden"]
        return Geometry(**values | {"convs": convs, "hidden": None if hidden is None else tuple(hidden)})


#: Figure 3 of the paper: maps of side 110/55/26/13/13/13/13/6 from a 224x224 image.
ZFNET = Geometry(256, 224, (
    Conv(96, 7, stride=2, padding=1, pool=True, norm=True),
    Conv(256, 5, stride=2, pool=True, norm=True),
    Conv(384, 3, padding=1),
    Conv(384, 3, padding=1),
    Conv(256, 3, padding=1, pool=True),
))  # fmt: skip

#: The same network for 56x56 crops of 64x64 images (a quarter of 224 and 256): 28/14/14/7/7/7/7/3.
ZFNET56 = Geometry(64, 56, (
    Conv(64, 7, stride=2, padding=3, pool=True, norm=True),
    Conv(192, 5, padding=2, pool=True, norm=True),
    Conv(256, 3, padding=1),
    Conv(256, 3, padding=1),
    Conv(192, 3, padding=1, pool=True),
), hidden=(1024, 1024))  # fmt: skip


#: The same with Krizhevsky's first layer, 11x11 at stride 4; conv2 then needs no pool: 14/7/7/7/7/7/3.
ALEXNET56 = replace(ZFNET56, convs=(
    Conv(64, 11, stride=4, padding=4, pool=True, norm=True),
    replace(ZFNET56.convs[1], pool=False),
    *ZFNET56.convs[2:],
))  # fmt: skip


#: `zfnet56` thinned until two cores train it while you watch: 24-48-64-64-48 channels, fc 128.
SCENES56 = replace(ZFNET56, hidden=(128, 128), convs=tuple(
    replace(conv, channels=channels) for conv, channels in zip(ZFNET56.convs, (24, 48, 64, 64, 48))
))  # fmt: skip


class ZFNet(nn.Module):
    """The network of section 3 and Figure 3: five convolutional layers, three fully connected ones.

    Takes (N,3,S,S) images from `preprocess` and returns (N,num_classes) scores before the softmax.
    `batch_norm=True` adds a batch normalisation after each convolution for training; `fold` removes it.
    """

    def __init__(self, num_classes: int = 1000, *, geometry: Geometry = ZFNET, batch_norm: bool = False):
        super().__init__()
        self.geometry, self.num_classes = geometry, num_classes
        self.classes: list[str] = []
        self.wnids: list[str] = []
        self.card: dict = {}
        self.register_buffer("mean", torch.tensor([122.5, 114.5, 101.5]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(1.0))
        self.layer_names: list[str] = []
        self._add_convs(batch_norm)
        if geometry.hidden is not None:
            self._add_hidden(num_classes)

    def _add_convs(self, batch_norm: bool) -> None:
        incoming = 3
        for i, conv in enumerate(self.geometry.convs, start=1):
            bias = not batch_norm  # batch normalisation brings its own
            self._add(f"conv{i}", nn.Conv2d(incoming, conv.channels, conv.kernel, conv.stride, conv.padding, bias=bias))
            if batch_norm:
                self.add_module(f"bn{i}", nn.BatchNorm2d(conv.channels))
            self.add_module(f"relu{i}", nn.ReLU())
            if conv.pool:
                self._add(f"pool{i}", nn.MaxPool2d(3, 2, ceil_mode=True))
            if conv.norm:
                self._add(f"norm{i}", ResponseNorm())
            incoming = conv.channels

    def _add_hidden(self, num_classes: int) -> None:
        self.add_module("flatten", nn.Flatten())
        first = len(self.geometry.convs) + 1
        incoming = self.geometry.convs[-1].channels * self.map_sizes()[-1] ** 2
        for i, width in enumerate((*self.geometry.hidden, num_classes), start=first):
            self._add(f"fc{i}", nn.Linear(incoming, width))
            if i < first + len(self.geometry.hidden):
                self.add_module(f"relu{i}", nn.ReLU())
                self.add_module(f"drop{i}", nn.Dropout(self.geometry.dropout))
            incoming = width

    def _add(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.layer_names.append(name)

    def map_sizes(self) -> list[int]:
        """Sides of the maps after every convolution and pool: 110, 55, 26, 13, 13, 13, 13, 6 for ZFNet."""
        side, sides = self.geometry.crop, []
        for conv in self.geometry.convs:
            side = (side + 2 * conv.padding - conv.kernel) // conv.stride + 1
            sides.append(side)
            if conv.pool:
                side = -((3 - side) // 2) + 1  # ceil mode
                sides.append(side)
        return sides

    def layer_path(self, layer: str) -> str:
        """The module whose output is `layer`: "conv3" means the maps right after its ReLU."""
        after_relu = layer.replace("conv", "relu").replace("fc", "relu")
        return after_relu if layer in self.layer_names and hasattr(self, after_relu) else layer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            images = module(images)
        return images

    def preprocess(self, images) -> torch.Tensor:
        """(N,3,S,S) from PIL images, uint8 (H,W,3) arrays, paths, or a list of them.

        Smaller side to `geometry.resize` pixels, centre crop of S = `geometry.crop`, minus the mean,
        over the scale: section 3's preparation, for one crop.
        """
        pixels = data.stack(images, self.geometry.resize)
        return data.centre_crop(self.normalise(pixels), self.geometry.crop)

    def ten_crop(self, images) -> torch.Tensor:
        """(N,10,3,S,S): the four corners and the centre, then their mirror images (section 3)."""
        pixels = data.stack(images, self.geometry.resize)
        return data.ten_crop(self.normalise(pixels), self.geometry.crop)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N,3,H,W) pixels in [0,255] to the network's units: (pixels - mean) / scale.

        A mean image (section 3's per-pixel mean) is as large as the resized image; a centre crop takes its centre.
        """
        return (pixels.to(self.mean) - self._mean_of(pixels)) / self.scale

    def denormalise(self, images: torch.Tensor) -> torch.Tensor:
        """Network units back to pixels in [0,255] (a float tensor, not clipped)."""
        return images * self.scale + self._mean_of(images)

    def _mean_of(self, images: torch.Tensor) -> torch.Tensor:
        side = min(images.shape[-2:])
        return self.mean if self.mean.shape[-1] in (1, side) else data.centre_crop(self.mean, side)

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        saved = state_dict.get(f"{prefix}mean")
        if saved is not None:  # one value per colour, or an image: whichever the weights were trained with
            self.mean = self.mean.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


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
    return sorted(card.stem for card in files.SHIPPED.glob("*.json") if card.with_suffix(".pt").exists())


def load(name: str) -> ZFNet:
    """A trained network by name, in evaluation mode, from data/; its model card is in `net.card`.

    The file's SHA-256 must be the card's and only tensors are read from it: loading never runs code.
    An unknown name, a damaged file or a file that is not tensors raises ValueError.
    """
    if name not in _cards():
        known = ", ".join(shipped()) or "none yet"
        raise ValueError(f"name {name!r} is not a network that zflib ships; it has {known}")
    return load_file(files.SHIPPED / f"{name}.pt")


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
    files.write_atomically(path, content)
    files.write_atomically(beside, text.encode())


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
