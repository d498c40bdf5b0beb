"""Notebook 13: what was measured on Caltech-101, how it is drawn, nearest neighbours, and how to choose a layer.

data/make/transfer.py and data/make/transfer_training.py compute the numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import torch

from .. import _files, show

#: Table 4, Caltech-101: images of a class -> accuracy and its spread, in per cent.
PAPER = {"pretrained": {15: (83.8, 0.5), 30: (86.5, 0.5)}, "from scratch": {15: (22.8, 1.5), 30: (46.5, 1.7)}}
#: Table 7, Caltech-101, 30 images of a class, support vector machine.
PAPER_LAYERS = {"1": 44.8, "2": 66.2, "3": 72.3, "4": 76.6, "5": 86.2, "7": 85.5}
#: The layers that the notebook shows, by network; the scores of squeezenet are conv10's maps, averaged.
LAYERS = {
    "squeezenet": ["conv1", "fire3", "fire5", "fire7", "fire9", "conv10 averaged"],
    "zfnet56": ["conv1", "conv2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8"],
}
FEW = "10 of 15"  # training images of a class, and all that are looked at, where networks are compared
BLUE, RUST, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6b6b6b"  # Okabe and Ito
COLOURS = {"squeezenet": BLUE, "zfnet56": RUST, "random": PINK, "other images": GREEN, "the paper": GREY}
#: What stands in the place of zfnet56's fully connected layers, and its rows on Caltech-101 and on Tiny ImageNet.
IN_PLACE = {
    "pool5": ("zfnet56 whole pool5", "zfnet56 whole on Tiny ImageNet pool5"),
    "trained fc6": ("zfnet56 fc6", "zfnet56 on Tiny ImageNet fc6"),
    "a random layer on pool5": (
        "zfnet56 whole pool5 random units",
        "zfnet56 whole on Tiny ImageNet pool5 random units",
    ),
    "trained fc6 and fc7": ("zfnet56 fc7", "zfnet56 on Tiny ImageNet fc7"),
    "a random layer on trained fc6": (
        "zfnet56 fc6 random units",
        "zfnet56 whole on Tiny ImageNet fc6 random units",
    ),
    "two random layers on pool5": (
        "zfnet56 whole pool5 two random layers",
        "zfnet56 whole on Tiny ImageNet pool5 two random layers",
    ),
}


class Measured:
    """What was measured: `rows` by name, accuracies in per cent."""

    def __init__(self, path: str | Path = _files.SHIPPED / "transfer.json"):
        self.rows = json.loads(Path(path).read_text(encoding="utf-8"))["rows"]

    def accuracy(self, name: str) -> torch.Tensor:
        """(draws,) of a row; ValueError that lists the rows if there is none of this name."""
        if name not in self.rows:
            raise ValueError(f"name {name!r} is no row; there are {', '.join(self.rows)}")
        return 100 * torch.tensor(self.rows[name]["accuracy"])

    def curve(self, network: str, layer: str) -> dict[int, torch.Tensor]:
        """Images of a class -> (draws,), for all numbers that were measured."""
        rows = [row for row in self.rows.values() if row.get("network") == network and row.get("layer") == layer]
        counts = sorted(row["per_class"] for row in rows if not row["change"] and row.get("most", 60) == 60)
        return {count: self.accuracy(f"{network} {layer} {count}") for count in counts}

    def layers(self, network: str, names: list[str], images: str = "30") -> dict[str, torch.Tensor]:
        """Layer -> (draws,) with 30 images of a class, or FEW; a name may hold a change, "conv10 averaged"."""
        return {name: self.accuracy(f"{network} {name} {images}") for name in names}

    def trained(self, kind: str) -> dict[int, torch.Tensor]:
        """Images of a class -> (draws,) of networks that were trained on Caltech-101: kind "scratch" or "tuned"."""
        found: dict[int, list] = {}
        for name, row in self.rows.items():
            if name.startswith(f"{kind} "):
                found.setdefault(row["per_class"], []).append(100 * row["accuracy"][0])
        return {count: torch.tensor(values) for count, values in sorted(found.items())}


def told(values: torch.Tensor) -> str:
    """ "88.4 ± 0.3": mean and standard deviation over the draws."""
    return f"{float(values.mean()):.1f}" + (f" ± {float(values.std()):.1f}" if len(values) > 1 else "")


def images_needed(curve: Mapping[int, torch.Tensor], level: float) -> float:
    """How many images of a class a curve needs to reach `level` per cent, read off between its points; inf: never.

    Between two points the accuracy is taken to grow with the logarithm of the number.
    """
    points = [(count, float(values.mean())) for count, values in sorted(curve.items())]
    if points[0][1] >= level:
        return float(points[0][0])
    for (few, low), (many, high) in pairwise(points):
        if low < level <= high:
            return math.exp(math.log(few) + (level - low) / (high - low) * math.log(many / few))
    return math.inf


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw_curves(ax, curves: Mapping[str, Mapping[int, torch.Tensor]], paper: Mapping = PAPER):
    """Figure 9's kind of picture on a matplotlib Axes: accuracy against images of a class, the paper's as crosses.

    The bars are standard deviations over the draws, mostly smaller than the points. An empty curve is left out.
    """
    for (name, curve), colour in zip(curves.items(), (BLUE, RUST, PINK, "black")):
        if not curve:
            continue
        counts, values = list(curve), list(curve.values())
        means = [float(value.mean()) for value in values]
        spread = [float(value.std()) if len(value) > 1 else 0 for value in values]
        ax.errorbar(counts, means, spread, fmt="o-", color=colour, lw=2.5, capsize=3)
        ax.text(31, means[-1], name, color=show.ink(colour), va="center", fontsize=13)
    for name, points in paper.items():
        means, spreads = zip(*points.values())
        ax.errorbar(list(points), means, spreads, fmt="x", color=GREY, ms=9, mew=2.5, capsize=3)
        ax.text(14.3, means[0], f"paper, {name}", color=show.ink(GREY), ha="right", va="center", fontsize=12)
    ax.set(xlabel="training images of a class", ylabel="accuracy in %, mean over classes", xlim=(4, 46), ylim=(0, 100))
    ax.set_xticks([5, 10, 15, 30])
    return ax


def draw_layers(ax, layers: Mapping[str, torch.Tensor], *, name: str = "", colour: str = BLUE):
    """Accuracy layer by layer on a matplotlib Axes, a dot for each draw; `name`: its words in a legend."""
    means = [float(values.mean()) for values in layers.values()]
    ax.plot(range(len(layers)), means, "-", color=colour, lw=2.5, label=name or None)
    for place, values in enumerate(layers.values()):
        ax.plot([place] * len(values), values.tolist(), "o", color=colour, ms=4)
    if name:
        ax.legend(frameon=False, loc="upper left", fontsize=11)
    return ax


def draw_panels(axes, measured: Measured):
    """Table 7 on three matplotlib Axes: the paper's layers, those of squeezenet, those of zfnet56."""
    columns = {"the paper": {layer: torch.tensor([value]) for layer, value in PAPER_LAYERS.items()}}
    columns |= {network: measured.layers(network, layers) for network, layers in LAYERS.items()}
    for ax, (title, layers) in zip(axes, columns.items()):
        draw_layers(ax, layers, colour=COLOURS[title])
        ax.set_xticks(range(len(layers)), [layer.split()[0] for layer in layers])
        ax.set(title=title, xlabel="layer", ylim=(0, 100))
    axes[0].set_ylabel("accuracy in %, mean over classes")
    return axes


