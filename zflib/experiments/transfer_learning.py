"""Section 5.2: how far the features of a trained network carry in another task, layer by layer."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from .._arguments import check_finite, check_integer, check_integers, check_seed, layer_path, shape_or_type
from ..data.image_source import ImageStream, NumberedImages, in_units, open_source
from ..record.hooks import check_layers, listening
from ..record.inputs import check_images

__all__ = ["average_precision", "features", "linear_accuracy", "split_classes", "transfer"]

GRID = 2  # cells along each side over which maps are averaged
SHRINK = 0.3  # of the ridge: the penalty for large weights, for each feature


def transfer(net: nn.Module, images, labels, *, layers, per_class: int, draws: int = 5, seed: int = 0,
             grid: int = GRID, most: int = 50) -> dict[str, torch.Tensor]:  # fmt: skip
    """dict layer -> (draws,) accuracies, 0 to 1, of a linear classifier on the layer's features. Section 5.2, Table 7.

    The network stays as it is. Each image passes it once: see `features` for `images`, `layers` and `grid`. In each
    draw, `per_class` images of every class train a linear classifier on standardised features, and at most `most` of
    the others, the paper's 50, test it; accuracy is the mean over the classes. `labels`: (N,) integers. See
    `linear_accuracy`, which does this with features that you have. Bad input: ValueError or TypeError.
    """
    layers, source = check_layers(net, layers), open_source(net, images)
    labels = _check_labels(labels, source.count)
    split_classes(labels, per_class, seed=seed, most=most)  # before the network's long work
    _check_draws(draws)
    found = _features(net, source, layers, grid)
    test = partial(linear_accuracy, labels=labels, per_class=per_class, draws=draws, seed=seed, most=most)
    return {layer: test(found[layer]) for layer in layers}


def features(net: nn.Module, images, *, layers, grid: int = GRID) -> dict[str, torch.Tensor]:
    """dict layer -> (N,D) float32 on the CPU: what the layers give for N images, in one forward pass.

    Maps (C,h,w) are averaged over `grid` x `grid` cells, or over h x w where they are smaller, and D = C * grid * grid,
    channel by channel; units of a fully connected layer are taken as they are. A layer means what it means everywhere
    here. `images`: whatever `find_peaks` takes, paths among them; where reading is slow, other processes do it. An
    image that cannot be read is a ValueError with its path.
    """
    return _features(net, open_source(net, images), check_layers(net, layers), grid)


BATCH = 32  # images in a forward pass


def _features(net: nn.Module, source: NumberedImages | ImageStream, layers: list, grid: int) -> dict:
    grid = check_integer("grid", grid, "a whole number of cells, at least 1", low=1)
    parts: dict[str, list] = {layer: [] for layer in layers}

    def keep(layer: str, out) -> None:
        parts[layer].append(_averaged(layer, out, grid))

    callbacks = {layer_path(net, layer): partial(keep, layer) for layer in layers}
    bar = tqdm(desc="features", total=source.count, unit="image", disable=None, leave=False)
    with bar, listening(net, callbacks) as forward:
        for batch in source.batches(BATCH):
            if batch.skipped:
                raise ValueError(f"images: {batch.skipped[0].reason}")
            forward(check_images(in_units(net, batch.images), net).clone())  # some networks write into their input
            bar.update(batch.size)
    if not parts[layers[0]]:
        raise ValueError("images: empty; give at least one image")
    return {layer: torch.cat(found) for layer, found in parts.items()}


def _averaged(layer: str, out, grid: int) -> torch.Tensor:
    """(B,D) of (B,C,h,w) maps or (B,D) units; ValueError for anything else, and for NaN."""
    if not isinstance(out, torch.Tensor) or out.dim() not in (2, 4) or not out.is_floating_point():
        raise ValueError(f"layer {layer!r} gives {shape_or_type(out)}; features are maps (N,C,h,w) or units (N,D)")
    check_finite(out, f"layer {layer!r}")
    if out.dim() == 4:
        out = F.adaptive_avg_pool2d(out, [min(grid, side) for side in out.shape[2:]])
    return out.flatten(1).float().cpu().clone()


def split_classes(labels: torch.Tensor, per_class: int, *, seed: int = 0, most: int = 50) -> tuple:
    """(train, test) indices into (N,) labels: `per_class` of every class, and at most `most` of its others.

    The same seed with a larger `per_class` keeps the images that it had and adds to them. A class with no image left
    to test on is a ValueError.
    """
    labels = _check_labels(labels)
    per_class = check_integer("per_class", per_class, "a whole number of images, at least 1", low=1)
    most = check_integer("most", most, "a whole number of images, at least 1", low=1)
    generator = torch.Generator().manual_seed(check_seed(seed))
    train, test = [], []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        if len(own) <= per_class:
            raise ValueError(f"per_class: class {label} has {len(own)} images, {per_class} for training leave none to "
                             f"test on; use at most {len(own) - 1}")  # fmt: skip
        own = own[torch.randperm(len(own), generator=generator)]
        train.append(own[:per_class])
        test.append(own[per_class:].flip(0)[:most])
    if len(train) < 2:
        raise ValueError(f"labels must have at least two classes, got {len(train)}")
    return torch.cat(train), torch.cat(test)


def linear_accuracy(features: torch.Tensor, labels: torch.Tensor, *, per_class: int, draws: int = 5, seed: int = 0,
                    most: int = 50) -> torch.Tensor:  # fmt: skip
    """(draws,) accuracies of scikit-learn's RidgeClassifier on (N,D) features, as `transfer` counts them.

    Draw number i is that of `split_classes` with the seed `seed` + i; each feature is brought to mean 0 and spread 1
    over the training images. (The ridge is a support vector machine with squared errors: as good as LinearSVC here,
    and a hundred times faster.)
    """
    if not isinstance(features, torch.Tensor) or features.dim() != 2 or not features.is_floating_point():
        raise TypeError(f"features must be a float tensor (N,D), got {shape_or_type(features)}")
    check_finite(features, "features")
    labels = _check_labels(labels, len(features))
    found = []
    for draw in range(_check_draws(draws)):
        train, test = split_classes(labels, per_class, seed=seed + draw, most=most)
        guesses = fit_linear(features[train], labels[train]).predict(features[test].numpy())
        found.append(mean_over_classes(torch.from_numpy(guesses), labels[test]))
    return torch.tensor(found)


def mean_over_classes(guesses: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of right ones among (N,) guesses, class by class, and of these the mean: rare classes count as much."""
    right = guesses == labels
    return float(torch.stack([right[labels == label].double().mean() for label in labels.unique()]).mean())


