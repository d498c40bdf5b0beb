"""What notebook 12 draws: where weights and work are, networks as rows of boxes, and errors beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import show
from ..models import Geometry
from ..show import Axes, black_or_white, ink
from .ablation import FIVE, LAYERS, VARIANTS, costs, found
from .moves import name_lines

CONV, FULLY, PAPER, INK, PALE = "#0072b2", "#e69f00", "#d55e00", "#333333", "#c8ccd2"  # told apart by the colour-blind
#: A colour for each of the five networks, told apart by the colour-blind.
LINES = dict(zip(FIVE, ("#000000", "#0072b2", "#009e73", "#d08700", "#c2559d")))


# --- weights and work ------------------------------------------------------------------------------------------------


def draw_costs(ax: Axes, geometry: Geometry) -> Axes:
    """Above, which share of the weights each layer holds; below, of the multiply-adds; ribbons join the same layer."""
    each = costs(geometry)
    colours = [FULLY if name.startswith("fc") else CONV for name in each]
    ends = []
    for row, (what, top) in enumerate((("million weights", 1.0), ("million multiply-adds for one image", -0.3))):
        values = np.array([cost[row] for cost in each.values()], float)
        ends.append(np.concatenate([[0], values.cumsum() / values.sum()]))
        _draw_shares(ax, list(each), ends[row], colours, top)
        words, height = f"{values.sum() / 1e6:,.0f} {what}", top + (0.07 if row == 0 else -0.54)
        ax.text(0, height, words, fontsize=17, weight="bold", va="bottom", color=INK)
    steps = np.linspace(0, 1, 40)
    bend = steps * steps * (3 - 2 * steps)  # level at both ends
    for i, colour in enumerate(colours):
        left, right = (ends[0][j] + (ends[1][j] - ends[0][j]) * bend for j in (i, i + 1))
        ax.fill_betweenx(0.66 - 0.93 * steps, left, right, color=colour, alpha=0.28, lw=0)
        ax.plot(right, 0.66 - 0.93 * steps, color="white", lw=1.5)
    ax.set(xlim=(-0.002, 1.002), ylim=(-0.86, 1.22))
    ax.set_axis_off()
    return ax


def _draw_shares(ax: Axes, names: Sequence[str], ends: np.ndarray, colours: Sequence[str], top: float) -> None:
    """One bar, 0.34 high, of all layers; shares that are wide enough have their name and per cent in them."""
    for name, left, right, colour in zip(names, ends, ends[1:], colours):
        ax.barh(top - 0.17, right - left, left=left, height=0.34, color=colour, edgecolor="white", lw=1.5)
        if right - left > 0.035:
            words = f"{name}\n{right - left:.0%}"
            ax.text((left + right) / 2, top - 0.17, words, ha="center", va="center", fontsize=14,
                    color=black_or_white(colour))  # fmt: skip


# --- networks as rows of boxes ---------------------------------------------------------------------------------------


def draw_networks(ax: Axes, names: Sequence[str]) -> Axes:
    """A row for each variant: its layers as boxes with their channels or units; what is missing is dotted."""
    whole = VARIANTS["full"].widths
    for row, name in enumerate(names):
        for column, (layer, width) in enumerate(VARIANTS[name].widths.items()):
            tall = 0.5 * min(1.7, (width or whole[layer]) / whole[layer]) ** 0.8
            box = {"color": "none", "edgecolor": "#8a8f98", "ls": ":", "lw": 1.5}
            if width:
                box = {"color": FULLY if layer.startswith("fc") else CONV}
                ax.text(column + 0.43, -row, width, ha="center", va="center", fontsize=11.5,
                        color=black_or_white(box["color"]))  # fmt: skip
            ax.bar(column + 0.43, tall, 0.86, bottom=-row - tall / 2, **box)
        ax.text(-0.2, -row, name, ha="right", va="center", fontsize=13)
    for column, layer in enumerate(LAYERS):
        ax.text(column + 0.43, 0.5, layer, ha="center", fontsize=11.5, color=INK)
    ax.set(xlim=(-3.6, len(LAYERS)), ylim=(0.5 - len(names), 1.0))
    ax.set_axis_off()
    return ax


def draw_sizes(ax: Axes, names: Sequence[str]) -> Axes:
    """Beside `draw_networks`: a variant's weights and multiply-adds, in per cent of the whole network's."""
    totals = {name: np.sum(list(costs(VARIANTS[name].geometry, 200).values()), axis=0) for name in names}
    for row, name in enumerate(names):
        shares = 100 * totals[name] / totals["full"]
        for share, offset, colour, words in zip(shares, (0.16, -0.16), ("#666666", PALE), ("weights", "multiply-adds")):
            ax.barh(offset - row, share, height=0.29, color=colour)
            ax.text(share + 2, offset - row, f"{share:.0f} % of the {words}", va="center", fontsize=11.5)
    ax.set(xlim=(0, 215), ylim=(0.5 - len(names), 1.0))
    ax.set_axis_off()
    return ax


def draw_changes(ax: Axes, ours: Mapping[str, Sequence[float]], *, paper: int | None = 1) -> Axes:
    """Beside `draw_networks`: errors less the whole network's. A dot for each of our trainings, a diamond: the paper's.

    `ours`: variant -> errors in per cent, "full" among them; `paper`: which of its three errors, or None: our means.
    """
    base = np.mean(ours["full"])
    ax.axvline(0, color=INK, lw=1)
    for row, (name, values) in enumerate(ours.items()):
        changes, change = np.array(values) - base, VARIANTS[name].paper[paper or 0] - VARIANTS[name].base[paper or 0]
        ax.plot(changes, [-row] * len(changes), "o", ms=10, color=CONV, alpha=0.75, markeredgecolor="white")
        if name == "full":
            continue
        if paper is None:
            ax.plot(changes.mean(), -row, "|", ms=20, mew=2, color=INK)
            ax.text(changes.mean(), 0.27 - row, _signed(changes.mean()), ha="center", fontsize=12, color=INK)
            continue
        left = not len(changes) or changes.mean() < change  # ours on the left, the paper's right
        if len(changes):
            _beside(ax, changes.min() if left else changes.max(), -row, _signed(changes.mean()), CONV, left=left)
        ax.plot(change, -row, "D", ms=8, color="none", markeredgecolor=PAPER, markeredgewidth=2)
        _beside(ax, change, -row, _signed(change), PAPER, left=not left)
    if paper is not None:
        ax.text(0, 0.5, "ours   ", color=ink(CONV), ha="right", fontsize=12)
        ax.text(0, 0.5, "   the paper's", color=ink(PAPER), ha="left", fontsize=12)
    ax.set(ylim=(0.5 - len(ours), 1.0), yticks=[], xlabel="change of the top-1 error, in points")
    ax.margins(x=0.2)
    ax.spines["left"].set_visible(False)
    return ax


def _beside(ax: Axes, x: float, y: float, words: str, colour: str, *, left: bool) -> None:
    """Write a number a little to the left or to the right of its dot."""
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the line at zero does not cross a number
    ax.annotate(words, (x, y), (-9 if left else 9, 0), textcoords="offset points", ha="right" if left else "left",
                va="center", fontsize=12, color=ink(colour), bbox=behind)  # fmt: skip


def _signed(number: float) -> str:
    """With its sign, and a minus that one can see."""
    return f"{number:+.1f}".replace("-", "−")


# --- the shipped table -----------------------------------------------------------------------------------------------


def draw_orders(ax: Axes, columns: Mapping[str, Mapping[str, float]]) -> Axes:
    """The five networks from best (top) to worst in each column, a line for each: title -> variant -> error in %."""
    ranks = [{name: -row for row, name in enumerate(sorted(errors, key=errors.get))} for errors in columns.values()]
    for name, colour in LINES.items():
        places = [(i, rank[name]) for i, rank in enumerate(ranks) if name in rank]
        ax.plot(*zip(*places), lw=5, color=colour, alpha=0.55, solid_capstyle="round")
    for i, (title, errors) in enumerate(columns.items()):
        for name, error in errors.items():
            ax.plot(i, ranks[i][name], "o", ms=34, color="white", markeredgecolor=LINES[name], markeredgewidth=2.5)
            ax.text(i, ranks[i][name], f"{error:.1f}", ha="center", va="center", fontsize=12)
        ax.text(i, 0.75, title, ha="center", va="bottom", fontsize=13)
    for name in ranks[0]:
        ax.text(-0.22, ranks[0][name], name, ha="right", va="center", fontsize=13)
    for name in ranks[-1]:
        ax.text(len(ranks) - 0.78, ranks[-1][name], name, ha="left", va="center", fontsize=13)
    ax.set(xlim=(-1.1, len(ranks) + 0.1), ylim=(0.5 - len(FIVE), 1.5))
    ax.set_axis_off()
    return ax


def draw_gap(ax: Axes, card: dict) -> Axes:
    """Validation less training error, in points: how much better each network knows what it has seen."""
    for row, (name, variant) in enumerate(VARIANTS.items()):
        pairs = zip(found(card)[name], found(card, "train")[name])
        gaps = [validation - train for validation, train in pairs]
        ax.plot(gaps, [-row] * len(gaps), "o", ms=9, color=CONV, alpha=0.75, markeredgecolor="white")
        paper = variant.paper[1] - variant.paper[0]
        ax.plot(paper, -row, "D", ms=8, color="none", markeredgecolor=PAPER, markeredgewidth=2)
    ax.text(paper + 0.8, -row, "the paper", color=ink(PAPER), va="center", fontsize=12)
    ax.text(max(gaps, default=0) + 0.8, -row, "ours", color=ink(CONV), va="center", fontsize=12)
    ax.axvline(0, color=INK, lw=1)
    ax.set_yticks(range(0, -len(VARIANTS), -1), list(VARIANTS), fontsize=12)
    ax.set_xlabel("validation error less training error, in points")
    return ax


def draw_curves(axes: Sequence[Axes], card: dict, budgets: Mapping[str, str]) -> None:
    """Validation error after every pass, the first training of each of the five; `budgets`: name -> title."""
    curves = {title: _curves(card, budget) for budget, title in budgets.items()}
    lowest = min(min(curve) for named in curves.values() for curve in named.values())
    for ax, (title, named) in zip(axes, curves.items()):
        ax.set(xlabel="passes over the training images", title=title, ylim=(lowest - 2, 98))
        ax.xaxis.get_major_locator().set_params(integer=True)
        if not named:
            ax.text(0.5, 0.5, "not trained yet", ha="center", transform=ax.transAxes, fontsize=13, color=INK)
        for name, curve in named.items():
            ax.plot(range(1, len(curve) + 1), curve, "o-", ms=5, lw=2.5, color=LINES[name])
        name_lines(ax, [(curve[-1], f"{curve[-1]:.1f} {name}", LINES[name]) for name, curve in named.items()])
    axes[0].set_ylabel("top-1 validation error in per cent")


def _curves(card: dict, budget: str, names: Sequence[str] = FIVE) -> dict[str, list[float]]:
    """Variant -> top-1 validation error after every pass, of its first training."""
    rows = {row["variant"]: row for row in reversed(card["rows"]) if row["budget"] == budget}
    return {name: [100 - line["top1"] for line in rows[name]["curve"]] for name in names if name in rows}


def draw_votes(ax: Axes, card: dict) -> Axes:
    """What ten crops, several networks and both take off the top-1 error of one network and one crop, in points."""
    kinds = {"ten crops": (CONV, "o"), "several networks": (FULLY, "s"), "both": (INK, "D")}
    for row, (name, votes) in enumerate(card["votes"].items()):
        alone = np.mean(found(card)[name])
        ends = (np.mean(found(card, "ten-crop")[name]), votes["centre crop"]["top1"], votes["ten-crop"]["top1"])
        for (kind, (colour, shape)), end in zip(kinds.items(), ends):
            ax.plot(alone - end, -row, shape, ms=11, color=colour, label=None if row else kind)
    names = [f"{name} ({votes['networks']} networks)" for name, votes in card["votes"].items()]
    ax.set_yticks(range(0, -len(names), -1), names, fontsize=12)
    ax.set(xlabel="points off the top-1 error", xlim=(0, None), ylim=(0.5 - len(names), 0.5))
    ax.legend(frameon=False, fontsize=12, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def variant_pixels(card: dict, name: str) -> np.ndarray:
    """(H,W,3) uint8: a variant's network, its error beside the paper's as changes, and its curve among all others'."""
    above, change, curve = show.axes_at([(0.0, 0.66, 0.99, 0.36), (0.1, 0.12, 0.38, 0.46), (0.57, 0.12, 0.41, 0.46)],
                                        size=(12.5, 6))  # fmt: skip
    draw_networks(above, [name])
    _draw_pairs(change, card, name)
    curves = _curves(card, "short", list(VARIANTS))
    for other, errors in curves.items():
        colour, wide, front = (CONV, 4, 3) if other == name else (PALE, 2, 1)
        curve.plot(range(1, len(errors) + 1), errors, "o-", lw=wide, color=colour, zorder=front)
    curve.set(xlabel="passes over the training images", ylabel="top-1 error in per cent", xticks=(1, 2, 3))
    return show.axes_pixels(above)


def _draw_pairs(ax: Axes, card: dict, name: str) -> None:
    """Change of the error against the whole network: training and validation, the paper's and ours."""
    variant = VARIANTS[name]
    for row, (part, place) in enumerate((("validation", 1), ("train", 0))):
        ours = found(card, part)
        bars = {"paper": variant.paper[place] - variant.base[place], "ours": None}
        if ours[name] and ours["full"]:
            bars["ours"] = np.mean(ours[name]) - np.mean(ours["full"])
        for i, (words, value) in enumerate(bars.items()):
            if value is None:
                continue
            height, colour = 0.2 - row - 0.4 * i, (PAPER, CONV)[i]
            ax.barh(height, value, height=0.34, color=colour)
            side = "left" if value >= 0 else "right"
            text = f" {words} {_signed(value)} "
            ax.text(value, height, text, va="center", ha=side, fontsize=12, color=ink(colour))
    ax.axvline(0, color=INK, lw=1)
    ax.set(xlim=(-48, 52), ylim=(-1.6, 0.6), xlabel="change against the whole network, in points")
    ax.set_yticks([0, -1], ["validation\nerror", "training\nerror"], fontsize=12)
