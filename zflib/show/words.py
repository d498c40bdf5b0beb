"""Figures in words, for those who cannot see them; `style` stores the words beside every figure of a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

MOST = 24  # labels of one kind: more of them would be read for a minute
LARGE = 64  # numbers of a matrix


def describe(figure: Figure | Axes) -> str:
    """What a finished matplotlib figure shows, in words that a screen reader can say.

    They are the figure's own: titles, labels of axes, ticks and legends, what is written in it, the ends of named
    curves and the heights of named bars. At most 24 of each kind; what only the pixels show is not in them.
    """
    figure = figure.figure if isinstance(figure, Axes) else figure
    shown = [ax for ax in figure.axes if ax.get_visible()]
    parts = [_few(text.get_text() for text in figure.texts)]
    for kind, group in groupby(shown, key=_kind):
        words = [_of_axes(ax) for ax in group]
        count = f"{len(words)} {kind}{'s' if len(words) > 1 else ''}"
        parts.append(": ".join(filter(None, [count, "; ".join(filter(None, words))])))
    return ". ".join(filter(None, parts))


def with_words(draw, figure: Figure):
    """What `draw(figure)` gives a notebook, (PNG, metadata), with the description where nbconvert and Colab read it."""
    drawn = draw(figure)  # None for an empty figure
    return drawn and (drawn[0], drawn[1] | {"alt": describe(figure)})


def in_rows(array: np.ndarray) -> str:
    """A matrix as it is read aloud, row after row; of a large one, and of (h,w,3) pixels, only the size."""
    height, width = array.shape[:2]
    if array.ndim == 3 or array.size > LARGE:
        return f"{height} by {width} {'pixels' if array.ndim == 3 else 'numbers'}"
    return "rows " + "; ".join(" ".join(map(short, row)) for row in array)


def short(value: float) -> str:
    """A number that fits into a small square: 1.5, 0.25, -12, never -0."""
    text = f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _kind(ax: Axes) -> str:
    if ax.get_label() == "<colorbar>":
        return "scale of colours"
    return "picture" if ax.images else "chart"


def _of_axes(ax: Axes) -> str:
    """Everything that is written on one Axes; matrices have a label that says it in order."""
    words = [_plain(ax.get_title(loc)) for loc in ("left", "center", "right")]
    if ax.axison:
        words += [_axis("across", ax.xaxis, ax.get_xlabel()), _axis("up", ax.yaxis, ax.get_ylabel())]
    words += [_curve(line) for line in ax.lines[:MOST] if not line.get_label().startswith("_")]
    if ax.axison:  # without axes, bars are the boxes of a drawing
        words += [_bars(bars) for bars in ax.containers if isinstance(bars, BarContainer)]
    own, written = _label(ax), [_plain(text.get_text()) for text in ax.texts]
    words += [own, _few(text for text in written if not own or (_is_word(text) and text not in own))]
    if ax.get_legend():
        named = [_plain(text.get_text()) for text in ax.get_legend().get_texts()]
        words.append(_few(name for name in named if not any(name in said for said in words)))
    return ", ".join(filter(None, words))


def _label(ax: Axes) -> str:
    return "" if ax.get_label().startswith("<") else ax.get_label()


def _axis(where: str, axis, label: str) -> str:
    """ "across: epochs", or the words at its ticks; numbers there are left out."""
    ticks = [tick.get_text() for tick in axis.get_ticklabels() if tick.get_visible()]
    named = _few(text for text in ticks if _is_word(text) and "mathdefault" not in text)
    said = " ".join(filter(None, [_plain(label), named and f"({named})"]))
    return said and f"{where}: {said}"


def _curve(line) -> str:
    values = line.get_ydata()
    return f"{_plain(line.get_label())} from {values[0]:.3g} to {values[-1]:.3g}" if len(values) > 1 else ""


def _bars(bars: BarContainer) -> str:
    """How long bars are, in their order; of many the shortest and the longest."""
    values = list(bars.datavalues)
    if not 0 < len(values) <= MOST:
        return f"{len(values)} bars from {min(values):.3g} to {max(values):.3g}" if values else ""
    name = "" if bars.get_label().startswith("_") else f" ({_plain(bars.get_label())})"
    return f"bars{name} of " + ", ".join(f"{value:.3g}" for value in values)


def _few(texts: Iterable[str]) -> str:
    """The texts that are not empty; of many the first, and then those that are more than numbers."""
    found = list(filter(None, map(_plain, texts)))
    kept = found[:MOST] + [text for text in found[MOST:] if _is_word(text)][:MOST]
    more = [f"and {len(found) - len(kept)} more"] if len(found) > len(kept) else []
    return ", ".join(kept + more)


def _is_word(text: str) -> bool:
    return any(map(str.isalpha, text))


def _plain(text: str) -> str:
    """One line without the signs of formulas."""
    return " ".join(text.replace("$", "").split())
