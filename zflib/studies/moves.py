"""What notebook 10 measures: curves over strips of pictures, shifts that fool, straight lines, two pupils."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import _files
from ..data import scenes
from ..experiments.invariance_curves import Invariance
from ..experiments.transforms import Move, moved
from ..models import ZFNet, scenes56
from ..show import Axes, ink
from ..train.filters import fold
from ..train.recipes import RECIPES
from ..train.run import train
from ..train.scoring import Images

BLUE, ORANGE, INK = "#0072b2", "#d55e00", "#333333"  # told apart by the colour-blind, and by their lines
LAYERS = {"conv1": (BLUE, "-"), "fc7": (ORANGE, "--")}
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
PICTURES = (INK, "#00795a", "#a8327a", "#a36a00", "#777777")  # of the lines of five pictures
KINDS = ("face", "car", "house", "fish", "cup")  # five classes are learned sooner than ten

# --- shifts that fool -------------------------------------------------------------------------------------------------


def shifts_within(reach: int) -> torch.Tensor:
    """(K,2) every shift (down, right) of at most `reach` pixels each way, the shortest first."""
    side = torch.arange(-reach, reach + 1)
    shifts = torch.cartesian_prod(side, side)
    return shifts[shifts.square().sum(dim=1).argsort(stable=True)]


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """(1,3,H,W): a (3,H,W) image, so many pixels lower and further right; grey, 0, comes in."""
    return moved(image[None], Move(float(down), float(right)))


def barred(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """(1,3,H,W): the grey bars that `shifted` brings in, on the image as it was: the control without a move."""
    return image[None] * shifted(torch.ones_like(image), down, right)


@torch.no_grad()
def shortest_fooling_shift(
    net: nn.Module, image: torch.Tensor, label: int, reach: int, change: Callable = shifted
) -> tuple[int, int] | None:
    """The shortest shift (down, right) after which the network's first answer is not `label`; None within `reach`.

    `image` (3,H,W), preprocessed. Length is Euclidean. `change` makes a (1,3,H,W) picture of an image and a shift.
    """
    for some in shifts_within(reach).split(40):
        pictures = torch.cat([change(image, down, right) for down, right in some.tolist()])
        wrong = (net(pictures).argmax(dim=1) != label).nonzero()
        if len(wrong):
            return tuple(some[int(wrong[0])].tolist())
    return None


@torch.no_grad()
def answers_kept(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, move: Move, *, least: float = 0.5, batch: int = 50
) -> tuple[float, float, int]:
    """(share, its standard error, n): of n images named correctly with p above `least`, those that keep their name.

    `images` (N,3,H,W), preprocessed, grey comes in; `labels` (N,).
    """
    kept = []
    for some, truth in zip(images.split(batch), labels.split(batch)):
        p, answer = net(some).softmax(dim=1).max(dim=1)
        sure = (answer == truth) & (p > least)
        if sure.any():
            kept.append(net(moved(some[sure], move)).argmax(dim=1) == truth[sure])
    share, count = float(torch.cat(kept).float().mean()), sum(map(len, kept))
    return share, (share * (1 - share) / count) ** 0.5, count


def measured_answers() -> dict[str, dict]:
    """Network -> "images" (n), and "kept": move -> share and standard error of `answers_kept`. Shipped in data/."""
    return json.loads((_files.SHIPPED / "answers-kept.json").read_text(encoding="utf-8"))


# --- is a curve a straight line? --------------------------------------------------------------------------------------


def explained(distance: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """(N,) R² of the best multiple of `shape` (A,), which is 0 where nothing moved, for each curve of (A,N) distances.

    1 is a perfect fit; below 0 the curve's own mean would fit better.
    """
    curve, shape = distance.double(), shape.double()
    factor = (shape[:, None] * curve).sum(dim=0) / shape.square().sum()
    rest = (curve - shape[:, None] * factor).square().sum(dim=0)
    return 1 - rest / (curve - curve.mean(dim=0)).square().sum(dim=0)


# --- two pupils -------------------------------------------------------------------------------------------------------


def taught(reach: float, seed: int, *, count: int = 300, epochs: int = 6) -> ZFNet:
    """`scenes56` trained on rendered scenes whose things are shifted by up to `reach` sides, upright, at one size.

    The scenes are rendered at the size of the network's crop, so that no random crop can shift them as well.
    """
    world = scenes.scenes(count, seed=5, classes=KINDS, pose=scenes.Pose(reach, (1, 1), 0), size=56)
    images, few = (Images(world.pixels[:end].numpy(), world.labels[:end], crop=56) for end in (count, 10))
    net = scenes56(len(KINDS), batch_norm=True)
    recipe = replace(RECIPES["scenes"], epochs=epochs, batch=25, lr=0.03, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        train(net, images, few, recipe, Path(folder), report=lambda row: None)  # its accuracies are not looked at
    return fold(net).eval()


def examination(down: int, count: int = 150) -> scenes.Scenes:
    """`count` new scenes in which every thing is exactly `down` pixels below the middle; the background stays."""
    return scenes.scenes(count, seed=7, classes=KINDS, pose=scenes.Pose.exactly(down=down), size=56)


@torch.no_grad()
def accuracy(net: ZFNet, exam: scenes.Scenes) -> float:
    """The share of the scenes that the network names correctly, in per cent."""
    answers = net(net.normalise(exam.pixels.to(net.mean.device))).argmax(dim=1).cpu()
    return 100 * float((answers == exam.labels).float().mean())


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw_strip(ax: Axes, tiles: Sequence[np.ndarray], amounts: Sequence[float]) -> None:
    """Square pictures side by side, each centred at its (evenly spaced) amount: the scale of the axes above."""
    wide = (amounts[-1] - amounts[0]) / (len(amounts) - 1)
    low, high = amounts[0] - wide / 2, amounts[-1] + wide / 2
    for tile, at in zip(tiles, amounts):
        ax.imshow(tile, extent=(at - 0.48 * wide, at + 0.48 * wide, 0, 1), aspect="auto", interpolation="bicubic")
    ax.set(xlim=(low, high), ylim=(0, 1))
    ax.set_box_aspect(0.96 * wide / (high - low))
    ax.set_axis_off()


def draw_distances(ax: Axes, found: Invariance) -> None:
    """`compared` of conv1 and fc7: each picture thin, their mean thick with its name on it."""
    late = round(0.85 * (len(found.amounts) - 1))
    for layer, (colour, line) in LAYERS.items():
        values = found.compared[layer]
        ax.plot(found.amounts, values, color=colour, ls=line, lw=0.8, alpha=0.45)
        ax.plot(found.amounts, values.mean(dim=1), color=colour, ls=line, lw=3.5)
        spot, box = (found.amounts[late], float(values[late].mean())), {"fc": "white", "ec": "none", "pad": 1.5}
        ax.text(*spot, f"{layer}, mean of {values.shape[1]}", color=ink(colour), ha="center", va="center", bbox=box)
    ax.axhline(1, color="0.6", lw=1)
    ax.set(ylabel="distance\n(1 = another picture)", ylim=(0, 1.25))


def draw_probabilities(ax: Axes, found: Invariance, names: Sequence[str]) -> None:
    """(A,N) probabilities, a line for each picture, named at its end; the first one thick."""
    for values, colour, line in zip(found.probability.T, PICTURES, LINES):
        ax.plot(found.amounts, values, color=colour, ls=line, lw=3 if colour == INK else 1.8)
    ax.set(ylabel="p(first answer)", ylim=(-0.03, 1.05))
    ends = [(float(end), *words) for end, *words in zip(found.probability[-1], names, PICTURES)]
    name_lines(ax, ends, at=found.amounts[-1])


def draw_figure5(axes: Sequence[Axes], found: Invariance, names: Sequence[str], tiles, amounts, words: str) -> None:
    """One transform of Figure 5 on three axes, one below the other: distances, probabilities, and a strip of pictures.

    `tiles`: (h,w,3) uint8 pictures at some evenly spaced `amounts`; `words`: what an amount is.
    """
    draw_strip(axes[2], tiles, amounts)
    for ax in axes[:2]:
        ax.set(xlim=axes[2].get_xlim(), xticks=amounts)
    draw_distances(axes[0], found)
    draw_probabilities(axes[1], found, names)
    axes[1].set_xlabel(words)


def draw_pupils(axes: Sequence[Axes], steps: Sequence[int], right: dict, far: dict, tiles) -> None:
    """Accuracy, fc7's distance and a strip of scenes, by pixels down; the keys are (reach, seed) of `taught`."""
    looks = {False: (ORANGE, "--", "s", "never shifted"), True: (BLUE, "-", "o", "shifted")}
    for ax, curves, words in zip(axes, (right, far), ("right answers, %", "distance, fc7\n(1 = another picture)")):
        ends = {}
        for (reach, _), values in curves.items():
            colour, line, marker, name = looks[reach > 0]
            ax.plot(steps, values, color=colour, ls=line, marker=marker, lw=2)
            ends.setdefault((name, colour), []).append(float(values[-1]))
        name_lines(ax, [(sum(e) / len(e), f"{name}, {len(e)} seeds", colour) for (name, colour), e in ends.items()])
        ax.set_ylabel(words)
    draw_strip(axes[2], tiles, steps)
    for ax, top in zip(axes, (103, 0.85)):
        ax.set(xlim=axes[2].get_xlim(), xticks=steps, ylim=(0, top))
    axes[1].set_xlabel("pixels below the middle")


def name_lines(ax: Axes, ends: Sequence[tuple[float, str, str]], at: float | None = None) -> None:
    """Write (height, words, colour) of each line to the right of the axes, far enough apart to be read.

    If the lines end earlier, `at` an amount, write the words there; a thin line leads from each end to its words.
    """
    low, high = ax.get_ylim()
    left, right = ax.get_xlim()
    gap, last = 0.11 * (high - low), -np.inf
    for height, words, colour in sorted(ends):
        last = max(height, last + gap)
        if at is None:
            ax.text(1.01, last, words, transform=ax.get_yaxis_transform(), color=ink(colour), va="center", fontsize=11)
            continue
        there = at + 0.02 * (right - left)
        ax.plot([at, there], [height, last], color=colour, lw=0.8)
        ax.text(there + 0.004 * (right - left), last, words, color=ink(colour), va="center", fontsize=11)
