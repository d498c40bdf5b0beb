"""One sentence for bad input: which argument, what it got, and the fix. Shared by all rooms."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real

import torch
from torch import nn


def check_choice(name: str, value, choices) -> None:
    """ValueError that lists the choices unless `value` is one of them."""
    if value not in tuple(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def shape_or_type(value) -> str:
    """What a sentence says it got: a tensor's shape, the type of anything else."""
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def check_net(net) -> None:
    """TypeError unless `net` is a torch network."""
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch network (nn.Module), got {type(net).__name__}")


def check_apart(net: nn.Module) -> None:
    """ValueError, with its path, at the first module through which the images of a batch change each other."""
    for path, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(f"net: module {path!r} normalises over the batch; give it running statistics")


def check_dense(images: torch.Tensor) -> None:
    """TypeError for a tensor that does not hold its real numbers one by one: sparse, nested, quantised, complex."""
    kind = "nested" if images.is_nested else str(images.layout).removeprefix("torch.")
    if kind != "strided":
        fix = "images.to_padded_tensor(0)" if images.is_nested else "images.to_dense()"
        raise TypeError(f"images must be a plain tensor (N,3,H,W), got a {kind} one; use {fix}")
    if images.is_meta:
        raise TypeError("images hold no numbers: they are on the device 'meta'; make them on the CPU or a GPU")
    if images.is_complex():
        raise TypeError(f"images must hold real numbers, got {images.dtype}; use images.real, or images.abs()")
    if images.is_quantized:
        raise TypeError(f"images must hold floats in the network's units, got {images.dtype}; use images.dequantize()")


def layer_names(net: nn.Module) -> list[str]:
    """The names by which layers are called: the network's own, or its module paths."""
    return list(getattr(net, "layer_names", [])) or [path for path, _ in net.named_modules() if path]


def conv_layers(net: nn.Module) -> list[str]:
    """The convolutional layers of a network of ours but for one that gives the classes, lowest first.

    What is looked at if nobody says otherwise: conv1 to conv5, or conv1 and fire2 to fire9. ValueError for a network
    that does not name its layers.
    """
    check_net(net)
    if not getattr(net, "conv_names", []):
        last = next((path for path, module in reversed([*net.named_modules()]) if isinstance(module, nn.Conv2d)), "")
        such = f", such as the last convolution's, {last!r}" if last else ""
        raise ValueError(f"layer is missing: this network names none; give a module's path{such}; "
                         "zflib.layers(net) lists them")  # fmt: skip
    return net.conv_names


def outer_layers(net: nn.Module) -> tuple[str, str]:
    """The first convolutional layer and the last one before the classes: Figure 5's conv1 and fc7."""
    return conv_layers(net)[0], net.layer_names[-2:][0]


