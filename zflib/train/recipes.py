"""How a network is trained, as data: the paper's recipe and three for little compute."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import nn

from .._arguments import check_choice


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
    least_area: float | None = None  # square crops from this share of the image's area up; None: all as the net's crop
    label_smoothing: float = 0.0  # the share of each label that is spread over all classes
    sizes: tuple[int, ...] = ()  # sides that crops are resized to, one for each equal part of the run; () the net's
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("recipe: schedule", self.schedule, ("plateau", "one-cycle"))
        check_choice("recipe: linear_init", self.linear_init, ("normal", "he"))
        if self.epochs < 1:
            raise ValueError(f"recipe: epochs must be at least 1, got {self.epochs}")


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
#: "modern" for twice as long: objects appear at many scales and labels are softened, so that it does not overfit.
RECIPES["scale-jitter"] = replace(RECIPES["modern"], epochs=24, least_area=0.5, label_smoothing=0.1)


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


def input_side(recipe: Recipe, epoch: int, crop: int) -> int:
    """The side that crops are resized to; small ones first are most of the learning for half of the work."""
    return recipe.sizes[epoch * len(recipe.sizes) // recipe.epochs] if recipe.sizes else crop
