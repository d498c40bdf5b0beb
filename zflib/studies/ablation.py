"""What each part of a network is worth (Table 3), and what crops and several networks add (Table 2), at our scale."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .. import _files
from ..models import Geometry, ZFNet
from ..models.zfnet import ALEXNET56, ZFNET56
from ..record.hooks import unchanged
from ..train.filters import fold
from ..train.recipes import RECIPES, Recipe
from ..train.run import train
from ..train.scoring import Images, scores


def thinned(geometry: Geometry, divisor: int) -> Geometry:
    """The same network with an integer fraction of the channels and of the fully connected units."""
    convs = tuple(replace(conv, channels=conv.channels // divisor) for conv in geometry.convs)
    return replace(geometry, convs=convs, hidden=tuple(width // divisor for width in geometry.hidden))


def without(geometry: Geometry, *layers: int) -> Geometry:
    """The network without these layers, numbered as in the paper: 1 to 5 convolutional, 6 and 7 fully connected."""
    convs = tuple(conv for i, conv in enumerate(geometry.convs, start=1) if i not in layers)
    hidden = tuple(width for i, width in enumerate(geometry.hidden, start=6) if i not in layers)
    return replace(geometry, convs=convs, hidden=hidden)


def widened(geometry: Geometry, *channels: int) -> Geometry:
    """The network with these numbers of channels in conv3, conv4 and conv5."""
    wide = (replace(conv, channels=count) for conv, count in zip(geometry.convs[2:], channels))
    return replace(geometry, convs=(*geometry.convs[:2], *wide))


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
FULL = thinned(ZFNET56, 4)  # 16-48-64-64-48 channels, fc 256
WIDE = widened(FULL, 88, 168, 96)  # the paper's 384-384-256 became 512-1024-512: the same ratios, in eights


@dataclass(frozen=True)
class Variant:
    """A row of the table: a network as a list of layers, how often it is trained, and the paper's errors for it.

    `paper` and `base`: per cent of training images, top-1; of validation images, top-1 and top-5. `base` is the whole
    network that the paper's row belongs to: it took layers out of Krizhevsky's, and widened its own.
    """

    name: str
    geometry: Geometry
    seeds: int
    paper: tuple[float, float, float]
    base: tuple[float, float, float]
    taken: tuple[int, ...] = ()  # the layers that are missing

    @property
    def widths(self) -> dict[str, int]:
        """Layer, with the number it has in the whole network -> channels or units; 0 where it was taken away."""
        left = iter([*(conv.channels for conv in self.geometry.convs), *self.geometry.hidden])
        return {name: 0 if i in self.taken else next(left) for i, name in enumerate(LAYERS, start=1)}


KRIZHEVSKY, OWN = (35.1, 40.5, 18.1), (33.1, 38.4, 16.5)

#: In the paper's order.
VARIANTS = {variant.name: variant for variant in (
    Variant("full", FULL, 3, OWN, OWN),
    Variant("without conv3, conv4", without(FULL, 3, 4), 3, (41.8, 45.4, 22.1), KRIZHEVSKY, (3, 4)),
    Variant("without fc7", without(FULL, 7), 3, (27.4, 40.0, 18.4), KRIZHEVSKY, (7,)),
    Variant("without fc6, fc7", without(FULL, 6, 7), 3, (27.4, 44.8, 22.4), KRIZHEVSKY, (6, 7)),
    Variant("without all four", without(FULL, 3, 4, 6, 7), 3, (71.1, 71.3, 50.1), KRIZHEVSKY, (3, 4, 6, 7)),
    Variant("fc halved", replace(FULL, hidden=(128, 128)), 2, (38.2, 40.2, 17.6), OWN),
    Variant("fc doubled", replace(FULL, hidden=(512, 512)), 2, (22.0, 38.8, 17.0), OWN),
    Variant("wider conv3 to conv5", WIDE, 2, (18.8, 37.5, 16.0), OWN),
    Variant("wider and fc doubled", replace(WIDE, hidden=(512, 512)), 2, (10.0, 38.3, 16.9), OWN),
    Variant("alexnet", thinned(ALEXNET56, 4), 3, KRIZHEVSKY, OWN),
)}  # fmt: skip

#: The five networks that the paper's message rests on.
FIVE = list(VARIANTS)[:5]

#: One budget for all variants of a table: "short" is a quarter of the epochs of the course's modern recipe, "long" all
#: of them; "no dropout" is the control for what dropout costs a thin network that is trained for a short time.
BUDGETS = {
    "short": replace(RECIPES["modern"], epochs=3),
    "no dropout": replace(RECIPES["modern"], epochs=3, dropout=0.0),
    "long": RECIPES["modern"],
}


def runs(names: Sequence[str] = tuple(VARIANTS)) -> Iterator[tuple[Variant, int]]:
    """Every (variant, seed), the first seed of all before the second: a table that is stopped early is whole."""
    chosen = [VARIANTS[name] for name in names]
    for seed in range(max(variant.seeds for variant in chosen)):
        yield from ((variant, seed) for variant in chosen if seed < variant.seeds)


def folder(work: Path, variant: Variant, seed: int, budget: str = "short") -> Path:
    """Where a run keeps its files."""
    return work / budget.replace(" ", "-") / f"{variant.name.replace(', ', '+').replace(' ', '-')}-{seed}"


def run(variant: Variant, seed: int, training: Images, validation: Images, place: Path, *, recipe: Recipe) -> dict:
    """Train a variant, or go on with a run that was stopped, and measure it: its row of the table.

    `place` is the folder of this run; it gets the checkpoint, the log and the votes (see `vote`).
    """
    recipe = replace(recipe, seed=seed)
    done = place / "row.json"
    if done.exists():
        return json.loads(done.read_text())
    net = ZFNet(int(training.labels.max()) + 1, geometry=variant.geometry, batch_norm=recipe.batch_norm)
    curve = _curve(place)
    train(net, training, validation, recipe, place, report=curve.append)
    row = {"variant": variant.name, "seed": seed} | _measured(fold(net), place, training, validation)
    row["seconds"] = round(sum(len(training) / line["images_per_second"] for line in curve))
    row["curve"] = [{key: line[key] for key in ("epoch", "loss", "top1", "top5")} for line in curve]
    _files.write_atomically(done, json.dumps(row).encode())
    return row


def _curve(place: Path) -> list[dict]:
    """The epochs that a stopped run has behind it."""
    log = place / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _measured(net: ZFNet, place: Path, training: Images, validation: Images) -> dict:
    """Errors of a trained network, and its size; `place` keeps its votes for `together`."""
    votes = {name: vote(net, validation, ten_crop=name == "ten-crop") for name in ("centre crop", "ten-crop")}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: found.half().numpy() for name, found in votes.items()})
    _files.write_atomically(place / "votes.npz", buffer.getvalue())
    seen = Images(training.pixels[::10], training.labels[::10], training.crop)
    return {
        "train": errors(vote(net, seen), seen.labels),
        "validation": errors(votes["centre crop"], validation.labels),
        "ten-crop": errors(votes["ten-crop"], validation.labels),
        "parameters": sum(p.numel() for p in net.parameters()),
        "multiply_adds": sum(cost for _, cost in costs(net.geometry, net.num_classes).values()),
    }  # fmt: skip


def vote(net: ZFNet, images: Images, *, ten_crop: bool = False) -> torch.Tensor:
    """(N,classes) probabilities for a labelled set: of the centre crop, or the mean over ten crops."""
    parts = []
    with unchanged(net), torch.no_grad():
        for start in range(0, len(images), 100):
            pixels = torch.from_numpy(np.array(images.pixels[start : start + 100]))
            parts.append(scores(net, pixels.to(net.mean.device), ten_crop=ten_crop).cpu())
    return torch.cat(parts)


def errors(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Top-1 and top-5 error in per cent, as the paper's tables count."""
    right = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices == labels[:, None]
    return {"top1": round(100 - 100 * float(right[:, 0].float().mean()), 2),
            "top5": round(100 - 100 * float(right.any(dim=1).float().mean()), 2)}  # fmt: skip