def draw_compared(axes, measured: Measured):
    """The same layers on other images and with other weights, on a matplotlib Axes for each network."""
    caltech, random = "Caltech-101, chance 1 %", "Caltech-101, random weights"
    small, own = "Caltech-101 at 56 pixels", "new images of Tiny ImageNet,\nits own 200 classes, chance 0.5 %"
    others = {
        "squeezenet": {"": caltech, " at 56 pixels": small, " untrained": random},
        "zfnet56": {"": caltech, " on Tiny ImageNet": own, " untrained": random},
    }
    for ax, (network, kinds) in zip(axes, others.items()):
        names = LAYERS[network]
        colours = COLOURS[network], COLOURS["other images"], COLOURS["random"]
        for (kind, words), colour in zip(kinds.items(), colours):
            own = names[:-1] if network + kind == "squeezenet untrained" else names
            draw_layers(ax, measured.layers(network + kind, own, FEW), name=words, colour=colour)
        ax.set_xticks(range(len(names)), [name.split()[0] for name in names])
        ax.set(title=network, xlabel="layer", ylim=(0, 100))
    axes[0].set_ylabel("accuracy in %, 10 training images of a class")
    return axes


def draw_in_place(axes, measured: Measured):
    """Trained and random layers in the place of fc6 and fc7, on two matplotlib Axes: Caltech-101 and Tiny ImageNet."""
    titles = "Caltech-101 (chance 1 %)", "its own 200 classes (chance 0.5 %)"
    for number, (ax, title) in enumerate(zip(axes, titles)):
        bars = {words: measured.accuracy(f"{names[number]} {FEW}") for words, names in IN_PLACE.items()}
        draw_bars(ax, bars)
        ax.set_title(title)
    return axes


