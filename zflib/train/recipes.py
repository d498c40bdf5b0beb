"""How a network is trained, as data: the paper's recipe and one for little compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Recipe:
    """What a training run needs to know; the defaults are the paper's (section 3), `weight_decay` is Krizhevsky's."""

    epochs: int = 70
    batch: int = 128
    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "plateau"  # "plateau": lr / 10 when validation stalls; "one-cycle": up, then down to 0
    warmup: float = 0.0  # the rising share of a one-cycle
    patience: int = 2  # epochs without progress that count as a plateau
    dropout: float = 0.5
    init_std: float = 1e-2
    linear_init: str = "normal"  # "normal": init_std; "he": torch's own scale
    batch_norm: bool = False  # while training; folded into the filters afterwards
    renormalise: float | None = 0.1  # RMS radius of the conv filters
    ring_limit: float | None = None  # most energy that a conv1 filter may hold at the highest frequencies, as a share
    per_pixel_mean: bool = True  # subtract the mean image; False: one mean per colour
    scale: float = 1.0  # inputs are (pixels - mean) / scale
    mirror: bool = True
    sizes: tuple[int, ...] = ()  # sides that crops are resized to, one for each equal part of the run; () as they are
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            needs, fits = _NEEDS[field.name]
            if not fits(value := getattr(self, field.name)):
                raise ValueError(f"recipe: {field.name} must be {needs}, got {value!r}")


def _whole(low: int, high: float = math.inf) -> Callable:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _real(low: float, high: float = math.inf) -> Callable:
    """Numbers from `low` on, below `high`."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value < high


_TINY = math.ulp(0.0)  # the least positive number
_COUNT, _POSITIVE = ("a whole number, at least 1", _whole(1)), ("a positive number", _real(_TINY))
_SHARE, _SWITCH = ("a number from 0 on, below 1", _real(0, 1)), ("True or False", lambda value: isinstance(value, bool))
_NEEDS = {  # field -> what it must be, and whether a value is that
    "epochs": _COUNT, "batch": _COUNT, "patience": _COUNT, "lr": _POSITIVE, "init_std": _POSITIVE, "scale": _POSITIVE,
    "momentum": _SHARE, "warmup": _SHARE, "dropout": _SHARE, "weight_decay": ("a number from 0 on", _real(0)),
    "nesterov": _SWITCH, "batch_norm": _SWITCH, "per_pixel_mean": _SWITCH, "mirror": _SWITCH,
    "schedule": ("'plateau' or 'one-cycle'", lambda value: value in ("plateau", "one-cycle")),
    "linear_init": ("'normal' or 'he'", lambda value: value in ("normal", "he")),
    "renormalise": ("a positive number or None", lambda value: value is None or _real(_TINY)(value)),
    "ring_limit": ("a share between 0 and 1, or None", lambda value: value is None or _real(_TINY, 1)(value)),
    "sizes": ("sides in pixels, (40, 48, 56) or ()", lambda v: isinstance(v, tuple | list) and all(map(_whole(1), v))),
    "seed": ("a whole number from 0 to 2**32 - 1", _whole(0, 2**32 - 1)),
}  # fmt: skip


RECIPES = {
    "paper": Recipe(),
    "modern": Recipe(
        epochs=12, lr=0.08, nesterov=True, schedule="one-cycle", warmup=0.15, dropout=0.3, linear_init="he",
        batch_norm=True, renormalise=None, ring_limit=0.12, per_pixel_mean=False, scale=60.0, sizes=(40, 48, 56),
    ),
    "scenes": Recipe(
        epochs=6, batch=64, lr=0.05, nesterov=True, schedule="one-cycle", warmup=0.15, dropout=0.1, linear_init="he",
        batch_norm=True, renormalise=None, ring_limit=0.12, per_pixel_mean=False, scale=60.0, mirror=False,
    ),
}  # fmt: skip


def initialise(net: nn.Module, recipe: Recipe) -> None:
    """Normal weights of standard deviation `init_std`, zero biases (section 3's "1e-2" and "0"); sets the dropout.

    With `linear_init` "he" linear layers begin at torch's own scale.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and recipe.linear_init == "normal"):
            nn.init.normal_(module.weight, std=recipe.init_std)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()  # drawn again, so that the seed decides, and not what was drawn before
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Dropout):
            module.p = recipe.dropout


@dataclass
class Progress:
    """Where a run stands: saved with every checkpoint, so that a killed run continues bit for bit."""

    epoch: int = 0
    step: int = 0
    lr: float = 0.0
    best: float = 0.0
    stalled: int = 0
    loss: float = 0.0


def learning_rate(recipe: Recipe, progress: Progress, steps_per_epoch: int) -> float:
    """The step's learning rate: constant between plateaus, or the one-cycle's cosine up and down."""
    if recipe.schedule == "plateau":
        return progress.lr
    done = (progress.epoch * steps_per_epoch + progress.step) / (recipe.epochs * steps_per_epoch)
    if done < recipe.warmup:
        return recipe.lr * (0.04 + 0.96 * done / recipe.warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (done - recipe.warmup) / (1 - recipe.warmup)))


def anneal(recipe: Recipe, progress: Progress, top1: float) -> None:
    """A tenth of the learning rate once validation has stalled for `patience` epochs: the paper did it by hand."""
    progress.stalled = 0 if top1 > progress.best else progress.stalled + 1
    progress.best = max(progress.best, top1)
    if progress.stalled >= recipe.patience:
        progress.lr, progress.stalled = progress.lr / 10, 0


def resized(inputs: torch.Tensor, recipe: Recipe, epoch: int) -> torch.Tensor:
    """(N,3,s,s): the crops at the epoch's size; small ones first are most of the learning for half of the work."""
    inputs = inputs.contiguous(memory_format=torch.channels_last)  # what convolutions are fastest with
    side = recipe.sizes[epoch * len(recipe.sizes) // recipe.epochs] if recipe.sizes else inputs.shape[-1]
    if side == inputs.shape[-1]:
        return inputs
    return F.interpolate(inputs, size=(side, side), mode="bilinear", antialias=True)
