"""Tables 4 and 7 and Figure 9 on Caltech-101, as data: features of two networks and a linear classifier on each.

python -m data.make.transfer --data caltech-101 --work runs/transfer --out data/transfer.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from zflib import data, models
from zflib._arguments import one_sentence
from zflib._files import write_atomically
from zflib.experiments.transfer_learning import features, linear_accuracy
from zflib.train import checkpoints


class Results:
    """The rows of a .json, by name; each is written as soon as it is known, so that a killed run continues."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, dict]:
        return json.loads(self.path.read_text(encoding="utf-8"))["rows"] if self.path.exists() else {}

    def wanted(self, known: Iterable[str], named: list[str]) -> list[str]:
        """The rows that were named, which are run again, or all that are missing."""
        known, there = list(known), self.read()
        if wrong := [name for name in named if name not in known]:
            raise ValueError(f"rows: {wrong[0]!r} is none of {', '.join(known)}")
        return named or [name for name in known if name not in there]

    def add(self, name: str, *, command: str, **found) -> None:
        """Write one row and print it; rows of another command that were added meanwhile stay."""
        from filelock import FileLock

        with FileLock(f"{self.path}.lock"):
            rows = self.read() | {name: found | {"command": f"python -m {command} '{name}'"}}
            content = {"data": "Caltech-101, its first 60 images of each class at most: 5,293", "rows": rows}
            write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())
        print(f"{name}: {', '.join(f'{100 * value:.1f}' for value in found['accuracy'])}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What both commands ask for."""
    parser.add_argument("--data", required=True, help="the folder of Caltech-101")
    parser.add_argument("--work", type=Path, required=True, help="a folder for features and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the .json to write, or to complete")


def pixels_of(root: str, work: Path, *, most: int = 60) -> tuple[np.ndarray, torch.Tensor]:
    """(N,3,64,64) uint8 and (N,) labels of Caltech-101, at most `most` images of a class; decoded once."""
    paths, labels = few_of_each(root, most)
    cache = work / "pixels.npy"
    if not cache.exists():
        work.mkdir(parents=True, exist_ok=True)
        np.save(part := cache.with_name("part.npy"), data.stack(paths, 64).numpy())
        part.replace(cache)
    return np.load(cache), labels


def few_of_each(root: str, most: int) -> tuple[list[Path], torch.Tensor]:
    """Paths and labels of Caltech-101's first `most` images of each class."""
    paths, labels, _ = data.caltech101(root)
    kept = first_of_each(labels, most)
    return [paths[i] for i in kept.tolist()], labels[kept]


# --- features: what a row's classifier sees --------------------------------------------------------------------------

ZFNET = ("conv1", "conv2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")
SQUEEZENET = ("conv1", "fire3", "fire5", "fire7", "fire9", "conv10")
FIRES = SQUEEZENET[:-1]
CURVE = (5, 10, 15, 30)
#: Where networks are compared, and not numbers with the paper's: the first 15 images of each class, of which 10 train.
FEW, LEARNT = 15, 10
UNTRAINED = "zfnet56 untrained on all images"  # random weights beside the curve of trained ones
WHOLE = "zfnet56", "squeezenet", UNTRAINED


class Features:
    """Features by (network, layer), computed once and kept in the folder `work`.

    Of all images for the networks of WHOLE; of the first FEW of each class for networks that are only compared.
    """

    def __init__(self, root: str, tiny: str | None, work: Path):
        self.root, self.tiny, self.work, self.known = root, tiny, work, {}
        self.pixels, self.labels = pixels_of(root, work)

    def of(self, network: str, layer: str) -> torch.Tensor:
        """(N,D) float32."""
        if network not in self.known:
            path = self.work / f"{network.replace(' ', '-')}.pt"
            if not path.exists():
                write_half(self.computed(network), path)
            self.known = {network: torch.load(path, weights_only=True, mmap=True)}  # one network at a time in memory
        return self.known[network][layer].float()

    def computed(self, network: str) -> dict[str, torch.Tensor]:
        """All layers of a network, over a grid of 2 x 2; "whole" networks keep all positions of their maps."""
        chosen = slice(None) if network in WHOLE else first_of_each(self.labels, FEW).numpy()
        small = torch.from_numpy(self.pixels[chosen])
        if network.endswith("at 56 pixels"):
            return features(prepared(network), Enlarged(self.pixels[chosen]), layers=SQUEEZENET)
        if network.startswith("squeezenet"):
            paths = few_of_each(self.root, 60 if network == "squeezenet" else FEW)[0]
            return features(prepared(network), paths, layers=SQUEEZENET)
        if network == "zfnet56 whole on Tiny ImageNet":
            return features(prepared(network), self.tiny_images(), layers=["pool5", "fc6"], grid=7)
        if network == "zfnet56 whole":
            net = prepared("zfnet56")
            found = features(net, small, layers=["conv3", "pool5", net.fc6, net.fc7], grid=7)
            return dict(zip(("conv3", "pool5", "fc6 before its ReLU", "fc7 before its ReLU"), found.values()))
        if network == "zfnet56 on Tiny ImageNet":
            return features(prepared(network), self.tiny_images(), layers=ZFNET)
        if network == UNTRAINED:
            return features(prepared(network), small, layers=["conv3"])
        return features(prepared(network), small, layers=ZFNET)

    def tiny_images(self) -> np.ndarray:
        """The first FEW of each class of Tiny ImageNet's images that zfnet56 was not trained on."""
        pixels, labels, _ = data.tiny_imagenet(self.tiny, "val")
        return pixels[first_of_each(labels, FEW).numpy()]

    def labels_of(self, row: Row) -> torch.Tensor:
        """(N,) labels of the images that a row looks at."""
        labels = self.labels
        if row.network.endswith("Tiny ImageNet"):
            labels = data.tiny_imagenet(self.tiny, "val")[1]
        return labels[first_of_each(labels, row.most)]


def first_of_each(labels: torch.Tensor, most: int) -> torch.Tensor:
    """The numbers of the first `most` images of each class, class by class."""
    return torch.cat([(labels == label).nonzero().flatten()[:most] for label in labels.unique()])


class Enlarged(torch.utils.data.Dataset):
    """(N,3,64,64) pixels, one by one, at four times the size: what zfnet56 sees, for a network that takes more."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> torch.Tensor:
        small = torch.from_numpy(self.pixels[number])[None].float()
        return F.interpolate(small, scale_factor=4, mode="bilinear")[0].round().clamp(0, 255).byte()


def prepared(network: str) -> nn.Module:
    """The network that a name begins with; "untrained": weights of its size at random, seed 0 (He 2015)."""
    net = models.load(network.split()[0]).to(memory_format=torch.channels_last)  # faster on a CPU
    if "untrained" in network:
        torch.manual_seed(0)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
    return net


def write_half(found: dict[str, torch.Tensor], path: Path) -> None:
    """Half precision, each feature first divided by the layer's largest value; whole or not at all."""
    halves = {layer: (values / values.abs().max().clamp(min=1e-12)).half() for layer, values in found.items()}
    checkpoints.save_atomically(halves, path)


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One number with its draws: a network's layer, changed by a function of ours, and how many images a class."""

    network: str
    layer: str
    per_class: int = 30
    change: str = ""
    most: int = 60  # images of a class that are looked at

    @property
    def name(self) -> str:
        few = f"of {self.most}" if self.most != 60 else ""
        return " ".join(filter(None, (self.network, self.layer, self.change, str(self.per_class), few)))


def random_units(found: torch.Tensor, width: int = 1024) -> torch.Tensor:
    """(N,width): what a fully connected layer with random weights and a ReLU makes of (N,D) features."""
    weights = torch.randn(found.shape[1], width, generator=torch.Generator().manual_seed(0))
    return (found @ weights).relu()


def two_random_layers(found: torch.Tensor, width: int = 1024) -> torch.Tensor:
    """(N,width): two such layers, one after the other, as large as fc6 and fc7."""
    first = random_units(found, width)
    weights = torch.randn(width, width, generator=torch.Generator().manual_seed(1))
    return (first @ weights).relu()


def projected(found: torch.Tensor, width: int = 200) -> torch.Tensor:
    """(N,width) random directions of (N,D) features."""
    weights = torch.randn(found.shape[1], width, generator=torch.Generator().manual_seed(0))
    return (found - found.mean(dim=0)) @ weights


def principal(found: torch.Tensor, width: int = 200) -> torch.Tensor:
    """(N,width): the first principal components of (N,D) features, over all images, without labels."""
    centred = found - found.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, -width:]