def draw_bars(ax, bars: Mapping[str, torch.Tensor]):
    """Horizontal bars of (draws,) accuracies, named and with their numbers, the first one on top; zfnet56's colour.

    Bars with "random" in their names have the colour of random weights.
    """
    for number, (name, values) in enumerate(bars.items()):
        mean, spread = float(values.mean()), float(values.std()) if len(values) > 1 else 0
        colour = COLOURS["random" if "random" in name else "zfnet56"]
        ax.barh(-number, mean, xerr=spread, color=colour, height=0.7)
        ax.text(mean + spread + 1, -number, f"{mean:.1f}", va="center", fontsize=12)
    ax.set_yticks([-number for number in range(len(bars))], list(bars))
    ax.set(xlim=(0, 70), xlabel="accuracy in %, 10 training images of a class")
    return ax


# --- nearest neighbours ----------------------------------------------------------------------------------------------


def nearest(features: torch.Tensor, query: int, k: int) -> torch.Tensor:
    """(k,) numbers of the rows of (N,D) features that point most nearly where row `query` does, itself left out."""
    directions = torch.nn.functional.normalize(features, dim=1)
    cosines = directions @ directions[query]
    cosines[query] = -2  # below every cosine
    return cosines.topk(k).indices


def nearest_elsewhere(features: torch.Tensor, owners: torch.Tensor, query: int, k: int) -> torch.Tensor:
    """(k,) numbers of the nearest rows, at most one of each owner and none of the query's own.

    `owners` (N,): from which photograph each row comes; windows of the same one overlap, and would be found first.
    """
    found, seen = [], {int(owners[query])}
    for number in nearest(features, query, len(features) - 1).tolist():
        if int(owners[number]) not in seen:
            found.append(number)
            seen.add(int(owners[number]))
    return torch.tensor(found[:k])


def neighbour_sheet(pixels: torch.Tensor, owners: torch.Tensor, queries, spaces: Mapping[str, torch.Tensor]):
    """(H,W,3) uint8: a row for each query, itself and then what is nearest to it in each space, from other photographs.

    `pixels` (N,3,S,S) uint8; `spaces`: name -> (N,D) features.
    """
    tiles, captions = [], []
    for query in queries:
        found = {"this": query} | {name: int(nearest_elsewhere(x, owners, query, 1)[0]) for name, x in spaces.items()}
        tiles += [show.upscale(show.image_pixels(pixels[number]), 460, smooth=True) for number in found.values()]
        captions += ["we ask for this", *(f"nearest by {name}" for name in spaces)]
    return show.poster(tiles, captions, columns=1 + len(spaces))


def same_class(features: torch.Tensor, labels: torch.Tensor, k: int = 5) -> torch.Tensor:
    """(N,) the share of each row's k nearest ones that have its label."""
    shares = [(labels[nearest(features, query, k)] == labels[query]).float().mean() for query in range(len(features))]
    return torch.stack(shares)


# --- choosing a layer ------------------------------------------------------------------------------------------------


def validated(features: Mapping[str, torch.Tensor], labels: torch.Tensor, accuracy: Callable) -> torch.Tensor:
    """(L,) accuracy of each of L layers, (N,D) features of the same N images, on images it was not trained on.

    Images 0, 2, 4, … train, images 1, 3, 5, … test. `accuracy(train, known, test, wanted)`: features and labels of
    both halves.
    """
    scores = [accuracy(x[0::2], labels[0::2], x[1::2], labels[1::2]) for x in features.values()]
    return torch.tensor(scores)


def by_means(train: torch.Tensor, known: torch.Tensor, test: torch.Tensor, wanted: torch.Tensor) -> float:
    """Accuracy, mean over classes, of the simplest classifier: each class is the mean of its training images."""
    classes = known.unique()
    means = torch.stack([train[known == label].mean(dim=0) for label in classes])
    guesses = classes[torch.cdist(test, means).argmin(dim=1)]
    return float(torch.stack([(guesses == wanted)[wanted == label].float().mean() for label in wanted.unique()]).mean())


def tasks(world) -> dict[str, torch.Tensor]:
    """Three new tasks on rendered scenes, (N,) labels each: what it is, what lies behind it, which way it is turned."""
    return {"object": world.labels, "background": world.backgrounds, "turned": (world.pose[:, 3] > 0).long()}
