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
    if images.dim() == 3:
        raise ValueError(f"images must be (N,3,H,W), got one image of shape {tuple(images.shape)}; pass images[None]")
    if images.dim() != 4 or 0 in images.shape:
        raise ValueError(f"images must be (N,3,H,W), got shape {tuple(images.shape)}; {fix}")
    if not images.is_floating_point():
        raise TypeError(f"images must hold floats in the network's units, got {images.dtype}; {fix}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite pixels; look for a division by zero in their preparation")
    return images if net is None else _as_weights(images, net)


def _as_weights(images: torch.Tensor, net: nn.Module) -> torch.Tensor:
    """The images where the network's weights are and in their precision; as they are if it has none."""
    if hasattr(net, "geometry") and images.shape[1] != 3:
        raise ValueError(f"images must have 3 channels, got shape {tuple(images.shape)}; use net.preprocess(images)")
    weights = next((p for p in net.parameters() if p.is_floating_point()), images)
    if weights.device.type == "meta":
        raise ValueError("net has no weights to compute with, they are on the 'meta' device; load them first")
    return images.to(device=weights.device, dtype=weights.dtype)


def layer_names(net: nn.Module) -> list[str]:
    """The names by which layers are called: the network's own, or its module paths."""
    return list(getattr(net, "layer_names", [])) or [path for path, _ in net.named_modules() if path]


def check_layer(net: nn.Module, layer) -> None:
    """ValueError that lists the valid names unless `layer` is one of them."""
    if isinstance(layer, str) and layer and (layer in layer_names(net) or layer in dict(net.named_modules())):
        return
    names = layer_names(net)
    listed = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    raise ValueError(f"layer {layer!r} is not in this network; it has {listed or 'no layers'}")


def layer_path(net: nn.Module, layer: str) -> str:
    """The module whose output `layer` means: after its ReLU for our networks, the module itself for any other."""
    return net.layer_path(layer) if hasattr(net, "layer_path") else layer


def check_channels(channels, activations: torch.Tensor, layer: str) -> torch.Tensor:
    """(N,) channels of (N,C,…) activations, from one integer or one per image."""
    n, count = activations.shape[:2]
    wanted = _integers("channels", channels, "one integer or one per image", activations.device)
    if wanted.dim() > 1 or (wanted.dim() == 1 and len(wanted) != n):
        raise ValueError(f"channels must be one integer or one for each of the {n} images, got {channels!r}")
    outside = wanted.reshape(-1)[((wanted < 0) | (wanted >= count)).reshape(-1)]
    if len(outside):
        raise ValueError(f"channels: layer {layer!r} has {count} channels (0 to {count - 1}), got {int(outside[0])}")
    return wanted.expand(n)


def check_positions(positions, activations: torch.Tensor, layer: str) -> torch.Tensor:
    """(N,2) rows and columns in (N,C,h,w) activations, from one pair or one per image."""
    if activations.dim() == 2:
        raise ValueError(f"positions: layer {layer!r} is fully connected, its units have none; leave positions out")
    n, (height, width) = len(activations), activations.shape[-2:]
    wanted = _integers("positions", positions, "(row, column) or one pair per image", activations.device)
    if wanted.shape not in ((2,), (n, 2)):
        raise ValueError(f"positions must be (row, column) or ({n}, 2), got shape {tuple(wanted.shape)}")
    if bool(((wanted < 0) | (wanted >= torch.tensor([height, width], device=wanted.device))).any()):
        raise ValueError(
            f"positions: the maps of layer {layer!r} are {height}x{width}, "
            f"rows 0 to {height - 1} and columns 0 to {width - 1}, got {wanted.tolist()}"
        )
    return wanted.expand(n, 2)


def _integers(name: str, value, expected: str, device) -> torch.Tensor:
    try:
        wanted = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be {expected}, got {value!r}") from error
    if wanted.is_floating_point() or wanted.is_complex() or wanted.dtype == torch.bool:
        raise TypeError(f"{name} must be {expected}, as integers, got {value!r}")
    return wanted.long()
