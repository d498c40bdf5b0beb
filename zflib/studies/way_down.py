"""Looking at a network that may have no way down: what was recorded is shown, and why nothing is projected is said."""

from __future__ import annotations

import torch
from torch import nn

from .._arguments import layer_path
from ..deconv import Deconvnet, Unsupported
from ..record import Tape, record
from ..record.inputs import check_images


class WayDown:
    """A `Deconvnet` for panels: it records any network that can be followed, and projects where there is a way down.

    `refused` is the sentence of the refusal, "" as long as nothing was refused.
    """

    def __init__(self, net: nn.Module, *, rule: str = "deconvnet"):
        self.net, self.refused, self._deconvnet = net, "", None
        try:
            self._deconvnet = Deconvnet(net, rule=rule)
        except Unsupported as error:
            self.refused = str(error)

    def record(self, images: torch.Tensor, layer: str, *, whole: bool = False) -> Tape:
        """As `Deconvnet.record`."""
        if self._deconvnet:
            return self._deconvnet.record(images, layer, whole=whole)
        return record(self.net, check_images(images, self.net), layer_path(self.net, layer), whole=whole)

    def descend(self, tape: Tape, owners, channels, positions) -> torch.Tensor | None:
        """(B,3,H,W) as `Deconvnet.descend`, None where that is refused."""
        try:
            return self._deconvnet.descend(tape, owners, channels, positions) if self._deconvnet else None
        except Unsupported as error:
            self.refused = str(error)
            return None
