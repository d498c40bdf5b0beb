"""One sentence for bad input: which argument, what it got, and the fix. Shared by all rooms."""

from __future__ import annotations

import torch
from torch import nn


def check_choice(name: str, value, choices) -> None:
    """ValueError that lists the choices unless `value` is one of them."""
    if value not in tuple(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_images(images, net: nn.Module | None = None) -> torch.Tensor:
    """(N,3,H,W) finite floats, moved to the network's device and dtype."""
    fix = "use net.preprocess(images), or stack float tensors into (N,3,H,W)"
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a tensor (N,3,H,W), got {type(images).__name__}; {fix}")
    if images.dim() != 4 or 0 in images.shape:
        raise ValueError(f"images must be (N,3,H,W), got shape {tuple(images.shape)}; {fix}")
    if not images.is_floating_point():
        raise TypeError(f"images must hold floats in the network's units, got {images.dtype}; {fix}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite pixels; look for a division by zero in their preparation")
    first = next((p for p in net.parameters() if p.is_floating_point()), None) if net is not None else None
    if first is None:
        return images
    conv = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if conv is not None and conv.in_channels != images.shape[1]:
        raise ValueError(f"images have {images.shape[1]} channels, the network takes {conv.in_channels}: shape {tuple(images.shape)}")
    return images.to(device=first.device, dtype=first.dtype)


def layer_names(net: nn.Module) -> list[str]:
    """The names by which layers are called: the network's own, or its module paths."""
    return list(getattr(net, "layer_names", [])) or [path for path, _ in net.named_modules() if path]


def check_layer(net: nn.Module, layer) -> None:
    """ValueError that lists the valid names unless `layer` is one of them."""
    if isinstance(layer, str) and (layer in layer_names(net) or layer in dict(net.named_modules())) and layer:
        return
    names = layer_names(net)
    listed = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    raise ValueError(f"layer {layer!r} is not in this network; it has {listed}")


def layer_path(net: nn.Module, layer: str) -> str:
    """The module whose output `layer` means: after its ReLU for our networks, the module itself for any other."""
    return net.layer_path(layer) if hasattr(net, "layer_path") else layer
