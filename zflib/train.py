"""One training loop: recipes as data, checkpoints that resume exactly, and folding for the network we ship."""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import data, files, models
from .filters import fold, limit_ring, outer_ring_share, renormalise


@dataclass(frozen=True)
class Recipe:
    """What section 3 of the paper fixes for a training run; `paper` below is its own choice."""

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
    batch_norm: bool = False
    renormalise: float | None = 0.1  # RMS radius of the conv filters
    ring_limit: float | None = None  # most energy that a conv1 filter may hold at the highest frequencies, as a share
    scale: float = 1.0  # inputs are (pixels - mean) / scale
    mirror: bool = True
    seed: int = 0


RECIPES = {
    "paper": Recipe(),
    "modern": Recipe(
        epochs=5, lr=0.08, nesterov=True, schedule="one-cycle", warmup=0.15, dropout=0.1,
        linear_init="he", batch_norm=True, renormalise=None, ring_limit=0.12, scale=60.0,
    ),
}  # fmt: skip


def initialise(net: nn.Module, recipe: Recipe) -> None:
    """Normal weights of standard deviation `init_std`, zero biases (the paper's "1e-2 and 0")."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and recipe.linear_init == "normal"):
            nn.init.normal_(module.weight, std=recipe.init_std)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Dropout):
            module.p = recipe.dropout


SAVE_EVERY = 240.0  # seconds between two checkpoints within an epoch


@dataclass
class Images:
    """A labelled set held as uint8 pixels (N,3,R,R), with the crop that the network wants."""

    pixels: np.ndarray
    labels: torch.Tensor
    crop: int

    def batch(self, indices: torch.Tensor, corners: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """(B,3,crop,crop) uint8: image i cut at corners[i] = (top, left), mirrored where asked."""
        crop, out = self.crop, np.empty((len(indices), 3, self.crop, self.crop), np.uint8)
        for row, (i, (top, left), flip) in enumerate(zip(indices.tolist(), corners.tolist(), mirrored.tolist())):
            patch = self.pixels[i, :, top : top + crop, left : left + crop]
            out[row] = patch[..., ::-1] if flip else patch
        return torch.from_numpy(out)


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


def epoch_plan(images: Images, recipe: Recipe, epoch: int):
    """(order, corners, mirrored) of one epoch, a function of seed and epoch alone, so it can be resumed."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    n, slack = len(images.labels), images.pixels.shape[-1] - images.crop
    order = torch.randperm(n, generator=generator)
    corners = torch.randint(0, slack + 1, (n, 2), generator=generator)
    mirrored = torch.rand(n, generator=generator) < (0.5 if recipe.mirror else 0.0)
    return order, corners, mirrored


def accuracy(net: models.ZFNet, images: Images, *, batch: int = 250, ten_crop: bool = False) -> dict[str, float]:
    """Top-1 and top-5 in per cent over a labelled set; `ten_crop` averages ten crops' probabilities (section 3)."""
    device, hits1, hits5 = next(net.parameters()).device, 0, 0
    training = net.training
    net.eval()
    with torch.no_grad():
        for start in range(0, len(images.labels), batch):
            pixels = torch.from_numpy(np.array(images.pixels[start : start + batch])).to(device)
            labels = images.labels[start : start + batch].to(device)
            if ten_crop:
                crops = data.ten_crop(pixels, images.crop)
                scores = net(net.normalise(crops.flatten(0, 1))).softmax(-1).unflatten(0, crops.shape[:2]).mean(1)
            else:
                scores = net(net.normalise(data.centre_crop(pixels, images.crop)))
            top = scores.topk(5, dim=-1).indices == labels[:, None]
            hits1, hits5 = hits1 + int(top[:, 0].sum()), hits5 + int(top.sum())
    net.train(training)
    return {"top1": 100 * hits1 / len(images.labels), "top5": 100 * hits5 / len(images.labels)}


