"""How features grow while a network trains (Figure 4): the same channels at every snapshot, and a small run of it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import _files, models, train
from .._arguments import check_layer
from ..data import scenes
from ..data.image_source import images_of
from ..deconv import Deconvnet
from ..experiments.peaks import find_peaks
from ..experiments.top_k import Peaks
from ..train.steps import prepare

SCENES = 1000  # what the small run is trained on


@dataclass
class Evolution:
    """One layer over E snapshots, for C of its channels: who excites each most, and what of it the channel sees.

    epochs (E,); channels (C,); images (E,C) numbers of the strongest images; values (E,C); positions (E,C,2);
    projections (E,C,3,H,W) of those activations, each through the network of its own epoch. `labels` (E,C), where they
    are known: the classes of the strongest images.
    """

    epochs: torch.Tensor
    channels: torch.Tensor
    images: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    projections: torch.Tensor
    labels: torch.Tensor | None = None

    @property
    def jumps(self) -> torch.Tensor:
        """(E,C) bool: another image than at the snapshot before; the paper's sudden jumps. False at the first."""
        return changed(self.images)


def changed(images: torch.Tensor) -> torch.Tensor:
    """(E,C) bool: whether each of the (E,C) numbers is another than the one above it; the first row is False."""
    rows = torch.zeros_like(images, dtype=torch.bool)
    rows[1:] = images[1:] != images[:-1]
    return rows


def evolve(nets: dict[int, nn.Module], images, *, layers: dict[str, list[int]]) -> dict[str, Evolution]:
    """layer -> Evolution of its channels, over `nets` by epoch; `images` as `find_peaks` takes them, but numbered.

    One pass over the images for each snapshot. Figure 4 uses the training images.
    """
    return drawn(
        nets, images, {e: find_peaks(net, images, layers=list(layers), k=1) for e, net in nets.items()}, layers
    )


def drawn(
    nets: dict[int, nn.Module], images, peaks: Mapping[int, Mapping[str, Peaks]], layers: dict[str, list[int]]
) -> dict[str, Evolution]:
    """As `evolve`, where the search is done already: `peaks` by epoch are what `find_peaks` gave for each of `nets`."""
    epochs, evolutions = sorted(nets), {}
    for layer, channels in layers.items():
        rows = [_snapshot(nets[epoch], images, peaks[epoch][layer], layer, channels) for epoch in epochs]
        parts = (torch.stack(part) for part in zip(*rows))
        evolutions[layer] = Evolution(torch.tensor(epochs), torch.tensor(channels), *parts)
    return evolutions


def last_of(nets: dict[int, nn.Module]) -> nn.Module:
    """The network of the last epoch."""
    return nets[max(nets)]


def _snapshot(net: nn.Module, images, peaks: Peaks, layer: str, channels: list[int]) -> tuple:
    """(images (C,), values (C,), positions (C,2), projections (C,3,H,W)) of one network."""
    chosen = torch.tensor(channels)
    winners, values, positions = (part[chosen, 0] for part in (peaks.images, peaks.values, peaks.positions))
    some = images_of(net, images, winners)  # (C,3,H,W)
    views = Deconvnet(net).project(some, layer, chosen, positions=positions).cpu()
    return winners, values, positions, views


