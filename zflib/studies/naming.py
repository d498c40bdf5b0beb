"""Name that channel: nine projections, a name of your own, and the test whether it says which picture comes next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Subset

from .. import data
from .._arguments import check_integer, check_layer, check_net, conv_layers
from ..data.image_source import images_of, open_source
from ..deconv import Deconvnet
from ..experiments.peaks import find_peaks
from ..experiments.top_k import Peaks
from . import gallery as figure2
from .gallery import Gallery, alive, crop

_KNOWN = 9  # strongest images whose projections are shown


@dataclass
class Round:
    """One question: which of eight pictures that were never mined excites a channel most?

    `projections` (p,3,h,w) and, where they may be shown, `patches` (p,3,h,w) of its strongest mined images, of which
    `fired` says the classes, if known. `pictures` (c,3,H,W) are the ones to choose from, in the network's units,
    `numbers` (c,) theirs among the images held out, `values` (c,) the channel's strongest activations over them.
    """

    layer: str
    channel: int
    projections: torch.Tensor
    patches: torch.Tensor | None
    fired: list[str]
    pictures: torch.Tensor
    numbers: torch.Tensor
    values: torch.Tensor

    @property
    def right(self) -> int:
        """Which of the pictures excites the channel most, from 0."""
        return int(self.values.argmax())


@dataclass
class Game:
    """Rounds and what was answered to them: names, and pictures chosen, from 0."""

    rounds: list[Round]
    names: list[str] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)

    def answer(self, name: str, choice: int) -> bool:
        """Keep the name, choose a picture (from 0); whether that one was right. After the last round: ValueError."""
        if self.over:
            raise ValueError(f"choice: all {len(self.rounds)} rounds are answered; start another game")
        last = len(self.rounds[len(self.choices)].pictures) - 1
        self.choices.append(check_integer("choice", choice, f"a picture from 0 to {last}", low=0, high=last))
        self.names.append(name.strip())
        return self.choices[-1] == self.rounds[len(self.choices) - 1].right

    @property
    def over(self) -> bool:
        """Whether every round is answered."""
        return len(self.choices) == len(self.rounds)

    @property
    def score(self) -> int:
        """How many choices were right."""
        return sum(choice == one.right for choice, one in zip(self.choices, self.rounds))

    def luck(self) -> float:
        """The probability of a score at least as high for somebody who guesses; see `luck`."""
        return luck(self.score, len(self.choices), choices=len(self.rounds[0].pictures))


def luck(score: int, rounds: int, *, choices: int = 8) -> float:
    """The probability of at least `score` right answers in `rounds` guesses among `choices` pictures: binomial."""
    from scipy.stats import binom  # slow to import

    return float(binom.sf(score - 1, rounds, 1 / choices))


def new_game(
    net: nn.Module, images=None, *, layer: str | None = None, rounds: int = 10, choices: int = 8, seed: int = 0,
    preprocess=None, labels=None, classes=None,
) -> Game:  # fmt: skip
    """A Game about channels of `layer` (by default the last convolutional one), drawn at random among those alive.

    `images`, numbered as `find_peaks` takes them: half of them, drawn at random, is mined and gives the projections
    with their patches; the pictures to choose from come from the other half, which is held out. `labels` (N,) and
    `classes` say what they are. Without images: the projections of the network's gallery over a thousand photographs,
    which cannot be shown themselves, for the channels that it draws (those named by hand among them, which are easier),
    and windows of the shipped photographs as pictures.

    Of the pictures one is the held-out image that excites the channel most; the others are drawn at random among those
    that excite it less than half as much. A channel is passed over if there are too few of these, or if no held-out
    image excites it half as much as the weakest of the nine mined ones: then there is nothing to recognise.
    The control: a game with an untrained network, `new_game(zflib.zfnet56().eval(), images)`. Too few channels that
    can be asked for: ValueError.
    """
    check_net(net)
    layer = check_layer(net, layer or conv_layers(net)[-1])
    count = check_integer("rounds", rounds, "a whole number, at least 1", low=1)
    size = check_integer("choices", choices, "a whole number, at least 2", low=2)
    generator = torch.Generator().manual_seed(seed)
    mined = (
        _Shipped(net, layer) if images is None else _Split(net, images, layer, generator, preprocess, labels, classes)
    )
    held = find_peaks(net, mined.held_out, layers=[layer], k=len(mined.held_out), preprocess=preprocess)[layer]
    found = []
    for channel in _shuffled(mined.channels, generator):
        candidates = _candidates(held, mined.weakest(channel), channel, size, generator)
        if candidates is not None:
            found.append(_round(net, mined, channel, *candidates, preprocess))
        if len(found) == count:
            return Game(found)
    raise ValueError(f"rounds: {layer} has {len(found)} channels to ask for over these images, got {count}; "
                     "play fewer rounds, or give more images")  # fmt: skip


def _shuffled(channels: torch.Tensor, generator: torch.Generator) -> list[int]:
    return channels[torch.randperm(len(channels), generator=generator)].tolist()


def _candidates(held: Peaks, weakest: float, channel: int, size: int, generator) -> tuple | None:
    """(numbers (size,), values (size,)) of the strongest held-out image and of weak ones, in random order."""
    values, numbers = held.values[channel], held.images[channel]  # strongest first
    weak = (values < values[0] / 2).nonzero().flatten()
    if values[0] < weakest / 2 or values[0] <= 0 or len(weak) < size - 1:
        return None
    others = weak[torch.randperm(len(weak), generator=generator)[: size - 1]]
    chosen = torch.cat([torch.tensor([0]), others])[torch.randperm(size, generator=generator)]
    return numbers[chosen], values[chosen]


def _round(net, mined, channel: int, numbers: torch.Tensor, values: torch.Tensor, preprocess) -> Round:
    projections, patches, fired = mined.show(channel)
    pictures = images_of(net, mined.held_out, numbers, preprocess=preprocess)
    return Round(mined.layer, channel, projections, patches, fired, pictures.cpu(), numbers, values.cpu())


class _Shipped:
    """Projections from the network's gallery over photographs; windows of the shipped photographs are held out."""

    def __init__(self, net: nn.Module, layer: str):
        name = getattr(net, "card", {}).get("name")
        if name is None:
            raise ValueError("images are needed for this network: it is none of those that zflib ships")
        self.gallery: Gallery = figure2.load(name, photographs=True)
        self.layer, self.channels = layer, self.gallery.chosen[layer]
        self.held_out = data.windows(sizes=(96, 144, 216), stride=1 / 2, side=net.geometry.resize).pixels

    def weakest(self, channel: int) -> float:
        return float(self.gallery.peaks[self.layer].values[channel, -1])

    def show(self, channel: int) -> tuple[torch.Tensor, None, list[str]]:
        return self.gallery.nine(self.layer, channel), None, self.gallery.class_names(self.layer, channel)


