"""The steps of a training run, one process or many, and what each needs to be taken again after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from .. import models
from ..record.hooks import LOCK
from . import checkpoints, distributed
from .filters import limit_ring, renormalise
from .recipes import Progress, Recipe, initialise, input_side, learning_rate
from .scoring import Images, cut

SAVE_EVERY = 240.0  # seconds between two checkpoints within an epoch


def epoch_plan(images: Images, recipe: Recipe, epoch: int) -> tuple[torch.Tensor, ...]:
    """(order, sides, corners, mirrored) of an epoch's crops, a function of seed and epoch alone, so it can be resumed.

    With `least_area` the areas of the square crops are spread evenly from that share of the image's area up to all.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    n, whole = len(images), images.pixels.shape[-1]
    order = torch.randperm(n, generator=generator)
    if recipe.least_area is None:
        sides = torch.full((n,), images.crop)
        corners = torch.randint(0, whole - images.crop + 1, (n, 2), generator=generator)
    else:
        areas = recipe.least_area + (1 - recipe.least_area) * torch.rand(n, generator=generator)
        sides = (whole * areas.sqrt()).round().long()
        corners = (torch.rand(n, 2, generator=generator) * (whole - sides + 1)[:, None]).long()
    mirrored = torch.rand(n, generator=generator) < (0.5 if recipe.mirror else 0.0)
    return order, sides, corners, mirrored


def resized(crops: torch.Tensor, side: int) -> torch.Tensor:
    """(N,3,side,side): the crops resized, smoothed before they shrink; as they are if that is their size."""
    if side == crops.shape[-1]:
        return crops
    return F.interpolate(crops, size=(side, side), mode="bilinear", antialias=True)


def prepare(net: models.ZFNet, images: Images, recipe: Recipe) -> None:
    """Untrained weights, the mean of the training images, their scale, and pools for every size of crop."""
    torch.manual_seed(recipe.seed)
    initialise(net, recipe)
    parts = (images.pixels[start : start + 500] for start in range(0, len(images), 500))  # not all at once in memory
    mean = torch.from_numpy(sum(part.sum(0, dtype=np.float64) for part in parts) / len(images)).to(net.mean)
    net.mean = mean if recipe.per_pixel_mean else mean.mean(dim=(1, 2), keepdim=True)
    net.scale.fill_(recipe.scale)
    last = f"pool{len(net.geometry.convs)}"
    if recipe.sizes:  # the pool's own windows at the crop's own size; smaller maps fit the layer above all the same
        setattr(net, last, nn.AdaptiveMaxPool2d(net.map_sizes()[-1]))


@dataclass
class Run:
    """A training run: what `train` drives, step by step."""

    net: models.ZFNet
    images: Images
    recipe: Recipe
    out: Path

    def __post_init__(self) -> None:
        device, recipe = self.net.mean.device, self.recipe
        self.net.to(memory_format=torch.channels_last)
        self.model = distributed.shared(self.net)
        matrices = [p for p in self.net.parameters() if p.dim() > 1]
        vectors = [p for p in self.net.parameters() if p.dim() == 1]  # biases and gains are not decayed
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
        self.half = torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda")
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self.parts = {"net": self.net, "optimiser": self.optimiser, "scaler": self.scaler}
        self.progress = Progress(lr=recipe.lr)

    @property
    def steps(self) -> int:
        return len(self.images) // self.recipe.batch

    def save(self) -> None:
        if distributed.rank() == 0:
            checkpoints.save(self.out, self.parts, self.recipe, self.progress)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(inputs, labels) of every step that is left of the epoch: this process' rows of each batch."""
        recipe, device, mine = self.recipe, self.net.mean.device, distributed.share(self.recipe.batch)
        plan = epoch_plan(self.images, recipe, self.progress.epoch)
        side = input_side(recipe, self.progress.epoch, self.images.crop)
        for step in range(self.progress.step, self.steps):
            order, sides, corners, mirrored = (part[step * recipe.batch :][mine] for part in plan)
            inputs = torch.empty(len(order), 3, side, side, device=device)
            inputs = inputs.contiguous(memory_format=torch.channels_last)  # what convolutions are fastest with
            for crop in sides.unique().tolist():  # crops of one size are resized together
                rows = sides == crop
                inputs[rows] = resized(self._crops(order[rows], corners[rows], mirrored[rows], crop), side)
            yield inputs, self.images.labels[order].to(device)

    def _crops(self, order, corners, mirrored, crop: int) -> torch.Tensor:
        """(B,3,crop,crop) in the network's units; a mean image is cut and mirrored as the images are."""
        pixels = cut(self.images.pixels, order, corners, mirrored, crop=crop).to(self.net.mean.device)
        if self.net.mean.shape[-1] == 1:
            return self.net.normalise(pixels)
        whole = self.net.mean[None].cpu().numpy()
        mean = cut(whole, torch.zeros_like(order), corners, mirrored, crop=crop).to(self.net.mean)
        return (pixels - mean) / self.net.scale

    def step(self, inputs: torch.Tensor, labels: torch.Tensor) -> float:
        """One step of gradient descent and what the recipe does to the filters after it; the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, self.progress, self.steps)
        with LOCK, self.half:  # a look at the network from another thread, a slider's, waits until this pass is over
            loss = F.cross_entropy(self.model(inputs), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.recipe.renormalise is not None:
            renormalise(self.net, self.recipe.renormalise)
        if self.recipe.ring_limit is not None:
            limit_ring(self.net.conv1, self.recipe.ring_limit)
        return distributed.total(loss.item(), device=inputs.device)[0] / distributed.world()

    def epoch(self) -> float:
        """The steps that are left of an epoch; images per second."""
        progress, first, started = self.progress, self.progress.step, time.monotonic()
        saved = started
        bar = tqdm(self.batches(), initial=first, total=self.steps, desc=f"epoch {progress.epoch + 1}",
                   disable=True if distributed.rank() else None, leave=False)  # fmt: skip
        for inputs, labels in bar:
            loss = self.step(inputs, labels)
            if not math.isfinite(loss):
                where = f"a loss of {loss} in epoch {progress.epoch + 1}, step {progress.step + 1}"
                raise ValueError(f"net gives {where}; train it again with a smaller lr, in a new folder")
            progress.step += 1
            progress.loss = 0.98 * progress.loss + 0.02 * loss if progress.loss else loss
            bar.set_postfix(loss=f"{progress.loss:.3f}")
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
        distributed.agree(self.net)
        return (progress.step - first) * self.recipe.batch / (time.monotonic() - started)
