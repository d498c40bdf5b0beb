"""What all networks of the course have in common: named layers, names of classes, and images in and out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .. import data


@dataclass(frozen=True)
class Sides:
    """Pixels: an image's smaller side becomes `resize`, the network takes a square of `crop`."""

    resize: int
    crop: int


class ImageClassifier(nn.Module):
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