class _Split:
    """Half of the images is mined, the other half is held out."""

    def __init__(self, net, images, layer: str, generator, preprocess, labels, classes):
        images = data.folder(images) if isinstance(images, (str, Path)) else images
        count = open_source(net, images, preprocess).count
        if count is None or count < 4 * _KNOWN:
            raise ValueError(f"images must be numbered and at least {4 * _KNOWN}, got {count or 'an iterator'}")
        order = torch.randperm(count, generator=generator).tolist()
        self.mined, self.held_out = Subset(images, order[: count // 2]), Subset(images, order[count // 2 :])
        self.net, self.layer, self.preprocess = net, layer, preprocess
        self.labels = None if labels is None else torch.as_tensor(labels)[order[: count // 2]]
        self.classes = list(getattr(net, "classes", []) if classes is None else classes)
        self.peaks = find_peaks(net, self.mined, layers=[layer], k=_KNOWN, preprocess=preprocess)[layer]
        self.channels = alive(self.peaks)

    def weakest(self, channel: int) -> float:
        return float(self.peaks.values[channel, -1])

    def show(self, channel: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        numbers, positions = self.peaks.images[channel], self.peaks.positions[channel]
        images = images_of(self.net, self.mined, numbers, preprocess=self.preprocess)
        whole = Deconvnet(self.net).project(images, self.layer, channel, positions=positions)
        fired = [] if self.labels is None else [self.classes[label] for label in self.labels[numbers].tolist()]
        return *(crop(self.net, self.layer, pictures.cpu(), positions) for pictures in (whole, images)), fired


def table(game: Game) -> list[tuple[str, str, bool, str]]:
    """For each round answered: the channel, your name for it, whether your picture was right, and what had fired."""
    rows = []
    for one, name, choice in zip(game.rounds, game.names, game.choices):
        fired = ", ".join(what for what, _ in Counter(one.fired).most_common(4))
        rows.append((f"{one.layer}, channel {one.channel}", name, choice == one.right, fired))
    return rows
