"""What notebook 05 draws: filters while a network learns, ten crops and their vote, and Figure 3 beside its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..models import ZFNET, Conv, Geometry, ZFNet
from ..show import Axes, black_or_white, caption, filters, mosaic, numbers, photo, signed_pixels, upscale
from ..train.recipes import Recipe
from ..train.scoring import Images
from ..train.steps import Run, prepare

#: Gradient descent with momentum and nothing else: no schedule, no weight decay, no limit on filters, no dropout.
PLAIN = Recipe(
    batch=64, lr=0.02, weight_decay=0.0, dropout=0.0, linear_init="he", batch_norm=True, renormalise=None,
    per_pixel_mean=False, scale=60.0, mirror=False,
)  # fmt: skip

#: Krizhevsky's network on one GPU: 55/27/27/13/13/13/13/6 from a 224x224 image.
KRIZHEVSKY = replace(ZFNET, convs=(
    Conv(96, 11, stride=4, padding=2, pool=True, norm=True),
    replace(ZFNET.convs[1], stride=1, padding=2),
    *ZFNET.convs[2:],
))  # fmt: skip

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # told apart by the colour-blind
CHANGED, SAME = "#e69f00", "#b9cfe4"
INK = "#333333"


def watch(net: ZFNet, images: Images, steps: Sequence[int], recipe: Recipe = PLAIN) -> dict[int, torch.Tensor]:
    """conv1's filters (C,3,k,k) after each of the `steps`, counted from 0: before training, while `net` is trained."""
    prepare(net, images, recipe)
    run, kept = Run(net, images, recipe, Path()), {}
    net.train()
    for step, (inputs, labels) in zip(range(max(steps) + 1), batches(run)):
        if step in steps:
            kept[step] = net.conv1.weight.detach().cpu().clone()
        run.step(inputs, labels)
    return kept