def held(nets: dict[int, nn.Module], images: torch.Tensor, layer: str, channels: list[int]) -> torch.Tensor:
    """(E,C,3,H,W): one image for each channel, (C,3,H,W) in the networks' units, projected through every snapshot.

    Always from the place that is strongest at the last snapshot: what Figure 4 would show if no image took over.
    """
    chosen = torch.tensor(channels)
    maps = Deconvnet(last_of(nets)).activations(images, layer)
    maps = maps[range(len(chosen)), channels]  # (C,h,w)
    places = maps.flatten(1).argmax(dim=1).cpu()
    positions = torch.stack([places // maps.shape[-1], places % maps.shape[-1]], dim=1)
    drawn = [Deconvnet(net).project(images, layer, chosen, positions=positions) for _, net in sorted(nets.items())]
    return torch.stack(drawn).cpu()


def cosines(filters: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """(C,) cosine between each of (C,Cin,k,k) filters and the same filter in `last`; its size does not count."""
    return nn.functional.cosine_similarity(filters.flatten(1), last.flatten(1), dim=1)


def filter_agreement(nets: dict[int, nn.Module], layer: str) -> dict[int, float]:
    """epoch -> mean cosine between a layer's filters and the same filters at the last snapshot; 1 = as they end."""
    last = last_of(nets)
    check_layer(last, layer)
    final = last.get_submodule(layer).weight.detach()
    return {epoch: float(cosines(net.get_submodule(layer).weight.detach(), final).mean())
            for epoch, net in sorted(nets.items())}  # fmt: skip


def response_agreement(nets: dict[int, nn.Module], images: torch.Tensor, layer: str) -> dict[int, float]:
    """epoch -> correlation of a channel's responses with its own at the last snapshot, the mean over channels.

    `images` are (N,3,H,W) in the networks' units. A channel that answers everywhere alike counts as 0.
    """
    responses = {}
    for epoch, net in sorted(nets.items()):
        maps = Deconvnet(net).activations(images, layer).transpose(0, 1).flatten(1)  # (C, N*h*w)
        maps = maps - maps.mean(dim=1, keepdim=True)
        responses[epoch] = maps / maps.norm(dim=1, keepdim=True).clamp(min=1e-12)
    final = responses[max(responses)]
    return {epoch: float((values * final).sum(dim=1).mean()) for epoch, values in responses.items()}


def named_from(labels: torch.Tensor, enough: int = 7) -> torch.Tensor:
    """(C,) the first snapshot from which on each channel could be named, -1 if not even the last; labels (E,C,9).

    A channel can be named if at least `enough` of its nine strongest images are of the class that leads at the end.
    """
    rows = torch.full((labels.shape[1],), -1)
    for channel in range(labels.shape[1]):
        name = labels[-1, channel].mode().values  # the class that leads at the end
        for row in range(len(labels) - 1, -1, -1):  # from the end backwards, while the name holds
            if (labels[row, channel] == name).sum() < enough:
                break
            rows[channel] = row
    return rows


def save(evolutions: dict[str, Evolution], path: str | Path, *, network: str = "") -> None:
    """All layers to one compressed .npz, atomically; projections in half precision. `network`: SHA-256 of the last."""
    arrays = {f"{layer}/{name}": value.numpy().astype(np.float16 if name in ("projections", "values") else np.int32)
              for layer, found in evolutions.items() for name, value in vars(found).items()
              if value is not None}  # fmt: skip
    buffer = io.BytesIO()
    np.savez_compressed(buffer, network=np.array(network), **arrays)
    _files.write_atomically(path, buffer.getvalue())


def load(name: str) -> dict[str, Evolution]:
    """The evolution that zflib ships for a network: layer -> Evolution over Tiny ImageNet's training images.

    ValueError if there is none, or if it was made with other weights than the network has now.
    """
    path = _files.SHIPPED / f"{name}-evolution.npz"
    if not path.is_file():
        raise ValueError(f"name {name!r} has no evolution here; python -m data.make.evolution {name} makes one")
    with np.load(path, allow_pickle=False) as arrays:
        network = str(arrays["network"])
        as_tensor = {key: torch.from_numpy(arrays[key]) for key in arrays if "/" in key}
    if network != models.load(name).card["sha256"]:
        again = f"python -m data.make.evolution {name} makes it anew"
        raise ValueError(f"{path.name} was made with other weights of {name}; {again}")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in as_tensor.items():
        layer, what = key.split("/")
        parts.setdefault(layer, {})[what] = value.float() if value.is_floating_point() else value.long()
    return {layer: Evolution(**values) for layer, values in parts.items()}


# --- a run small enough to keep whole: scenes56 on a thousand scenes, from before its first step to epoch 12 ----------


@dataclass
class SmallRun:
    """`nets` by epoch, 0 to 12; `peaks` by epoch and layer: all channels' nine strongest of the training scenes.

    `accuracy`: percent of 200 other scenes, by epoch from 1 on.
    """

    nets: dict[int, models.ZFNet]
    peaks: dict[int, dict[str, Peaks]]
    accuracy: list[float]

    @property
    def layers(self) -> list[str]:
        return last_of(self.nets).conv_names

    def winners(self, layer: str) -> torch.Tensor:
        """(E,C) the number of the strongest scene of each channel."""
        return self.nine(layer)[..., 0]

    def nine(self, layer: str) -> torch.Tensor:
        """(E,C,9) the numbers of the nine strongest scenes of each channel, the strongest first."""
        return torch.stack([found[layer].images for found in self.peaks.values()])

    def values(self, layer: str) -> torch.Tensor:
        """(E,C,9) their activations."""
        return torch.stack([found[layer].values for found in self.peaks.values()])


def world() -> scenes.Scenes:
    """The thousand scenes that the small run is trained on."""
    return scenes.scenes(SCENES)


def small_recipe(seed: int = 0, *, constant: bool = False) -> train.Recipe:
    """Twelve epochs of the recipe of scenes56; `constant`: at one learning rate, so that no schedule ends it."""
    recipe = replace(train.RECIPES["scenes"], epochs=12, seed=seed)
    return replace(recipe, schedule="plateau", patience=99, lr=0.02) if constant else recipe


def grow(recipe: train.Recipe) -> tuple[dict[int, models.ZFNet], list[float]]:
    """(conv parts of the network before its first step and after every epoch, accuracies): about a minute on one core.

    Batch normalisation is folded into the filters, as in every network that zflib ships.
    """
    parts = (world(), scenes.scenes(200, seed=1))
    sets = [train.Images(part.pixels.numpy(), part.labels, models.ZFNET56.crop) for part in parts]
    net = models.scenes56(batch_norm=True)
    prepare(net, sets[0], recipe)  # what a run does before its first step
    nets, accuracy = {0: models.conv_part(_named(train.fold(net)))}, []

    def keep(row: dict) -> None:
        nets[row["epoch"]] = models.conv_part(_named(train.fold(net)))
        accuracy.append(row["top1"])

    with tempfile.TemporaryDirectory() as folder:
        train.train(net, *sets, recipe, Path(folder), report=keep)
    return nets, accuracy


def _named(net: models.ZFNet) -> models.ZFNet:
    net.card = {}
    return net


def save_run(run: SmallRun, path: str | Path) -> None:
    """To one compressed .npz, atomically; weights and activations in half precision."""
    arrays = {"accuracy": np.array(run.accuracy)}
    for epoch, net in run.nets.items():
        arrays |= {f"weights/{epoch}/{key}": value.half().numpy() for key, value in net.state_dict().items()}
    for epoch, found in run.peaks.items():
        for layer, peaks in found.items():
            arrays[f"peaks/{epoch}/{layer}/values"] = peaks.values.numpy().astype(np.float32)
            arrays[f"peaks/{epoch}/{layer}/images"] = peaks.images.numpy().astype(np.int16)
            arrays[f"peaks/{epoch}/{layer}/positions"] = peaks.positions.numpy().astype(np.int8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    _files.write_atomically(path, buffer.getvalue())


def load_run(path: str | Path | None = None) -> SmallRun:
    """The SmallRun that zflib ships; ValueError if its file is not there."""
    path = Path(path or _files.SHIPPED / "scenes56-evolution.npz")
    if not path.is_file():
        raise ValueError(f"path {path} is not there; python -m data.make.evolution scenes --out {path} makes it")
    weights, peaks = {}, {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays:
            kind, *rest = key.split("/")
            value = torch.from_numpy(arrays[key])
            if kind == "weights":
                weights.setdefault(int(rest[0]), {})[rest[1]] = value.float()
            elif kind == "peaks":
                parts = peaks.setdefault(int(rest[0]), {}).setdefault(rest[1], {})
                parts[rest[2]] = value.float() if rest[2] == "values" else value.long()
        accuracy = arrays["accuracy"].tolist()
    nets = {epoch: _conv_part_with(state) for epoch, state in weights.items()}
    return SmallRun(
        nets, {e: {layer: Peaks(**p) for layer, p in found.items()} for e, found in peaks.items()}, accuracy
    )


def _conv_part_with(state: dict[str, torch.Tensor]) -> models.ZFNet:
    net = models.ZFNet(0, geometry=replace(models.scenes56().geometry, hidden=None))
    net.load_state_dict(state)
    net.classes = list(scenes.CLASSES)
    return net.eval()