def pooled(found: torch.Tensor, grid: int) -> torch.Tensor:
    """Maps of 7 x 7, averaged over grid x grid cells."""
    return F.adaptive_avg_pool2d(found.unflatten(1, (-1, 7, 7)), grid).flatten(1)


def averaged(found: torch.Tensor) -> torch.Tensor:
    """Maps of 2 x 2, averaged: of conv10 these are the scores of the classes."""
    return found.unflatten(1, (-1, 4)).mean(dim=2)


def some_classes(found: torch.Tensor, count: int = 200) -> torch.Tensor:
    """The scores of `count` classes that are drawn at random."""
    return averaged(found)[:, torch.randperm(found.shape[1] // 4, generator=torch.Generator().manual_seed(0))[:count]]


CHANGES = {
    "random units": random_units, "two random layers": two_random_layers, "projected to 200": projected,
    "principal 200": principal, "averaged": averaged, "averaged, 200 classes": some_classes,
    "grid 1": partial(pooled, grid=1), "grid 3": partial(pooled, grid=3),
}  # fmt: skip


def rows() -> list[Row]:
    """All rows, in the order in which they are measured: those of one network together."""
    found = [Row("zfnet56", "conv3", n) for n in CURVE] + [Row("zfnet56", layer) for layer in ZFNET]
    found += [Row("zfnet56", layer, n) for layer in ("conv5", "fc7") for n in CURVE[:-1]]
    found += [Row("zfnet56", "conv3", change=change) for change in ("projected to 200", "principal 200")]
    found += [Row("squeezenet", "fire9", n) for n in CURVE] + [Row("squeezenet", layer) for layer in FIRES]
    found += [Row("squeezenet", "conv10", change=change) for change in ("averaged", "averaged, 200 classes")]
    found += [few("zfnet56", layer) for layer in ZFNET] + [few("squeezenet", layer) for layer in FIRES]
    found += [few("zfnet56", "conv3", change) for change in ("projected to 200", "principal 200")]
    found += [few("squeezenet", "conv10", "averaged")]
    found += [few("zfnet56 whole", "conv3", f"grid {grid}") for grid in (1, 3)]
    found += [few("zfnet56 whole", f"fc{number} before its ReLU") for number in (6, 7)]
    found += [few("zfnet56 whole", "pool5"), few("zfnet56 whole", "pool5", "random units")]
    found += [few("zfnet56 whole", "pool5", "two random layers"), few("zfnet56", "fc6", "random units")]
    found += [few("squeezenet at 56 pixels", layer) for layer in FIRES]
    found += [few("squeezenet at 56 pixels", "conv10", "averaged")]
    found += [few("zfnet56 on Tiny ImageNet", layer) for layer in ZFNET]
    tiny = "zfnet56 whole on Tiny ImageNet"
    found += [few(tiny, "pool5", change) for change in ("", "random units", "two random layers")]
    found += [few(tiny, "fc6", "random units")]
    found += [few("zfnet56 untrained", layer) for layer in ZFNET]
    found += [few("squeezenet untrained", layer) for layer in FIRES]
    found += [Row(UNTRAINED, "conv3", n) for n in CURVE]
    return list(dict.fromkeys(found))


def few(network: str, layer: str, change: str = "") -> Row:
    """A row that is compared with others of its kind."""
    return Row(network, layer, LEARNT, change, FEW)


def measure(row: Row, known: Features, draws: int) -> tuple[list[float], int]:
    """The accuracies, and how many features there were."""
    found, labels = known.of(row.network, row.layer), known.labels_of(row)
    if len(found) > len(labels):  # features of all images
        found = found[first_of_each(known.labels, row.most)]
    if row.change:
        found = CHANGES[row.change](found)
    accuracy = linear_accuracy(found, labels, per_class=row.per_class, draws=draws)
    return [round(value, 5) for value in accuracy.tolist()], found.shape[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", help="which rows, by name; all that are missing, if none is named")
    add_arguments(parser)
    parser.add_argument("--tiny", help="the folder of Tiny ImageNet-200, for the rows on it")
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args(arguments)
    with one_sentence("data.make.transfer"):
        results, known = Results(options.out), Features(options.data, options.tiny, options.work)
        named = {row.name: row for row in rows()}
        for name in results.wanted(named, options.rows):
            began, row = time.monotonic(), named[name]
            accuracy, dimensions = measure(row, known, options.draws)
            results.add(name, command="data.make.transfer", accuracy=accuracy, **asdict(row), features=dimensions,
                        seed=0, seconds=round(time.monotonic() - began))  # fmt: skip


if __name__ == "__main__":
    main()