def save_atomically(value, path: Path) -> None:
    """torch.save, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    files.write_atomically(path, buffer.getvalue())


def _save(path: Path, net, optimiser, progress: Progress) -> None:
    state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "progress": asdict(progress),
             "rng": torch.get_rng_state()}  # fmt: skip
    if net.mean.is_cuda:
        state["cuda_rng"] = torch.cuda.get_rng_state(net.mean.device)
    save_atomically(state, path)


def _resume(path: Path, net, optimiser) -> Progress:
    state = torch.load(path, weights_only=True, map_location="cpu")
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["rng"])
    if net.mean.is_cuda and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], net.mean.device)
    return Progress(**state["progress"])


def _optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in net.parameters() if p.dim() > 1]
    vectors = [p for p in net.parameters() if p.dim() == 1]  # biases and gains are not decayed
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def _train_epoch(net, optimiser, images: Images, recipe: Recipe, progress: Progress, save) -> None:
    order, corners, mirrored = epoch_plan(images, recipe, progress.epoch)
    steps = len(order) // recipe.batch
    saved = time.monotonic()
    bar = tqdm(range(progress.step, steps), initial=progress.step, total=steps, desc=f"epoch {progress.epoch + 1}",
               disable=None, leave=False)  # fmt: skip
    device = net.mean.device
    for step in bar:
        chosen = slice(step * recipe.batch, (step + 1) * recipe.batch)
        pixels = images.batch(order[chosen], corners[chosen], mirrored[chosen])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, progress, steps)
        labels = images.labels[order[chosen]].to(device)
        loss = F.cross_entropy(net(net.normalise(pixels.to(device))), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if recipe.renormalise is not None:
            renormalise(net, recipe.renormalise)
        if recipe.ring_limit is not None:
            limit_ring(net.conv1, recipe.ring_limit)
        progress.step = step + 1
        progress.loss = 0.98 * progress.loss + 0.02 * loss.item() if progress.loss else loss.item()
        bar.set_postfix(loss=f"{progress.loss:.3f}")
        if time.monotonic() - saved > SAVE_EVERY:
            save()
            saved = time.monotonic()


def train(net: models.ZFNet, images: Images, validation: Images, recipe: Recipe, out: Path) -> None:
    """Train `net` in place and keep in `out`: checkpoint.pt, log.jsonl (a line per epoch) and epochNNN.pt.

    Called again with the same `out` it continues from the checkpoint, bit for bit on the same machine with the
    same number of threads. The snapshots are folded (no batch normalisation) and in half precision.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    initialise(net, recipe)
    optimiser, progress = _optimiser(net, recipe), Progress(lr=recipe.lr)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        progress = _resume(checkpoint, net, optimiser)
    net.train()
    while progress.epoch < recipe.epochs:
        started, first = time.monotonic(), progress.step
        _train_epoch(net, optimiser, images, recipe, progress, lambda: _save(checkpoint, net, optimiser, progress))
        speed = (progress.step - first) * recipe.batch / (time.monotonic() - started)
        scores = accuracy(net, validation)
        _anneal(recipe, progress, scores["top1"])
        progress.epoch, progress.step = progress.epoch + 1, 0
        _log(out / "log.jsonl", {"epoch": progress.epoch, "loss": round(progress.loss, 4), **scores,
             "ring": round(outer_ring_share(fold(net).conv1), 4), "images_per_second": round(speed, 1)})  # fmt: skip
        save_atomically(half(fold(net)), out / f"epoch{progress.epoch:03d}.pt")
        _save(checkpoint, net, optimiser, progress)


def half(net: nn.Module) -> dict[str, torch.Tensor]:
    """The weights in half precision: as they are shipped."""
    return {key: value.half() for key, value in net.state_dict().items()}


def _log(path: Path, row: dict) -> None:
    print(json.dumps(row), flush=True)
    before = path.read_text().splitlines() if path.exists() else []
    rows = [line for line in before if json.loads(line)["epoch"] < row["epoch"]]  # an epoch that was run again
    files.write_atomically(path, ("\n".join([*rows, json.dumps(row)]) + "\n").encode())


def finish(net: models.ZFNet, validation: Images, recipe: Recipe, out: Path, command: str) -> dict:
    """Fold, save `out`/final.pt and .json, and measure what was saved: centre crop and ten-crop. Returns the card."""
    curve = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    card = {
        "name": out.name, "data": "Tiny ImageNet-200: 100,000 training and 10,000 validation images",
        "recipe": asdict(recipe), "command": command, "seed": recipe.seed, "epochs": curve[-1]["epoch"],
        "conv1_outer_ring_share": outer_ring_share(fold(net).conv1), "curve": curve,
    }  # fmt: skip
    models.save(fold(net), out / "final", card)
    shipped = models.load_file(out / "final.pt").to(net.mean.device)
    card["accuracy"] = {"centre crop": accuracy(shipped, validation),
                        "ten-crop": accuracy(shipped, validation, ten_crop=True, batch=50)}  # fmt: skip
    models.save(shipped, out / "final", card)
    return card


def _anneal(recipe: Recipe, progress: Progress, top1: float) -> None:
    progress.stalled = 0 if top1 > progress.best else progress.stalled + 1
    progress.best = max(progress.best, top1)
    if progress.stalled >= recipe.patience:
        progress.lr, progress.stalled = progress.lr / 10, 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zflib.train", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="modern")
    parser.add_argument("--data", type=Path, required=True, help="a folder that holds Tiny ImageNet-200")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints, snapshots and the log go")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="torch threads; resuming is bit-exact for the same number")
    parser.add_argument("--device", help="cuda, mps or cpu; by default the fastest that is here")
    parser.add_argument("--measure", metavar="NAME", help="train nothing: print the accuracy of a shipped network")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device or models.device())
    recipe = replace(RECIPES[options.recipe], seed=options.seed)
    recipe = replace(recipe, epochs=options.epochs) if options.epochs else recipe
    crop = models.ZFNET56.crop
    validation = Images(*data.tiny_imagenet(options.data, "val")[:2], crop)
    if options.measure:
        net = models.load(options.measure).to(device)
        for name, ten in (("centre crop", False), ("ten-crop", True)):
            print(name, accuracy(net, validation, ten_crop=ten, batch=50 if ten else 250))
        return
    torch.manual_seed(recipe.seed)
    net = models.zfnet56(batch_norm=recipe.batch_norm)
    pixels, labels, net.wnids = data.tiny_imagenet(options.data, "train")
    net.classes = data.class_names(options.data, net.wnids)
    net.mean.copy_(torch.from_numpy(np.array(pixels[::20])).float().mean(dim=(0, 2, 3)).view(3, 1, 1))
    net.scale.fill_(recipe.scale)
    train(net.to(device), Images(pixels, labels, crop), validation, recipe, options.out)
    command = f"python -m zflib.train --recipe {options.recipe} --epochs {recipe.epochs} --seed {recipe.seed}"
    card = finish(net, validation, recipe, options.out, f"{command} --data tiny-imagenet-200 --out {options.out.name}")
    print(json.dumps(card["accuracy"]))


if __name__ == "__main__":
    main()