def batches(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of one epoch after the other."""
    while True:
        for batch in run.batches():
            yield batch
            run.progress.step += 1
        run.progress.epoch, run.progress.step = run.progress.epoch + 1, 0


def filter_rows(kept: dict[int, torch.Tensor], channels: Sequence[int]) -> np.ndarray:
    """(H,W,3) uint8: a row for each step that `watch` kept, its filters large, each at its own contrast."""
    rows = []
    for step, weight in kept.items():
        full = weight.abs().amax(dim=(1, 2, 3))
        tiles = [upscale(signed_pixels(weight[i], full=float(full[i])), 322, smooth=True) for i in channels]
        rows.append(caption(mosaic(tiles, columns=len(tiles), gap=12), f"step {step}", size=32))
    return mosaic(rows, columns=1, gap=16)


def draw_progress(
    axes: Sequence[Axes], conv: nn.Conv2d, curve: Sequence[tuple[int, float]], *, steps: int = 200
) -> None:
    """The first layer's filters, and per cent of images named correctly at each (step, per cent) of `curve`."""
    filters(conv, axes[0], columns=8, title=f"conv1 after {curve[-1][0]} steps")
    axes[1].plot(*zip(*curve), "o-", lw=2.5, color=COLOURS[0])
    title = f"unseen scenes named correctly: {curve[-1][1]:.0f} %"
    axes[1].set(xlim=(-0.03 * steps, 1.03 * steps), ylim=(0, 103), xlabel="step", title=title)


# --- ten crops and their vote ----------------------------------------------------------------------------------------


def draw_crops(axes: Sequence[Axes], square: torch.Tensor, size: int, answers: Sequence[str]) -> None:
    """Five frames of `size` pixels on a (3,S,S) uint8 photograph and five on its mirror image, each with its answer."""
    far = square.shape[-1] - size
    corners = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    for ax, pixels, first in zip(axes, (square, square.flip(-1)), (0, 5)):
        photo(pixels.float(), ax)
        for number, (top, left) in enumerate(corners):
            mirrored = first == 5
            text = f"{first + number + 1} {answers[first + number]}"
            _frame(ax, (top, far - left if mirrored else left), size, number, text, far)


def _frame(ax: Axes, corner: tuple[int, int], size: int, number: int, text: str, far: int) -> None:
    """One frame, a little smaller than the one before it, so that edges that coincide are both seen."""
    (top, left), colour, inset = corner, COLOURS[number], 1 + 1.6 * number
    low, high = top + size - inset, left + size - inset
    ax.plot(
        [left + inset, high, high, left + inset, left + inset], [top + inset, top + inset, low, low, top + inset],
        color=colour, lw=3,
    )  # fmt: skip
    middle, right = number == 4, left == far
    x = left + size / 2 if middle else high - 5 if right else left + inset + 5
    y = top + size / 2 if middle else low - 9 if top == far else top + inset + 9
    side = "center" if middle else "right" if right else "left"
    box = {"facecolor": colour, "edgecolor": "none", "pad": 3}
    ax.text(x, y, text, ha=side, va="center", fontsize=13, color=black_or_white(colour), weight="bold", bbox=box)


def draw_vote(ax: Axes, probabilities: torch.Tensor, classes: Sequence[str], *, count: int = 5) -> Axes:
    """The (10,classes) probabilities of ten crops in per cent and their mean, for the `count` classes that lead."""
    mean = probabilities.mean(dim=0, keepdim=True)
    chosen = mean[0].topk(count).indices
    table = torch.cat([probabilities, mean])[:, chosen].T * 100  # (count,11)
    numbers(table.round(), ax, full=100)
    ax.set_aspect("auto")
    for text in ax.texts:
        text.set_fontsize(13)
    ax.set_yticks(range(count), [classes[int(i)] for i in chosen], fontsize=13)
    ax.xaxis.tick_top()
    ax.set_xticks(range(11), [*(f"crop {i}" for i in range(1, 11)), "the vote"], fontsize=11)
    ax.get_xticklabels()[-1].set_weight("bold")
    ax.grid(False)
    for column, row in enumerate(table.argmax(dim=0).tolist()):
        xs, ys = (column - 0.47, column + 0.47), (row - 0.47, row + 0.47)
        ax.plot([xs[0], xs[1], xs[1], xs[0], xs[0]], [ys[0], ys[0], ys[1], ys[1], ys[0]], color="black", lw=2.5)
    ax.axvline(9.5, color="black", lw=2)
    return ax


# --- Figure 3 --------------------------------------------------------------------------------------------------------


def draw_looks(ax: Axes, square: torch.Tensor, conv: Conv) -> Axes:
    """A (3,S,S) uint8 piece of a photograph: where the first layer looks, a dot for each position, a frame for one."""
    photo(square.float(), ax)
    side, edge = square.shape[-1], conv.kernel - 0.5
    dots = torch.arange(conv.kernel // 2, side - conv.kernel // 2, conv.stride)
    rows, columns = torch.meshgrid(dots, dots, indexing="ij")
    ax.scatter(columns.flatten(), rows.flatten(), s=26, color=CHANGED, edgecolors="black", linewidths=0.6)
    ax.plot([-0.5, edge, edge, -0.5, -0.5], [-0.5, -0.5, edge, edge, -0.5], color=CHANGED, lw=4, clip_on=False)
    return ax


def draw_network(ax: Axes, geometry: Geometry, name: str, *, changed: Sequence[int] = (1, 2)) -> Axes:
    """The network as in the paper's Figure 3, the layers `changed` (from 1) in orange; map sides as square roots."""
    with torch.device("meta"):  # shapes only: no memory for 60 million weights
        sides = iter(ZFNet(geometry=geometry).map_sizes())
    x = 0.0
    for number, conv in enumerate(geometry.convs, start=1):
        side, colour = next(sides), CHANGED if number in changed else SAME
        tall, deep = side**0.5 / 6, 0.15 + conv.channels / 700
        _block(ax, x, tall, deep, colour)
        _words(ax, x + (tall + deep) / 2, tall / 2 + deep / 2, f"{side}×{side}\n{conv.channels} maps")
        words = f"conv{number}\n{conv.kernel}×{conv.kernel}\nstride {conv.stride}"
        words += f"\npool to {next(sides)}" if conv.pool else ""
        ax.text(x + tall / 2, -1.25, words, ha="center", va="top", fontsize=12,
                weight="bold" if number in changed else None)  # fmt: skip
        x += max(tall + deep, 1.3) + 0.4
    for number, units in enumerate((*geometry.hidden, 1000), start=len(geometry.convs) + 1):
        _block(ax, x + 0.1, 0.0, 0.0, SAME, height=1.9 * (units / 4096) ** 0.5)
        ax.text(x + 0.22, -1.25, f"fc{number}\n{units}", ha="center", va="top", fontsize=12)
        x += 0.85
    ax.set_title(name, loc="left", weight="bold", fontsize=14)
    ax.set(xlim=(-0.2, 12.2), ylim=(-2.3, 1.75), aspect="equal")
    ax.set_axis_off()
    return ax


def _block(ax: Axes, x: float, tall: float, deep: float, colour: str, *, height: float | None = None) -> None:
    """A box with a square face `tall` high and `deep` maps behind it, or, with a height, a bar."""
    wide, low, high = (0.24, -height / 2, height / 2) if height else (tall, -tall / 2, tall / 2)
    ax.fill([x, x + wide, x + wide, x], [low, low, high, high], facecolor=colour, edgecolor=INK, lw=1)
    if deep:
        up = deep / 2
        ax.fill([x, x + wide, x + wide + deep, x + deep], [high, high, high + up, high + up], colour, alpha=0.6,
                edgecolor=INK, lw=1)  # fmt: skip
        ax.fill([x + wide, x + wide + deep, x + wide + deep, x + wide], [low, low + up, high + up, high], colour,
                alpha=0.8, edgecolor=INK, lw=1)  # fmt: skip


def _words(ax: Axes, x: float, y: float, text: str) -> None:
    ax.text(x, y + 0.1, text, ha="center", va="bottom", fontsize=12, color=INK)
