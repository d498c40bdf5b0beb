"""One sentence for bad input: which argument, what it got, and the fix. Shared by all rooms."""

from __future__ import annotations

import math
import operator
import sys
import threading
from collections.abc import Iterable, Iterator
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


def check_scores(scores) -> torch.Tensor:
    """(N,classes); ValueError for a network that gives something else, one single score, or NaN probabilities."""
    if not isinstance(scores, torch.Tensor) or scores.dim() != 2:
        raise ValueError(f"net must give scores (N,classes), got {shape_or_type(scores)}; this needs a classifier")
    if scores.shape[1] < 2:
        raise ValueError(f"net must give a score for each of at least two classes, got {tuple(scores.shape)}; "
                         "let it give one for yes and one for no")  # fmt: skip
    if bool(scores.softmax(-1).isnan().any()):
        raise ValueError("net gives scores without probabilities; look for NaN or overflow in net's weights")
    return scores


def probabilities(scores) -> torch.Tensor:
    """(N,classes): the softmax of a network's scores, as `check_scores` wants them.

    Rows without negative values that sum to 1 are probabilities already, of a network that ends in a softmax, and stay.
    """
    scores = check_scores(scores)
    ready = bool((scores >= 0).all()) and bool(((scores.sum(-1) - 1).abs() < 1e-3).all())
    return scores if ready else scores.softmax(-1)


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


def check_image(image, net: nn.Module | None = None) -> torch.Tensor:
    """(3,H,W): one image, or a batch of one, as `check_images` wants them."""
    if isinstance(image, torch.Tensor) and image.dim() == 4 and len(image) == 1:
        image = image[0]
    if not isinstance(image, torch.Tensor) or image.dim() != 3:
        got, fix = shape_or_type(image), "use net.preprocess(image)[0]"
        raise ValueError(f"image must be one preprocessed image (3,H,W), got {got}; {fix}")
    return check_images(image[None], net)[0]


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
    return images.to(device=device, dtype=dtype)


def _kinds(weights: Iterable[torch.Tensor]) -> set[tuple[torch.device, torch.dtype]]:
    """Where they are and in which precisions; whole numbers do not count."""
    return {(weight.device, weight.dtype) for weight in weights if weight.is_floating_point()}


class _Used(BaseException):
    """Ends a forward pass at the first module that has weights."""


def first_used(net: nn.Module, images: torch.Tensor) -> tuple[nn.Module | None, torch.Tensor | None]:
    """The module with weights of its own that the network uses first for such images, and what it is given there."""
    thread = threading.get_ident()

    def hear(module, args):
        if threading.get_ident() == thread:
            raise _Used(module, *args[:1])

    heard = [m.register_forward_pre_hook(hear) for m in net.modules() if _kinds(m.parameters(recurse=False))]
    try:
        with torch.no_grad():
            net(images.clone())
    except _Used as used:
        return (*used.args, None)[:2]
    except RuntimeError:  # the same that will be said of the whole pass
        pass
    finally:
        for hook in heard:
            hook.remove()
    return None, None


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
        raise ValueError("layer is missing: this network names none; give some module path of named_modules()")
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
    names = layer_names(net)
    listed = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    got = type(layer).__name__ if isinstance(layer, nn.Module) else repr(layer)
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
