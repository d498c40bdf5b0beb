"""Colours that everybody reads: text in them has WCAG 2.1's contrast AA, and curves stay apart for the colour-blind."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_hex, to_rgb

TEXT = 4.5  # contrast that WCAG 2.1 asks of text (criterion 1.4.3, level AA)

#: Okabe and Ito's colours in the order in which curves take them.
CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000")


def contrast(one, other) -> float:
    """WCAG's contrast of two colours as matplotlib names them, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ink(colour, ground="white") -> str:
    """The colour as "#rrggbb", mixed with black, or with white on a dark ground, as far as text in it needs."""
    full = np.array(to_rgb(black_or_white(ground)))
    mixed = (to_hex((1 - part) * np.array(to_rgb(colour)) + part * full) for part in np.linspace(0, 1, 21))
    return next(text for text in mixed if contrast(text, ground) >= TEXT)


def black_or_white(ground) -> str:
    """The one of the two that is read best on a ground; one of them always has 4.5."""
    return max("black", "white", key=lambda text: contrast(text, ground))


def _luminance(colour) -> float:
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
