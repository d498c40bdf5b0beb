"""The deconvnet of section 2: unpool with switches, rectify, filter with the transpose, from one activation to pixels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from . import windows
from .checks import check_choice, check_images, check_layer, layer_path
from .tape import Step, Tape, Unsupported, record, refuse_modules

RULES = ("deconvnet", "gradient", "guided")
OVERLAPS = ("sum", "max", "last")


def unpool(pooled: torch.Tensor, switches: torch.Tensor, *, size, overlap: str = "sum") -> torch.Tensor:
    """(N,C,H,W) maps with each value of (N,C,h,w) `pooled` where its switch recorded the maximum (section 2.1).

    `switches` are the flat positions in the H x W map that `F.max_pool2d(..., return_indices=True)` gives;
    `size` is (H, W). Where windows overlap one place can win several times: `overlap` "sum" adds the values
    (the exact transpose of the pool), "max" keeps the largest, "last" the last in reading order.
    """
    check_choice("overlap", overlap, OVERLAPS)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    if pooled.shape != switches.shape:
        raise ValueError(f"switches have shape {tuple(switches.shape)}, pooled has {tuple(pooled.shape)}: one per value")
    if switches.numel() and not (0 <= int(switches.min()) and int(switches.max()) < height * width):
        raise ValueError(f"switches point outside a {height}x{width} map; size is that of the map before pooling")
    return _unpool(pooled, switches, (height, width), overlap)


def _unpool(pooled: torch.Tensor, switches: torch.Tensor, size: tuple[int, int], overlap: str) -> torch.Tensor:
    values, places = pooled.flatten(-2), switches.flatten(-2)
    maps = values.new_zeros(*values.shape[:-1], size[0] * size[1])
    if overlap == "max":
        maps.scatter_reduce_(-1, places, values, "amax", include_self=False)
    elif overlap == "last":
        order = torch.arange(values.shape[-1], device=values.device).expand_as(places)
        latest = torch.zeros_like(maps, dtype=torch.int64).scatter_reduce_(-1, places, order, "amax")
        maps.scatter_add_(-1, places, values.where(latest.gather(-1, places) == order, 0))
    else:
        maps.scatter_add_(-1, places, values)
    return maps.unflatten(-1, size)


def rectify(maps: torch.Tensor) -> torch.Tensor:
    """Negative values of the reconstruction become 0, whatever the forward ReLU did (section 2.1); any shape."""
    return maps.clamp(min=0)


def transposed_filter(maps: torch.Tensor, conv: nn.Conv2d, *, size) -> torch.Tensor:
    """(N,Cin,H,W) from (N,Cout,h,w): `conv`'s filters transposed, without its bias (section 2.1).

    `size` is (H, W), the size of the maps that went into `conv` (a stride leaves it open: 224 and 223 both give 110).
    """
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"conv must be an nn.Conv2d, got {type(conv).__name__}")
    if conv.padding_mode != "zeros":
        raise ValueError(f"conv pads with {conv.padding_mode!r}; the transpose is defined here for zero padding")
    size = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    probe = torch.empty(1, conv.in_channels, *size, device="meta")
    expected = F.conv2d(probe, conv.weight.detach().to("meta"), None, conv.stride, conv.padding, conv.dilation, conv.groups)
    if maps.dim() != 4 or maps.shape[1:] != expected.shape[1:]:
        raise ValueError(f"maps have shape {tuple(maps.shape)}, but conv gives (N, {', '.join(map(str, expected.shape[1:]))}) "
                         f"for size {size[0]}x{size[1]}")  # fmt: skip
    settings = {"stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups}
    return _filter(maps, conv.weight.detach(), size, padding=_before(conv), **settings)


def _before(conv: nn.Conv2d) -> tuple[int, int]:
    """Rows above and columns left of the map that the forward pass pads with zeros."""
    if conv.padding == "same":
        return tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size))
    return (0, 0) if conv.padding == "valid" else conv.padding


def _filter(maps, weight, size, *, stride, padding, dilation, groups) -> torch.Tensor:
    reached = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(maps.shape[2:], stride, dilation, weight.shape[2:])]
    # where the stride does not divide exactly, no filter reached the last rows and columns: they stay 0
    missing = [n + 2 * p - r for n, p, r in zip(size, padding, reached)]
    if all(0 <= m < max(s, d) for m, s, d in zip(missing, stride, dilation)):
        return F.conv_transpose2d(maps, weight, None, stride, padding, missing, groups, dilation)
    whole = F.conv_transpose2d(maps, weight, None, stride, 0, 0, groups, dilation)  # padded unevenly, as "same" may be
    whole = F.pad(whole, (0, max(0, missing[1]), 0, max(0, missing[0])))
    return whole[..., padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


class Deconvnet:
    """A deconvnet attached to `net`: shows which pixels one activation came from (section 2.1, Figure 1).

    Works on any feed-forward network of convolutions, ReLUs, pools, batch or response normalisation, dropout,
    linear layers, sums and concatenations; anything else is refused by name. `rule` says what happens at a
    ReLU on the way down: "deconvnet" clamps the reconstruction, "gradient" lets through what the forward
    ReLU let through, "guided" does both. `overlap`: see `unpool`. Response normalisation is passed unchanged
    and no bias is used, under every rule. The network is left exactly as it was found.
    """

    def __init__(self, net: nn.Module, *, rule: str = "deconvnet", overlap: str = "sum"):
        if not isinstance(net, nn.Module):
            raise TypeError(f"net must be a torch network (nn.Module), got {type(net).__name__}")
        check_choice("rule", rule, RULES)
        check_choice("overlap", overlap, OVERLAPS)
        refuse_modules(net)
        self.net, self.rule, self.overlap = net, rule, overlap

    def activations(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """(N,C,h,w) maps of `layer` for (N,3,H,W) images, (N,C) for a fully connected layer."""
        return self.record(images, layer).activations

    def project(self, images: torch.Tensor, layer: str, channels, *, positions=None) -> torch.Tensor:
        """(N,3,H,W): one activation of `layer` per image, projected down to pixels.

        `channels` is one channel or one per image; `positions` (row, column) or (N,2), by default each map's
        strongest (the first in reading order where it is tied). Everything else in the layer is set to 0.
        """
        tape = self.record(images, layer)
        channels = _channels(channels, tape.activations, layer)
        if positions is None:
            positions = strongest(tape.activations)[torch.arange(len(channels)), channels]
        else:
            positions = _positions(positions, tape.activations, layer)
        owners = torch.arange(len(channels), device=channels.device)
        return self.descend(tape, owners, channels, positions)

    def project_all(self, image: torch.Tensor, layer: str) -> torch.Tensor:
        """(C,3,H,W): every channel's strongest activation of one (3,H,W) image, from a single forward pass."""
        images = image[None] if isinstance(image, torch.Tensor) and image.dim() == 3 else image
        tape = self.record(images, layer)
        if len(tape.activations) != 1:
            raise ValueError(f"image must be one image, (3,H,W), got {len(images)}; use project for several")
        count = tape.activations.shape[1]
        channels = torch.arange(count, device=tape.activations.device)
        return self.descend(tape, torch.zeros_like(channels), channels, strongest(tape.activations)[0])

    def record(self, images: torch.Tensor, layer: str) -> Tape:
        """The forward pass up to `layer` as a `Tape`: its steps, its switches and the layer's activations."""
        images = check_images(images, self.net)
        check_layer(self.net, layer)
        tape = record(self.net, images, layer_path(self.net, layer), masks=self.rule != "deconvnet")
        if tape.activations.dim() not in (2, 4):
            shape = tuple(tape.activations.shape)
            raise Unsupported(f"layer {layer!r} gives {shape}; a deconvnet starts from maps (N,C,h,w) or units (N,C)")
        return tape

    def descend(self, tape: Tape, owners: torch.Tensor, channels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(B,3,H,W): walk down from B single activations; seed b sits in image owners[b] of the tape."""
        index = (owners, channels, *positions.unbind(-1)) if tape.activations.dim() == 4 else (owners, channels)
        values = tape.activations[index]
        alive = values.nonzero().flatten()  # a channel that is 0 everywhere projects to nothing: no work
        projections = values.new_zeros(len(values), *tape.steps[0].shape[1:])
        chain = tape.chain() if self.overlap == "sum" else None
        local = windows.possible(chain)
        if local:
            alive = alive[windows.order(tape, positions[alive])]
        with torch.no_grad():
            for some in alive.split(windows.chunk(tape)):
                seeds = windows.Seeds(values[some], owners[some], channels[some], positions[some])
                if local:
                    zero = torch.zeros_like(some)
                    windows.descend(self, tape, chain, seeds).copy_to([projections[i] for i in some.tolist()], zero, zero)
                else:
                    projections[some] = self._whole(tape, seeds.owners, seeds.maps(tape))
        return projections

    def _whole(self, tape: Tape, owners: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """Whole maps from the layer down to the image, through every branch; `signal` is (B,C,h,w)."""
        signals = {len(tape.steps) - 1: signal}
        for place in range(len(tape.steps) - 1, 0, -1):
            signal = signals.pop(place, None)
            if signal is None:
                continue  # a branch that the layer does not depend on
            step = tape.steps[place]
            for source, part in zip(step.inputs, self.down(step, signal, owners)):
                signals[source] = signals[source] + part if source in signals else part
        return signals[0]

    def down(self, step: Step, signal: torch.Tensor, owners: torch.Tensor) -> list[torch.Tensor]:
        """One recorded step, backwards: what its output's `signal` (B,…) says about each of its inputs."""
        v = step.values
        match step.kind:
            case "filter":
                settings = {key: v[key] for key in ("stride", "padding", "dilation", "groups")}
                return [_filter(signal, v["weight"], v["size"], **settings)]
            case "rectify":
                return [self.rectified_(signal.clone(), v["mask"][owners] if "mask" in v else None)]
            case "pool":
                return [_unpool(signal, v["switches"][owners], v["size"], self.overlap)]
            case "scale":
                return [signal * v["gain"]]
            case "weights":
                return [signal @ v["weight"].T]
            case "pass":
                return [signal]
            case "reshape":
                return [signal.reshape(len(signal), *v["size"][1:])]
            case "add":
                return [signal * share if share != 1 else signal for share in v["shares"]]
            case "cat":
                return list(signal.split(v["parts"], dim=v["dim"]))
            case "convolve":
                return [F.conv2d(signal, v["weight"], None, v["stride"], v["padding"], v["dilation"], v["groups"])]
            case "linear":
                start = signal.new_zeros(len(signal), *v["size"][1:])
                return list(torch.func.vjp(v["function"], start)[1](signal))
        where = f" in module {v['where']!r}" if v["where"] else ""
        raise Unsupported(f"the network uses {v['name']!r}{where}, for which a deconvnet has no rule")

    def rectified_(self, signal: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The rule at a ReLU, in place; `mask` is where its output was positive on the way up."""
        if self.rule != "gradient":
            signal = signal.clamp_(min=0)  # `rectify`, without a second copy of the maps
        return signal if mask is None else signal.mul_(mask)


def strongest(activations: torch.Tensor) -> torch.Tensor:
    """(N,C,2) row and column of every map's maximum, the first in reading order; zeros for (N,C) units."""
    if activations.dim() == 2:
        return activations.new_zeros(*activations.shape, 2, dtype=torch.int64)
    flat, width = activations.flatten(-2).argmax(dim=-1), activations.shape[-1]
    return torch.stack([flat // width, flat % width], dim=-1)


def _channels(channels, activations: torch.Tensor, layer: str) -> torch.Tensor:
    n, count = activations.shape[:2]
    try:
        wanted = torch.as_tensor(channels, device=activations.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"channels must be one integer or one per image, got {channels!r}") from error
    if wanted.is_floating_point() or wanted.dtype == torch.bool or wanted.dim() > 1:
        raise TypeError(f"channels must be one integer or one per image, got {channels!r}")
    if wanted.dim() == 1 and len(wanted) != n:
        raise ValueError(f"channels has {len(wanted)} entries for {n} images; give one channel, or one per image")
    outside = wanted[(wanted < 0) | (wanted >= count)] if wanted.dim() else wanted[None][(wanted[None] < 0) | (wanted[None] >= count)]
    if len(outside):
        raise ValueError(f"channels: layer {layer!r} has {count} channels (0 to {count - 1}), got {int(outside[0])}")
    return wanted.long().expand(n)


def _positions(positions, activations: torch.Tensor, layer: str) -> torch.Tensor:
    if activations.dim() == 2:
        raise ValueError(f"positions: layer {layer!r} is fully connected, its units have no position; leave positions out")
    n, limits = len(activations), torch.tensor(activations.shape[-2:], device=activations.device)
    try:
        wanted = torch.as_tensor(positions, device=activations.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"positions must be (row, column) or one pair per image, got {positions!r}") from error
    if wanted.is_floating_point() or wanted.shape not in ((2,), (n, 2)):
        raise ValueError(f"positions must be integers, (row, column) or ({n}, 2), got shape {tuple(wanted.shape)}")
    if bool(((wanted < 0) | (wanted >= limits)).any()):
        raise ValueError(f"positions: the maps of layer {layer!r} are {limits[0]}x{limits[1]}, got {wanted.tolist()}")
    return wanted.long().expand(n, 2)
