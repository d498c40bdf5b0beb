"""Patterns and colours: ten textures that fill objects and backgrounds alike, so that no texture gives a class away."""

from functools import cache

import numpy as np

_TILE = 256  # texels along the side of the noise tiles, which repeat without a seam


def _wave(x: np.ndarray) -> np.ndarray:
    """1 at whole numbers, 0 at quarters, -3 at halves: a cosine's shape without its price."""
    y = x - np.rint(x)
    y *= y
    y *= -16
    y += 1
    return y


@cache
def _noise(steep: float) -> np.ndarray:
    """(_TILE**2,) float32 of deviation 1 from a fixed seed; the larger `steep`, the larger its blobs."""
    spectrum = np.fft.rfft2(np.random.default_rng(0).standard_normal((_TILE, _TILE)))
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)) + 0.5 / _TILE
    tile = np.fft.irfft2(spectrum * frequency**-steep, (_TILE, _TILE))
    return ((tile - tile.mean()) / tile.std()).astype(np.float32).ravel()


def _sample(steep: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The tile at 32 texels per unit of x and y."""
    column, row = (np.rint(axis * 32).astype(np.int32) & (_TILE - 1) for axis in (x, y))
    return _noise(steep)[row * _TILE + column]


def _radius(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


#: name -> tone, about 0 to 1, from x and y in periods of the pattern.
PATTERNS = {
    "gradient": lambda x, y: 0.5 + 0.25 * x,
    "glow": lambda x, y: 1 - 0.4 * _radius(x, y),
    "stripes": lambda x, y: 0.5 + _wave(x),
    "waves": lambda x, y: 0.5 + _wave(x + 0.08 * _wave(0.7 * y)),
    "checks": lambda x, y: 0.5 + _wave(0.7 * x) * _wave(0.7 * y),
    "dots": lambda x, y: 0.3 + _wave(x) + _wave(y) - 1,
    "plaid": lambda x, y: 0.65 + 0.15 * (_wave(x) + _wave(y)),
    "rings": lambda x, y: 0.5 + _wave(_radius(x, y)),
    "clouds": lambda x, y: 0.5 + 0.35 * _sample(1.7, x, y),
    "grain": lambda x, y: 0.5 + 0.3 * _sample(0.4, x, y),
}


def tones(kinds: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(B,S,S) float32 in [0,1]: the pattern number `kinds` (B,) of each picture at x and y (B,S,S), in periods."""
    out = np.empty_like(x)
    for kind, pattern in enumerate(PATTERNS.values()):
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            out[rows] = pattern(x[rows], y[rows])
    return np.clip(out, 0, 1, out=out)


def colour(hue: np.ndarray, light: np.ndarray | float, strength: np.ndarray | float, cover: int = 1) -> np.ndarray:
    """(B,4) float32: red, green, blue, and `cover`, 1 for an object's colour and 0 for a background's.

    `light` (0 to 255) is the mean of the three; `hue` goes round once from 0 to 1.
    """
    light, strength = np.broadcast_to(light, hue.shape), np.broadcast_to(strength, hue.shape)
    out = np.full((len(hue), 4), cover, np.float32)
    for i in range(3):
        out[:, i] = np.clip(light + strength * np.cos(2 * np.pi * (hue - i / 3)), 0, 255)
    return out