def spread_layers(net: nn.Module) -> list[str]:
    """The first, the middle and the last convolutional layer, and the last one before the classes, each once."""
    convs, (_, last) = conv_layers(net), outer_layers(net)
    return list(dict.fromkeys([convs[0], convs[len(convs) // 2], convs[-1], last]))


class ModulePath(str):
    """The path of a module that was given itself: its own output, whatever the network's names mean."""


def check_layer(net: nn.Module, layer) -> str:
    """The layer's name, of a module itself its `ModulePath`; ValueError that lists the valid names if it has none."""
    check_net(net)
    if isinstance(layer, nn.Module):
        path = next((path for path, module in net.named_modules() if module is layer), None)
        if path is not None:
            return ModulePath(path)
    if isinstance(layer, ModulePath):
        return layer
    if isinstance(layer, str) and layer and (layer in layer_names(net) or layer in dict(net.named_modules())):
        return layer
    other = dict(net.named_modules(remove_duplicate=False)).get(layer) if isinstance(layer, str) and layer else None
    if other is not None:
        first = next(path for path, module in net.named_modules() if module is other)
        raise ValueError(f"layer {layer!r} is the module {first!r} by another name, and a module is taken at its first "
                         f"use; give {first!r}, or build the network with a module for each place")  # fmt: skip
    names = layer_names(net)
    listed = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    got = type(layer).__name__ if isinstance(layer, nn.Module | torch.Tensor) else repr(layer)
    raise ValueError(f"layer {got} is not in this network; it has {listed or 'no layers'}")


def layer_path(net: nn.Module, layer: str | nn.Module) -> str:
    """The module whose output `layer` means: after its ReLU for our networks, the module itself for any other."""
    layer = check_layer(net, layer)
    named = hasattr(net, "layer_path") and not isinstance(layer, ModulePath)
    return net.layer_path(layer) if named else str(layer)


def check_finite(values: torch.Tensor, what: str) -> None:
    """ValueError for NaN and infinity in what a network gives."""
    if not bool(values.isfinite().all()):
        raise ValueError(f"{what} gives NaN or infinite values; look for NaN or overflow in net's weights")


def check_channels(channels, activations: torch.Tensor, layer: str) -> torch.Tensor:
    """(N,) channels of (N,C,…) activations, from one integer or one per image."""
    n, count = activations.shape[:2]
    wanted = check_integers("channels", channels, "one integer or one per image", activations.device)
    if wanted.dim() > 1 or (wanted.dim() == 1 and len(wanted) != n):
        raise ValueError(f"channels must be one integer or one for each of the {n} images, got {channels!r}")
    outside = wanted.reshape(-1)[((wanted < 0) | (wanted >= count)).reshape(-1)]
    if len(outside):
        raise ValueError(f"channels: layer {layer!r} has {count} channels (0 to {count - 1}), got {int(outside[0])}")
    return wanted.expand(n)


def check_positions(positions, activations: torch.Tensor, layer: str, *, name: str = "positions") -> torch.Tensor:
    """(N,2) rows and columns in (N,C,h,w) activations, from one pair or one per image."""
    if activations.dim() == 2:
        raise ValueError(f"{name}: layer {layer!r} is fully connected, its units have none; leave {name} out")
    n, (height, width) = len(activations), activations.shape[-2:]
    wanted = check_integers(name, positions, "(row, column) or one pair per image", activations.device)
    if wanted.shape not in ((2,), (n, 2)):
        raise ValueError(f"{name} must be (row, column) or ({n}, 2), got shape {tuple(wanted.shape)}")
    if bool(((wanted < 0) | (wanted >= torch.tensor([height, width], device=wanted.device))).any()):
        raise ValueError(
            f"{name}: the maps of layer {layer!r} are {height}x{width}, "
            f"rows 0 to {height - 1} and columns 0 to {width - 1}, got {wanted.tolist()}"
        )
    return wanted.expand(n, 2)


def check_integer(name: str, value, expected: str, *, low: int = -(2**63), high: int = 2**63 - 1) -> int:
    """An integer of any kind, numpy's and tensors too, from `low` to `high`; ValueError for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return number


def check_label(label, classes: int) -> int:
    """One class as a Python integer; ValueError unless there is such a class."""
    return check_integer("label", label, f"a class from 0 to {classes - 1}", low=0, high=classes - 1)


def check_seed(seed) -> int:
    """A seed for torch's generators as a Python integer."""
    return check_integer("seed", seed, "a whole number")


def check_sides(name: str, value, limits: tuple[int, int] | None = None) -> tuple[int, int]:
    """(rows, columns) of pixels, from one number or two; ValueError if there are none, or more than in `limits`."""
    pair = (value, value) if isinstance(value, Integral) else tuple(value) if isinstance(value, (tuple, list)) else ()
    most = limits or (math.inf, math.inf)
    if len(pair) != 2 or not all(isinstance(v, Integral) and 1 <= v <= limit for v, limit in zip(pair, most)):
        at_most = f", at most {limits[0]}x{limits[1]}" if limits else ""
        raise ValueError(f"{name} must be pixels or (rows, columns), at least 1{at_most}, got {value!r}")
    return int(pair[0]), int(pair[1])


def is_number(value, dtype: torch.dtype = torch.float32) -> bool:
    """Whether `value` is a finite real number, and not too large for a tensor of this type."""
    return isinstance(value, Real) and abs(value) <= torch.finfo(dtype).max


def check_tensor(name: str, value, expected: str, *, device=None) -> torch.Tensor:
    """TypeError that says what is expected, unless `value` is a tensor or can become one."""
    if device is None:  # as it is, or on the CPU, wherever torch makes tensors by default
        device = value.device if isinstance(value, torch.Tensor) else "cpu"
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be {expected}, got {value!r}") from error


def check_integers(name: str, value, expected: str, device=None) -> torch.Tensor:
    """int64, from a tensor, an array or a list of whole numbers; TypeError says what was `expected`."""
    wanted = check_tensor(name, value, expected, device=device)
    if wanted.is_floating_point():
        raise TypeError(f"{name} must be {expected}, as integers, got {value!r}")
    return wanted.long()


@contextmanager
def one_sentence(program: str) -> Iterator[None]:
    """Ends `program` with the sentence of a ValueError or OSError: arguments and files that are wrong."""
    if sys.stdout.errors == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot print some path
    try:
        yield
    except (ValueError, OSError) as error:
        known = isinstance(error, OSError) and error.filename
        sentence = f"{error.filename}: {error.strerror}" if known else " ".join(str(error).split())
        sys.exit(f"{program}: " + sentence.replace("download=True", "python -m zflib.train --download"))
