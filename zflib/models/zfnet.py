"""The paper's network as a module, and the shapes of its small twins as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from .classifier import ImageClassifier, Sides
from .response_norm import ResponseNorm


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
class Geometry(Sides):
    """Everything that fixes the shapes of a network; `resize` and `crop` are in pixels."""

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


class ZFNet(ImageClassifier):
    """The network of section 3 and Figure 3: five convolutional layers, three fully connected ones.

    Takes (N,3,S,S) images from `preprocess` and returns (N,num_classes) scores before the softmax.
    `batch_norm=True` adds a batch normalisation after each convolution for training; `fold` removes it.
    """

    def __init__(self, num_classes: int = 1000, *, geometry: Geometry = ZFNET, batch_norm: bool = False):
        super().__init__(num_classes, geometry, (122.5, 114.5, 101.5))
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
            self.conv_names.append(f"conv{i}")
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
