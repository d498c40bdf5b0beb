"""Drawing the channels of an atlas: each photograph goes forward once for many channels, which then go down."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .. import show
from ..data.image_source import NumberedImages, in_units
from ..deconv import Deconvnet
from ..record import Tape
from . import pictures
from .chapters import Chapter

TOGETHER = 16  # photographs in one forward pass
SEEDS = 16  # activations that go down together
HELD = 2**28  # bytes of photographs that are kept in memory, so that they need not be read again


class Photographs:
    """The photographs as the network takes them, by their numbers; as many as fit into HELD bytes are read only once.

    What was read first is kept: passes go through them in order, so the least recently used would never be needed.
    """

    def __init__(self, net: nn.Module, source: NumberedImages):
        self.net, self.source, self.count, self.room = net, source, source.count, HELD
        self.kept: dict[int, torch.Tensor] = {}

    def __call__(self, numbers: list[int]) -> torch.Tensor:
        """(N,3,H,W) in the network's units."""
        return in_units(self.net, torch.stack([self._one(number) for number in numbers]))

    def _one(self, number: int) -> torch.Tensor:
        if number in self.kept:
            return self.kept[number]
        image = self.source[number]
        if image.nbytes <= self.room:
            self.kept[number], self.room = image.clone(), self.room - image.nbytes
        return image


@dataclass(frozen=True)
class Winner:
    """One of the K photographs of a channel: its number, the channel, and its rank among the K."""

    image: int
    channel: int
    rank: int


def draw_channels(
    deconvnet: Deconvnet, photographs: Photographs, chapter: Chapter, channels: range
) -> dict[int, np.ndarray]:
    """channel -> its sheet, as `pictures` draws it; each photograph goes forward once for all of them."""
    sheets = {channel: pictures.empty_sheet() for channel in channels}
    drawn: deque[Future] = deque()
    with ThreadPoolExecutor(2) as pens:  # some draw what came down while the next ones go down
        for some in _together(chapter, channels):
            numbers = sorted({winner.image for winner in some})
            images = photographs(numbers)
            pixels = {n: show.image_pixels(image, deconvnet.net) for n, image in zip(numbers, images)}
            tape = deconvnet.record(images, chapter.layer)
            for seeds in batched(some, SEEDS):
                projections = _project(deconvnet, tape, chapter, seeds, numbers)
                drawn.append(pens.submit(_draw, sheets, chapter, seeds, pixels, projections))
                if len(drawn) > 2:
                    drawn.popleft().result()
        for job in drawn:
            job.result()
    return sheets


def _together(chapter: Chapter, channels: range) -> Iterator[list[Winner]]:
    """The channels' winners, those of TOGETHER photographs at a time."""
    winners: dict[int, list[Winner]] = defaultdict(list)
    for channel in channels:
        for rank, image in enumerate(chapter.peaks.images[channel].tolist()):
            if image >= 0:  # -1: there are fewer than K photographs
                winners[image].append(Winner(image, channel, rank))
    for numbers in batched(sorted(winners), TOGETHER):
        yield [winner for number in numbers for winner in winners[number]]


def _project(deconvnet: Deconvnet, tape: Tape, chapter: Chapter, seeds: Sequence[Winner], numbers: list[int]):
    """(B,3,H,W): the winners' activations projected down, each from the photograph that it was found in."""
    device = tape.activations.device
    owners = torch.tensor([numbers.index(winner.image) for winner in seeds], device=device)
    channels = torch.tensor([winner.channel for winner in seeds], device=device)
    positions = torch.stack([chapter.peaks.positions[winner.channel, winner.rank] for winner in seeds])
    return deconvnet.descend(tape, owners, channels, positions.to(device)).cpu()


def _draw(sheets: dict[int, np.ndarray], chapter: Chapter, seeds: Sequence[Winner], pixels, projections) -> None:
    for winner, projection in zip(seeds, projections):
        box = chapter.boxes[winner.channel, winner.rank].tolist()
        pictures.draw(sheets[winner.channel], winner.rank, pixels[winner.image], projection, box)


def batched(items: Sequence, size: int) -> Iterator[Sequence]:
    """The items in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