def together(folders: Sequence[Path], labels: torch.Tensor) -> dict[str, dict[str, float]]:
    """Errors when several networks vote with the mean of their probabilities (Table 2), one crop and ten."""
    votes = [np.load(folder / "votes.npz") for folder in folders]
    return {name: errors(torch.from_numpy(np.mean([np.float32(vote[name]) for vote in votes], axis=0)), labels)
            for name in ("centre crop", "ten-crop")}  # fmt: skip


# --- what was found ---------------------------------------------------------------------------------------------------


def table() -> dict:
    """The shipped ablation: "rows", a dict for every run, and "votes", what the seeds of a variant get together."""
    return json.loads((_files.SHIPPED / "ablation.json").read_text(encoding="utf-8"))


def found(card: dict, part: str = "validation", top: str = "top1", *, budget: str = "short") -> dict[str, list[float]]:
    """Variant -> errors of its runs in per cent, a number for each seed."""
    rows = [row for row in card["rows"] if row["budget"] == budget]
    return {name: [row[part][top] for row in rows if row["variant"] == name] for name in VARIANTS}


def spread(card: dict, budget: str = "short") -> float:
    """How far apart two seeds of one variant lie: the standard deviation within variants, in points of top-1 error."""
    several = [np.array(errors) for errors in found(card, budget=budget).values() if len(errors) > 1]
    squares = sum(((errors - errors.mean()) ** 2).sum() for errors in several)
    return float(np.sqrt(squares / max(1, sum(len(errors) - 1 for errors in several))))


