"""What fixes the shapes of the course's networks, as data: the paper's, Krizhevsky's first layer, and small ones."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
