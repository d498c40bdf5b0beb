"""What several layers of a network give for some images, in one forward pass that leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from tqdm.auto import tqdm

from .._arguments import check_apart, check_layer, check_net, layer_path
from .tape import plain, unchanged

PIXELS = 2**20  # of all images in one forward pass together, at most 64 images


def check_layers(net: nn.Module, layers) -> list[str]:
    """The layers' names, each once; ValueError for a name that the network does not have, or for none at all."""
    check_net(net)
    layers = [layers] if isinstance(layers, str) else layers
    if not isinstance(layers, Iterable) or not (layers := list(layers)):
        raise ValueError(f"layers must be at least one layer's name, got {layers!r}")
    for layer in layers:
        check_layer(net, layer)
    return list(dict.fromkeys(layers))


def chunks(images: Sequence, *, what: str) -> Iterator:
    """(N,3,H,W) images in parts that fit into memory, with a progress bar on a terminal."""
    pixels = images[0].shape[-1] * images[0].shape[-2]
    with tqdm(total=len(images), desc=what, unit="image", disable=None, leave=False) as bar:
        for part in images.split(max(1, min(64, PIXELS // pixels))):
            yield part
            bar.update(len(part))


@contextmanager
def watched(net: nn.Module, layers: Iterable[str], device: torch.device) -> Iterator[Callable]:
    """look(images): ({layer: its output}, the network's); no gradients, evaluation mode, no hooks left afterwards.

    A layer is the module's output at its first use, copied before a ReLU in place overwrites it.
    """
    found: dict[str, torch.Tensor] = {}

    def watcher(layer: str) -> Callable:
        def see(_, args, out):
            if layer not in found:
                found[layer] = _checked(layer, out)

        return see

    def look(images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        found.clear()
        scores = _forward(net, images)
        for layer in layers:
            if layer not in found:
                raise ValueError(f"layer {layer!r} took no part in the forward pass; choose one that the network uses")
            if len(found[layer]) != len(images):
                raise ValueError(
                    f"layer {layer!r} gives {len(found[layer])} maps for {len(images)} images; "
                    "choose one that keeps images apart"
                )
        return dict(found), scores

    layers = list(layers)
    check_apart(net)
    with ExitStack() as handles, unchanged(net), plain(device):
        for layer in layers:
            hook = net.get_submodule(layer_path(net, layer)).register_forward_hook(watcher(layer))
            handles.callback(hook.remove)
        yield look


def _forward(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    try:
        return net(images.clone())  # a network that works in place does so on our copy
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"net fails on images of shape {tuple(images.shape)}: {reason}; "
            "if they do not fit this network, crop or resize them to the size it takes"
        ) from error


def _checked(layer: str, out) -> torch.Tensor:
    if not isinstance(out, torch.Tensor) or not out.is_floating_point() or out.dim() < 2:
        got = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(f"layer {layer!r} gives {got}; a layer must give floats (N,C,h,w) or (N,C)")
    if bool(out.isnan().any()):
        raise ValueError(f"layer {layer!r} gives NaN; look for NaN or overflow in net's weights")
    return out.clone()