def mean_errors(card: dict, budget: str = "short") -> dict[str, float]:
    """The five networks -> mean top-1 validation error in per cent; those alone that were trained on this budget."""
    errors = found(card, budget=budget)
    return {name: float(np.mean(errors[name])) for name in FIVE if errors[name]}


def paper_errors() -> dict[str, float]:
    """The five networks -> the paper's top-1 validation error; it took all four layers out of Krizhevsky's network."""
    return {name: KRIZHEVSKY[1] if name == "full" else VARIANTS[name].paper[1] for name in FIVE}


def costs(geometry: Geometry, classes: int = 1000) -> dict[str, tuple[int, int]]:
    """Layer -> (weights, multiplications with an addition in one forward pass)."""
    with torch.device("meta"):  # shapes only: no memory for 60 million weights
        net = ZFNet(classes, geometry=geometry)
    sides, weights = iter(net.map_sizes()), {}
    for name, conv in zip(net.conv_names, geometry.convs):
        count = net.get_submodule(name).weight.numel()
        weights[name] = (count, count * next(sides) ** 2)
        if conv.pool:
            next(sides)
    fully = {name: layer.weight.numel() for name, layer in net.named_children() if name.startswith("fc")}
    return weights | {name: (count, count) for name, count in fully.items()}


# --- a race that one can watch ---------------------------------------------------------------------------------------


def race(geometry: Geometry, training: Images, unseen: Images, recipe: Recipe) -> float:
    """Per cent of `unseen` that a network of this shape gets wrong, trained anew as `recipe` says."""
    net = ZFNet(int(training.labels.max()) + 1, geometry=geometry, batch_norm=recipe.batch_norm)
    few = Images(unseen.pixels[:20], unseen.labels[:20], unseen.crop)  # `train` looks after every pass, we at the end
    with tempfile.TemporaryDirectory() as place:
        train(net, training, few, recipe, Path(place), report=lambda row: None)
    return errors(vote(net, unseen), unseen.labels)["top1"]
