"""Projections made easier to read: calmed, and as light on the patch of the image that they came from."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .._arguments import shape_or_type
from .pixels import GREY, as_array, image_pixels


def calm(projection, *, sigma: float | None = None, colour: float = 0.35) -> torch.Tensor:
    """(3,h,w): the projection blurred by a Gaussian of `sigma` pixels, and each colour moved towards grey.

    By default `sigma` is 0.6, or a 150th of the longer side of a large projection: 1.5 for 227 pixels. `colour` is
    what is left of each colour's distance from the mean over the colours: 1 keeps them, 0 gives greys. It takes away
    the coloured fringes of small networks, not the form. Show the raw projection beside it once.
    """
    values = _projection(projection)
    sigma = max(0.6, max(values.shape) / 150) if sigma is None else sigma
    mean = values.mean(axis=0, keepdims=True)
    return torch.from_numpy(blurred(mean + colour * (values - mean), sigma))


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """(…,h,w) numbers blurred by a Gaussian of `sigma` pixels, cut at 4 sigma; the border is repeated outwards."""
    from scipy.ndimage import gaussian_filter  # here: `import zflib` stays quick

    return gaussian_filter(values, sigma, mode="nearest", axes=(-2, -1))


def energy(projection, *, sigma: float = 2.0) -> np.ndarray:
    """(h,w) from 0 to 1: where the (3,h,w) projection is strong.

    The square root of its energy, the sum of squares over the colours, blurred by a Gaussian of `sigma` pixels;
    divided by its 98th percentile and clamped. 0 everywhere for a projection of zeros.
    """
    strength = np.sqrt(blurred((_projection(projection) ** 2).sum(axis=0), sigma))
    full = np.percentile(strength, 98) or strength.max() or 1.0  # the maximum: a spot on a large picture
    return (strength / full).clip(0, 1)


def lit(patch, projection, *, net: nn.Module | None = None) -> np.ndarray:
    """(h,w,3) uint8: the patch where its (3,h,w) projection is strong, fading to grey where it is weak; see `energy`.

    `patch` is what `image_pixels` takes: a tensor in the units of `net`, or a picture. The light says where the image
    drove the channel; what it shows is the image, not what the channel knows. Sizes that differ raise ValueError.
    """
    pixels, light = image_pixels(patch, net), energy(projection)[..., None]
    if pixels.shape[:2] != light.shape[:2]:
        sizes = f"{pixels.shape[0]}x{pixels.shape[1]} and {light.shape[0]}x{light.shape[1]} pixels"
        raise ValueError(f"patch and projection must have the same size, got {sizes}; cut both at the same box")
    return (light * pixels + (1 - light) * GREY).round().astype(np.uint8)


def _projection(values) -> np.ndarray:
    if (array := as_array(values)).ndim != 3 or array.shape[0] not in (1, 3):
        raise ValueError(f"projection must be (3,h,w), got {shape_or_type(values)}")
    return array
