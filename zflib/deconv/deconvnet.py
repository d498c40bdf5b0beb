"""The deconvnet of section 2: unpool with switches, rectify, filter with the transpose, down to the pixels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .._arguments import check_channels, check_choice, check_images, check_layer, check_positions, layer_path
from ..record.steps import Step
from ..record.tape import Tape, Unsupported, check_network, plain, record
from . import receptive_window

RULES = ("deconvnet", "gradient", "guided")
OVERLAPS = ("sum", "max", "last")


def unpool(pooled: torch.Tensor, switches: torch.Tensor, *, size, overlap: str = "sum") -> torch.Tensor:
    """(N,C,H,W) maps with each value of (N,C,h,w) `pooled` where its switch recorded the maximum (section 2.1).

    `switches` are the flat positions in the H x W map that `F.max_pool2d(..., return_indices=True)` gives;
    `size` is (H, W). Where windows overlap one place can win several times: `overlap` "sum" adds the values
    (the exact transpose of the pool), "max" keeps the largest, "last" the last in reading order.
    """
    check_choice("overlap", overlap, OVERLAPS)
    height, width = size = _two(size)
    if pooled.shape != switches.shape:
        raise ValueError(f"switches must be one per value, {tuple(pooled.shape)}, got {tuple(switches.shape)}")
    if switches.numel() and (int(switches.min()) < 0 or int(switches.max()) >= height * width):
        raise ValueError(f"switches point outside a {height}x{width} map; size is that of the map before pooling")
    return _unpool(pooled, switches, size, overlap)


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
    size, settings = _two(size), {"stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups}
    weight = conv.weight.detach()
    blank = torch.empty(1, conv.in_channels, *size, device="meta", dtype=weight.dtype)
    expected = F.conv2d(blank, weight.to("meta"), None, padding=conv.padding, **settings)
    if maps.dim() != 4 or maps.shape[1:] != expected.shape[1:]:
        given = ", ".join(map(str, expected.shape[1:]))
        raise ValueError(f"maps must be (N, {given}) for size {size[0]}x{size[1]}, got {tuple(maps.shape)}")
    return _filter(maps, weight, size, padding=_before(conv), **settings)


def _two(size) -> tuple[int, int]:
    """(H, W) from one side or from any shape that ends in them."""
    return (size, size) if isinstance(size, int) else tuple(size)[-2:]


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
        check_network(net)
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
        channels = check_channels(channels, tape.activations, layer)
        owners = torch.arange(len(channels), device=channels.device)
        if positions is None:
            positions = strongest(tape.activations)[owners, channels]
        else:
            positions = check_positions(positions, tape.activations, layer)
        return self.descend(tape, owners, channels, positions)

    def project_all(self, image: torch.Tensor, layer: str) -> torch.Tensor:
        """(C,3,H,W): every channel's strongest activation of one (3,H,W) image, from a single forward pass."""
        images = image[None] if isinstance(image, torch.Tensor) and image.dim() == 3 else image
        if isinstance(images, torch.Tensor) and images.dim() == 4 and len(images) > 1:
            raise ValueError(f"image must be one image, (3,H,W), got {len(images)}; use project for several")
        tape = self.record(images, layer)
        channels = torch.arange(tape.activations.shape[1], device=tape.activations.device)
        positions = strongest(tape.activations)[0]
        return self.descend(tape, torch.zeros_like(channels), channels, positions)

    def record(self, images: torch.Tensor, layer: str) -> Tape:
        """The forward pass up to `layer` as a `Tape`: its steps, its switches and the layer's activations."""
        images = check_images(images, self.net)
        check_layer(self.net, layer)
        tape = record(self.net, images, layer_path(self.net, layer), masks=self.rule != "deconvnet")
        if tape.activations.dim() not in (2, 4):
            shape = tuple(tape.activations.shape)
            raise Unsupported(f"layer {layer!r} gives {shape}; a deconvnet starts from maps (N,C,h,w) or units (N,C)")
        return tape

    def descend(self, tape: Tape, owners, channels, positions) -> torch.Tensor:
        """(B,3,H,W): walk down from B single activations; seed b sits in image owners[b] of the tape."""
        tape.check()
        chain = tape.chain() if self.overlap == "sum" else None
        local = receptive_window.possible(chain)
        with plain(tape.activations.device):
            seeds = receptive_window.seeds(tape, owners, channels, positions)
            projections = seeds.values.new_zeros(len(seeds.values), *tape.steps[0].shape[1:])
            alive = seeds.values.nonzero().flatten()  # a channel that is 0 everywhere projects to nothing: no work
            if local:
                alive = alive[receptive_window.order(tape, seeds.positions[alive])]
            for some in alive.split(receptive_window.chunk(tape)) if len(alive) else ():
                if local:
                    receptive_window.descend(self, tape, chain, seeds[some]).write_to(projections, some)
                else:
                    projections[some] = self._whole(tape, seeds[some])
        return projections

    def _whole(self, tape: Tape, seeds: receptive_window.Seeds) -> torch.Tensor:
        """(B,3,H,W): whole maps from the layer down to the image, through every branch."""
        signals = {len(tape.steps) - 1: seeds.maps(tape)}
        for place in range(len(tape.steps) - 1, 0, -1):
            if place in signals:  # else a branch that the layer does not depend on
                step, signal = tape.steps[place], signals.pop(place)
                for source, part in zip(step.inputs, self.down(step, signal, seeds.owners)):
                    signals[source] = signals[source] + part if source in signals else part
        return signals[0]

    def down(self, step: Step, signal: torch.Tensor, owners: torch.Tensor) -> list[torch.Tensor]:
        """One recorded step, backwards: what its output's `signal` (B,…) says about each of its inputs."""
        v = step.values
        match step.kind:
            case "pool":
                return [_unpool(signal, v["switches"][owners], v["size"], self.overlap)]
            case "rectify":
                return [self.rectified_(signal.clone(), v["mask"][owners] if "mask" in v else None)]
            case "filter":
                settings = {key: v[key] for key in ("stride", "padding", "dilation", "groups")}
                return [_filter(signal, v["weight"], v["size"], **settings)]
            case "scale":  # batch normalisation
                return [signal * v["gain"]]
            case "weights":  # a fully connected layer
                return [signal @ v["weight"].T]
            case "pass":  # response normalisation, dropout
                return [signal.to(v.get("dtype", signal.dtype))]
            case "add":
                return [signal * share if share != 1 else signal for share in v["shares"]]
            case "cat":
                return list(signal.split(v["parts"], dim=v["dim"]))
        return [_rearranged(step, signal)]

    def rectified_(self, signal: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The rule at a ReLU, in place; `mask` is where its output was positive on the way up."""
        if self.rule != "gradient":
            signal = signal.clamp_(min=0)  # `rectify`, without a second copy of the maps
        return signal if mask is None else signal.mul_(mask)


def _rearranged(step: Step, signal: torch.Tensor) -> torch.Tensor:
    """Backwards through the steps of one input that are linear under every rule."""
    v = step.values
    if step.kind == "reshape":
        return signal.reshape(len(signal), *v["size"][1:])
    if step.kind == "convolve":  # a transposed convolution: its transpose is the plain one
        maps = F.conv2d(signal, v["weight"], None, v["stride"], v["padding"], v["dilation"], v["groups"])
        return maps[..., : v["size"][0], : v["size"][1]]
    if step.kind != "linear":
        raise AssertionError(f"no way down for a step {step.kind!r}, and Tape.check did not refuse it")
    start = signal.new_zeros(len(signal), *v["size"][1:])
    return torch.func.vjp(v["function"], start)[1](signal)[0]


def strongest(activations: torch.Tensor) -> torch.Tensor:
    """(N,C,2) row and column of every map's maximum, the first in reading order; zeros for (N,C) units."""
    if activations.dim() == 2:
        return activations.new_zeros(*activations.shape, 2, dtype=torch.int64)
    flat, width = activations.flatten(-2).argmax(dim=-1), activations.shape[-1]
    return torch.stack([flat // width, flat % width], dim=-1)