def fit_linear(features: torch.Tensor, labels: torch.Tensor):
    """scikit-learn's pipeline, fitted to (N,D) features and (N,) labels: standardise, then one ridge for each class."""
    from sklearn.linear_model import RidgeClassifier  # here: `import zflib` stays quick
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge = RidgeClassifier(SHRINK * features.shape[1])
    return make_pipeline(StandardScaler(), ridge).fit(features.numpy(), labels.numpy())


def average_precision(train: torch.Tensor, known: torch.Tensor, test: torch.Tensor, wanted: torch.Tensor):
    """(K,) average precision of each of K classes, several of which an image may show: its mean is Table 6's number.

    `train` (N,D) and `test` (M,D) are features, `known` (N,K) and `wanted` (M,K) their labels as `data.pascal` gives
    them: 1 shown, -1 not shown, 0 does not count. A class that is never shown, or always, is NaN.
    """
    from sklearn.metrics import average_precision_score

    found = []
    for column in range(known.shape[1]):
        seen, asked = known[:, column] != 0, wanted[:, column] != 0
        if len(known[seen, column].unique()) < 2 or not bool((wanted[asked, column] == 1).any()):
            found.append(torch.nan)
            continue
        scores = fit_linear(train[seen], known[seen, column]).decision_function(test[asked].numpy())
        found.append(float(average_precision_score((wanted[asked, column] == 1).numpy(), scores)))
    return torch.tensor(found)


def _check_labels(labels, count: int | None = None) -> torch.Tensor:
    """(N,) int64 on the CPU, one for each of `count` images."""
    if isinstance(labels, list | tuple | np.ndarray) and any(isinstance(label, str) for label in labels):
        raise TypeError("labels must be integers (N,), got names; number them: names = sorted(set(labels)), "
                        "labels = [names.index(label) for label in labels]")  # fmt: skip
    wanted = check_integers("labels", labels, "integers (N,), one for each image").cpu()
    if wanted.dim() != 1 or (count is not None and len(wanted) != count):
        images = "each image" if count is None else f"each of the {count} images"
        raise ValueError(f"labels must be (N,), one for {images}, got shape {tuple(wanted.shape)}")
    return wanted


def _check_draws(draws) -> int:
    return check_integer("draws", draws, "a whole number of draws, at least 1", low=1)
