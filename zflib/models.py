"""The networks of the course: the paper's ZFNet, its quarter-scale `zfnet56`, and `load`."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from . import data, files


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
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5

    @staticmethod
    def from_dict(values: dict) -> Geometry:
        convs = tuple(Conv(**conv) for conv in values["convs"])
        return Geometry(**values | {"convs": convs, "hidden": tuple(values["hidden"])})


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


class ResponseNorm(nn.Module):
    """Krizhevsky's local response normalisation; computes what `nn.LocalResponseNorm` does, faster.

    Each value is divided by (k + alpha/size * sum of squares over `size` neighbouring channels) ** beta.
    """

    def __init__(self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return _ResponseNorm.apply(maps, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def _neighbours(values: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Sum over each channel's neighbours: `before` channels below it to `after` above it."""
    channels = values.shape[1]
    padded = F.pad(values, (0, 0) * (values.dim() - 2) + (before, after))
    total = padded[:, :channels].clone()
    for shift in range(1, before + after + 1):
        total += padded[:, shift : shift + channels]
    return total


class _ResponseNorm(torch.autograd.Function):
    """The closed-form derivative, so that a training step keeps two tensors instead of a dozen."""

    @staticmethod
    def forward(ctx, maps, size, alpha, beta, k):
        before, after = size // 2, (size - 1) // 2
        base = _neighbours(maps * maps, before, after).mul_(alpha / size).add_(k)
        factor = base.rsqrt().mul_(base.rsqrt().sqrt_()) if beta == 0.75 else base.pow(-beta)
        ctx.save_for_backward(maps, base, factor)
        ctx.settings = before, after, 2 * alpha * beta / size
        return maps * factor

    @staticmethod
    def backward(ctx, grad):
        maps, base, factor = ctx.saved_tensors
        before, after, scale = ctx.settings
        shared = _neighbours(grad * maps * factor / base, after, before)
        return torch.addcmul(grad * factor, maps, shared, value=-scale), None, None, None, None


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
        self.add_module("flatten", nn.Flatten())

    def _add_hidden(self, num_classes: int) -> None:
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
        return self.normalise(data.centre_crop(pixels, self.geometry.crop))

    def ten_crop(self, images) -> torch.Tensor:
        """(N,10,3,S,S): the four corners and the centre, then their mirror images (section 3)."""
        pixels = data.stack(images, self.geometry.resize)
        crops = data.ten_crop(pixels, self.geometry.crop)
        return self.normalise(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N,3,H,W) pixels in [0,255] to the network's units: (pixels - mean) / scale."""
        return (pixels.to(self.mean) - self.mean) / self.scale

    def denormalise(self, images: torch.Tensor) -> torch.Tensor:
        """Network units back to pixels in [0,255] (a float tensor, not clipped)."""
        return images * self.scale + self.mean


def zfnet56(num_classes: int = 200, *, batch_norm: bool = False) -> ZFNet:
    """The paper's network at quarter scale: 56x56 crops, 64-192-256-256-192 channels, fc 1024."""
    return ZFNet(num_classes, geometry=ZFNET56, batch_norm=batch_norm)


def device() -> torch.device:
    """The fastest device here: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def shipped() -> list[str]:
    """Names that `load` knows: the networks in data/ with a model card beside their weights."""
    return sorted(card.stem for card in files.SHIPPED.glob("*.json") if card.with_suffix(".pt").exists())


def load(name: str) -> ZFNet:
    """A trained network by name, in evaluation mode, from data/; its model card is in `net.card`.

    The file's SHA-256 must be the card's and only tensors are read from it: loading never runs code.
    An unknown name, a damaged file or a file that is not tensors raises ValueError.
    """
    names = shipped()
    if name not in names:
        raise ValueError(f"name {name!r} is not a network that zflib ships; it has {', '.join(names) or 'none yet'}")
    return load_file(files.SHIPPED / f"{name}.pt")


def load_file(path: str | Path) -> ZFNet:
    """As `load`, for weights of your own that `save` wrote: `path`.pt with its card `path`.json."""
    path = Path(path)
    beside = path.with_suffix(".json")
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
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path.name} does not hold the weights of its card ({reason}); only tensors are read, "
            "as models.save writes them"
        ) from error
    return net.eval()


def _from_card(path: Path) -> tuple[ZFNet, str]:
    """The network that a model card describes, still untrained, and the SHA-256 of its weights."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        net = ZFNet(len(card["wnids"]), geometry=Geometry.from_dict(card["geometry"]))
        net.classes, net.wnids, net.card = card["classes"], card["wnids"], card
        return net, card["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} is not a model card: {type(error).__name__} {error}; models.save writes one"
        ) from error


def save(net: ZFNet, path: str | Path, card: dict) -> None:
    """Weights in half precision to `path`.pt, and to `path`.json the card with their SHA-256; both atomically."""
    path, state, buffer = Path(path), net.state_dict(), io.BytesIO()
    if (len(net.classes), len(net.wnids)) != (net.num_classes,) * 2:
        given = f"{len(net.classes)} classes and {len(net.wnids)} wnids"
        raise ValueError(f"net: it has {given} for {net.num_classes} outputs; set net.classes and net.wnids")
    half = {key: value.half() for key, value in state.items()}
    lost = next((key for key, value in half.items() if not bool(value.isfinite().all())), None)
    if lost:
        raise ValueError(f"net: {lost} holds values that half precision cannot, NaN or above 65504; train it again")
    torch.save(half, buffer)
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    fixed = {"classes": net.classes, "wnids": net.wnids, "geometry": asdict(net.geometry), "sha256": sha256}
    files.write_atomically(path.with_suffix(".pt"), content)
    files.write_atomically(path.with_suffix(".json"), (json.dumps(card | fixed, indent=1) + "\n").encode())
