"""The deconvnet of section 2: a network's record, walked back down to the pixels by `rules`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from .._arguments import (
    check_channels,
    check_finite,
    check_layer,
    check_net,
    check_positions,
    layer_path,
)
from ..record import Tape, Unsupported, record
from ..record.hooks import plain
from ..record.inputs import check_images
from ..record.tape import check_watchable
from . import _receptive_window
from .rules import Rules, own_rules, walk


class Deconvnet:
    """A deconvnet attached to `net`: shows which pixels one activation came from (section 2.1, Figure 1).

    Works on any feed-forward network of convolutions, ReLUs, pools, batch or response normalisation, dropout,
    linear layers, sums and concatenations; anything else is refused by name. `rule` says what happens at a
    ReLU on the way down: "deconvnet" clamps the reconstruction, "gradient" lets through what the forward
    ReLU let through, "guided" does both. `overlap`: see `unpool`. Response normalisation is passed unchanged
    and no bias is used, under every rule. The network is left exactly as it was found.

    `rules` adds a rule for a kind of module, {nn.GELU: function}: function(signal, input, output) gives the signal
    (B,…) at the module's input from that at its output; input and output are what went through it on the way up. A
    rule for a block is one for all that is in it.
    By default it is what the network carries as `net.deconv_rules`: that way the explorers and the atlas know it, too.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        rule: str = "deconvnet",
        overlap: str = "sum",
        rules: Mapping[type[nn.Module], Callable] | None = None,
    ):
        check_net(net)
        self.net, self.rules = net, Rules(rule, overlap, own_rules(net, rules))
        self.rules.check_network(net)
        check_watchable(net)

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

    def record(self, images: torch.Tensor, layer: str, *, whole: bool = False) -> Tape:
        """The forward pass up to `layer` as a `Tape`: its steps, its switches and the layer's activations.

        With `whole` the pass goes on to the network's end, and the tape has its `scores` as well.
        """
        images = check_images(images, self.net)
        layer = check_layer(self.net, layer)
        path, masks = layer_path(self.net, layer), self.rules.rule != "deconvnet"
        tape = record(self.net, images, path, masks=masks, whole=whole, ruled=self.rules.own)
        if tape.activations.dim() not in (2, 4):
            shape = tuple(tape.activations.shape)
            raise Unsupported(f"layer {layer!r} gives {shape}; a deconvnet starts from maps (N,C,h,w) or units (N,C)")
        check_finite(tape.activations, f"layer {layer!r}")
        return tape

    def descend(self, tape: Tape, owners, channels, positions) -> torch.Tensor:
        """(B,3,H,W): walk down from B single activations; seed b sits in image owners[b] of the tape."""
        self.rules.check_way(tape)
        with plain(tape.activations.device):
            seeds = _receptive_window.seeds(tape, owners, channels, positions)
            projections = seeds.values.new_zeros(len(seeds.values), *tape.steps[0].shape[1:])
            alive = seeds.values.nonzero().flatten()  # a channel that is 0 everywhere projects to nothing: no work
            local = _receptive_window.possible(tape, self.rules)
            if local:
                alive = alive[_receptive_window.order(tape, seeds.positions[alive])]
            for some in alive.split(_receptive_window.chunk(tape, local)) if len(alive) else ():
                if local:
                    _receptive_window.descend(self.rules, tape, seeds[some]).write_to(projections, some)
                else:
                    projections[some] = self._whole(tape, seeds[some])
        check_finite(projections, "projecting down")
        return projections

    def _whole(self, tape: Tape, seeds: _receptive_window.Seeds) -> torch.Tensor:
        """(B,3,H,W): whole maps from the layer down to the image, through every branch."""
        return walk(tape, seeds.maps(tape), lambda step, signal: self.rules.down(step, signal, seeds.owners))


def strongest(activations: torch.Tensor) -> torch.Tensor:
    """(N,C,2) row and column of every map's maximum, the first in reading order; zeros for (N,C) units."""
    if activations.dim() == 2:
        return activations.new_zeros(*activations.shape, 2, dtype=torch.int64)
    flat, width = activations.flatten(-2).argmax(dim=-1), activations.shape[-1]
    return torch.stack([flat // width, flat % width], dim=-1)
