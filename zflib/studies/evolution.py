"""How features grow while a network trains (Figure 4): the same channels at every snapshot, and when they settle."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import _files, models
from .._arguments import check_layer
from ..data.image_source import images_of
from ..deconv import Deconvnet
from ..experiments.peaks import find_peaks


@dataclass
class Evolution:
    """One layer over E snapshots, for C of its channels: who excites each most, and what of it the channel sees.

    epochs (E,); channels (C,); images (E,C) numbers of the strongest images; values (E,C); positions (E,C,2);
    projections (E,C,3,H,W) of those activations, each through the network of its own epoch.
    """

    epochs: torch.Tensor
    channels: torch.Tensor
    images: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    projections: torch.Tensor

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
    found = [_snapshot(net, images, layers) for _, net in sorted(nets.items())]
    epochs, evolutions = torch.tensor(sorted(nets)), {}
    for layer, channels in layers.items():
        parts = (torch.stack(part) for part in zip(*(snapshot[layer] for snapshot in found)))
        evolutions[layer] = Evolution(epochs, torch.tensor(channels), *parts)
    return evolutions


def last_of(nets: dict[int, nn.Module]) -> nn.Module:
    """The network of the last epoch."""
    return nets[max(nets)]


def _snapshot(net: nn.Module, images, layers: dict[str, list[int]]) -> dict[str, tuple]:
    """layer -> (images (C,), values (C,), positions (C,2), projections (C,3,H,W)) of one network."""
    peaks, deconvnet, result = find_peaks(net, images, layers=list(layers), k=1), Deconvnet(net), {}
    for layer, channels in layers.items():
        chosen = torch.tensor(channels)
        winners, positions = peaks[layer].images[chosen, 0], peaks[layer].positions[chosen, 0]
        some = images_of(net, images, winners)  # (C,3,H,W)
        drawn = deconvnet.project(some, layer, chosen, positions=positions).cpu()
        result[layer] = winners, peaks[layer].values[chosen, 0], positions, drawn
    return result


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


def save(evolutions: dict[str, Evolution], path: str | Path, *, network: str = "") -> None:
    """All layers to one compressed .npz, atomically; projections in half precision. `network`: SHA-256 of the last."""
    arrays = {f"{layer}/{name}": value.numpy().astype(np.float16 if name in ("projections", "values") else np.int32)
              for layer, found in evolutions.items() for name, value in vars(found).items()}  # fmt: skip
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
