"""What goes into a network: images as it wants them, where its weights are and in their precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from .._arguments import check_dense, check_net, shape_or_type
from .hooks import Hooks, Reached, plain, unchanged

NO_IMAGE = "must be one preprocessed image (3,H,W), got {}; use net.preprocess(image)[0]"


def check_images(images, net: nn.Module | None = None) -> torch.Tensor:
    """(N,3,H,W) finite floats, moved to the network's device and dtype."""
    fix = "use net.preprocess(images), or stack float tensors into (N,3,H,W)"
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a tensor (N,3,H,W), got {type(images).__name__}; {fix}")
    check_dense(images)
    if images.dim() == 3:
        raise ValueError(f"images must be (N,3,H,W), got one image of shape {tuple(images.shape)}; pass images[None]")
    if images.dim() != 4 or 0 in images.shape:
        raise ValueError(f"images must be (N,3,H,W), got shape {tuple(images.shape)}; {fix}")
    if not images.is_floating_point():
        raise TypeError(f"images must hold floats in the network's units, got {images.dtype}; {fix}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite pixels; look for a division by zero in their preparation")
    return images if net is None else _as_weights(images, net)


def check_image(image, net: nn.Module | None = None, *, name: str = "image") -> torch.Tensor:
    """(3,H,W): one image, or a batch of one, as `check_images` wants them; `name` is that of the caller's argument."""
    if not isinstance(image, torch.Tensor):
        raise ValueError(f"{name} {NO_IMAGE.format(shape_or_type(image))}")
    try:
        check_dense(image)
        image = image[0] if image.dim() == 4 and len(image) == 1 else image
        if image.dim() == 3:
            return check_images(image[None], net)[0]
    except (TypeError, ValueError) as error:
        if name == "image":
            raise
        raise type(error)(f"{name}: {error}") from None
    raise ValueError(f"{name} {NO_IMAGE.format(shape_or_type(image))}")


def _as_weights(images: torch.Tensor, net: nn.Module) -> torch.Tensor:
    """The images where the network's weights are and in their precision; as they are if it has none.

    Where weights differ, the ones that count are those of the module that the network uses first.
    """
    check_net(net)
    _check_fit(images, net)
    kinds = _kinds(net.parameters()) or _kinds(net.buffers())
    if len(kinds) > 1:
        first, _ = first_used(net, images)
        kinds = _kinds(first.parameters(recurse=False)) if first else ()
    device, dtype = next(iter(kinds), (images.device, images.dtype))
    if device.type == "meta":
        raise ValueError("net has no weights yet, they are on the device 'meta'; load them, or make it on the CPU")
    return images.to(device=device, dtype=dtype)


def _kinds(weights: Iterable[torch.Tensor]) -> set[tuple[torch.device, torch.dtype]]:
    """Where they are and in which precisions; whole numbers do not count."""
    return {(weight.device, weight.dtype) for weight in weights if weight.is_floating_point()}


def first_used(net: nn.Module, images: torch.Tensor) -> tuple[nn.Module | None, torch.Tensor | None]:
    """The module with weights of its own that the network uses first for such images, and what it is given there."""
    found: list[tuple] = []

    def hear(module, args, kwargs):
        found.append((module, next((v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)), None)))
        raise Reached

    with Hooks() as hooks:
        for module in net.modules():
            hears = not isinstance(module, torch.jit.ScriptModule)
            if hears and _kinds(module.parameters(recurse=False)):
                hooks.before(module, hear)
        try:
            with unchanged(net), plain(images.device):
                net(images.clone())
        except (Reached, RuntimeError):  # the same error will be said of the whole pass
            pass
    return found[0] if found else (None, None)


def _check_fit(images: torch.Tensor, net: nn.Module) -> None:
    """ValueError for images that are too small for one of our networks, or no colour images."""
    if not hasattr(net, "geometry"):
        return
    if images.shape[1] != 3:
        raise ValueError(f"images must have 3 channels, got shape {tuple(images.shape)}; use net.preprocess(images)")
    side = net.geometry.crop
    if min(images.shape[2:]) < side:
        wanted = f"it takes at least {side}x{side} pixels; use net.preprocess(images)"
        raise ValueError(f"images of shape {tuple(images.shape)} do not fit this network, {wanted}")
