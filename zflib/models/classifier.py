"""What all networks of the course have in common: named layers, names of classes, and images in and out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .. import data
from .._arguments import check_integer, check_net, check_tensor


@dataclass(frozen=True)
class Sides:
    """Pixels: an image's smaller side becomes `resize`, the network takes a square of `crop`."""

    resize: int
    crop: int


class Prepares:
    """Images in and out: for whatever has `geometry`, `mean` (3,1,1) or (3,S,S), and `scale`, in pixels 0 to 255."""

    geometry: Sides
    mean: torch.Tensor
    scale: torch.Tensor

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


@dataclass(eq=False)
class Preparation(Prepares):
    """How a network that is not ours takes images: pixels 0 to 255 become (pixels - mean) / scale, both (3,1,1)."""

    geometry: Sides
    mean: torch.Tensor
    scale: torch.Tensor


#: Mean and standard deviation of ImageNet's colours, in [0,1]: what most networks of torchvision and timm expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


#: What a pair of numbers for the crop is answered.
NOT_SQUARE = ", of a square (for other shapes give a function as preprocess= where you give images)"


def with_preprocessing(
    net: nn.Module, *, resize: int = 256, crop: int = 224, mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD, classes: Sequence[str] = (),
) -> nn.Module:  # fmt: skip
    """The same network, which now says how it takes images: photographs and folders can be given to it everywhere.

    An image's smaller side becomes `resize` pixels (bilinear), its centre square of `crop` is taken, colours in [0,1]
    become (colour - mean) / std. `net` gets the attributes preprocess(images) -> (N,3,crop,crop), denormalise(images),
    normalise, ten_crop, geometry, mean, scale and, if any are given, `classes`, the names of its outputs; nothing of it
    changes. The crop may lie a pixel beside torchvision's, which rounds otherwise. A network for images that are not
    square takes a `preprocess` of yours instead, where images are given. ValueError for sizes or colours that make no
    sense.
    """
    check_net(net)
    crop = check_integer("crop", crop, "pixels, at least 1" + NOT_SQUARE * (not isinstance(crop, int)), low=1)
    resize = check_integer("resize", resize, f"pixels, at least as many as crop, {crop}", low=crop)
    sizes = Sides(resize, crop)
    centre, spread = (_colours(name, values) for name, values in (("mean", mean), ("std", std)))
    if not bool((spread > 0).all()):
        raise ValueError(f"std must be above 0 for each colour, got {tuple(std)}: colours are divided by it")
    if not bool(((centre >= 0) & (centre <= 255)).all()) or bool((spread > 2550).any()):
        raise ValueError(f"mean and std are of colours from 0 to 1, got {tuple(mean)} and {tuple(std)}; divide by 255")
    names = _names(classes)
    prepares = Preparation(sizes, centre, spread)
    net.geometry, net.mean, net.scale = sizes, centre, spread
    for name in ("preprocess", "ten_crop", "normalise", "denormalise"):
        setattr(net, name, getattr(prepares, name))
    if names:
        net.classes = names
    return net


def _names(classes) -> list[str]:
    """The names of the classes; ValueError for one string, which is a list of letters, and for no names at all."""
    names = list(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else [None]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes must be a list of names, one for each output, or left out, got {classes!r}")
    return names


def _colours(name: str, values: Sequence[float]) -> torch.Tensor:
    """(3,1,1) in pixels 0 to 255, from three numbers in [0,1]."""
    colours = check_tensor(name, values, "three numbers, for red, green and blue", device="cpu")
    if colours.shape != (3,) or not bool(colours.isfinite().all()):
        raise ValueError(f"{name} must be three finite numbers, for red, green and blue, got {values!r}")
    return colours.float().view(3, 1, 1) * 255


class ImageClassifier(Prepares, nn.Module):
    """A row of modules from (N,3,S,S) RGB images, as `preprocess` gives them, to (N,num_classes) scores.

    `layer_names` are its layers in order, the last one gives the classes; `conv_names` are the convolutional ones
    before that. `classes` and `wnids`: names and WordNet ids of the classes; `card`: how it was trained and what it
    gets right. Pixels 0 to 255 become (pixels - mean) / scale.
    """

    def __init__(self, num_classes: int, geometry: Sides, mean: tuple[float, float, float]):
        super().__init__()
        self.geometry, self.num_classes = geometry, num_classes
        self.classes: list[str] = []
        self.wnids: list[str] = []
        self.card: dict = {}
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(1.0))
        self.layer_names: list[str] = []
        self.conv_names: list[str] = []

    def _add(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.layer_names.append(name)

    def layer_path(self, layer: str) -> str:
        """The module whose output is `layer`: "conv3" means the maps right after its ReLU."""
        after_relu = layer.replace("conv", "relu").replace("fc", "relu")
        return after_relu if layer in self.layer_names and hasattr(self, after_relu) else layer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            images = module(images)
        return images
