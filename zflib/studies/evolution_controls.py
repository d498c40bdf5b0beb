"""What a sceptic asks of Figure 4: is a jump a change of the feature, and would layers settle in this order anyway?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .. import _files, show, train
from ..deconv import Deconvnet
from ..experiments.peaks import find_peaks
from ..train.recipes import Progress, learning_rate
from .evolution import changed, filter_agreement, held, last_of, response_agreement

# --- which layers settle first ----------------------------------------------------------------------------------------


def rate(recipe: train.Recipe, time: float) -> float:
    """The learning rate after `time` epochs; a schedule that waits for plateaus meets none."""
    step = round(time * 1000)
    return learning_rate(recipe, Progress(epoch=step // 1000, step=step % 1000, lr=recipe.lr), 1000)


def walk(recipe: train.Recipe, epochs: Sequence[int], *, start: float = 0.0, steps: int = 60) -> dict[int, float]:
    """epoch -> expected cosine with its end of a walk without aim, in a space of many dimensions.

    Each of `steps` an epoch goes in a random direction, as far as the recipe's learning rate. `start` is the cosine
    between the walk's first and last point. With s the share of the squared steps that is done, the cosine is the root
    of start^2 + (1 - start^2) s: what was there at the start stays, the rest is collected step by step.
    """
    squares = torch.tensor([rate(recipe, step / steps) for step in range(recipe.epochs * steps)]).square()
    done = torch.cat([torch.zeros(1), squares.cumsum(0) / squares.sum()])[[epoch * steps for epoch in epochs]]
    return dict(zip(epochs, (start**2 + (1 - start**2) * done).sqrt().tolist()))


def rewound(nets: dict[int, nn.Module], layer: str) -> dict[int, nn.Module]:
    """epoch -> the last network, but with the filters that `layer` had at that epoch; everything below has settled."""
    found = {}
    for epoch, net in sorted(nets.items()):
        found[epoch] = deepcopy(last_of(nets))
        found[epoch].get_submodule(layer).load_state_dict(net.get_submodule(layer).state_dict())
    return found


def agreements(nets: dict[int, nn.Module], images: torch.Tensor, recipe: train.Recipe) -> dict[str, dict]:
    """What -> layer -> epoch -> agreement with the last snapshot, of `images` (N,3,H,W) in the networks' units.

    "filters": cosines; "walk": what these would be for a walk that begins and ends where the filters do; "responses":
    correlations of maps; "alone": the same with all layers below as they are at the end.
    """
    layers, first = last_of(nets).conv_names, min(nets)
    filters = {layer: filter_agreement(nets, layer) for layer in layers}
    starts = {layer: filters[layer][first] if first == 0 else 0.0 for layer in layers}
    return {
        "filters": filters,
        "walk": {layer: walk(recipe, sorted(nets), start=max(0.0, starts[layer])) for layer in layers},
        "responses": {layer: response_agreement(nets, images, layer) for layer in layers},
        "alone": {layer: response_agreement(rewound(nets, layer), images, layer) for layer in layers},
    }


# --- is a jump a change of the feature? -------------------------------------------------------------------------------


def alike(views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """((E-1,C) cosine of each of (E,C,3,H,W) projections with the one before, (E-1,C) bool where neither is empty)."""
    flat = views.flatten(2)
    lit = flat.abs().amax(dim=2) > 0
    flat = flat / flat.abs().amax(dim=2, keepdim=True).clamp(min=1e-30)  # torch's cosine shrinks those below 1e-8
    return F.cosine_similarity(flat[1:], flat[:-1], dim=2), lit[1:] & lit[:-1]


def gap(likeness: torch.Tensor, jumped: torch.Tensor, both: torch.Tensor) -> float:
    """Likeness (E-1,C) where the winner jumped, less where it stayed: within each snapshot, then the snapshots' mean.

    Pooling all snapshots compares early epochs with late ones: early on nearly every winner jumps and every picture
    changes. NaN if no snapshot has channels of both kinds.
    """
    rows = zip(likeness, jumped & both, ~jumped & both)
    differences = [
        row[leapt].mean() - row[stayed].mean() for row, leapt, stayed in rows if leapt.any() and stayed.any()
    ]
    return float(torch.stack(differences).mean()) if differences else float("nan")


def shuffled_gaps(likeness, jumped, both, *, draws: int = 1000, seed: int = 0) -> torch.Tensor:
    """(draws,) the gap after "jumped" and "stayed" were dealt anew among the channels of each snapshot."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        dealt = jumped.clone()
        for row, some in zip(dealt, both):
            places = some.nonzero().flatten()
            row[places] = row[places[torch.randperm(len(places), generator=generator)]]
        found.append(gap(likeness, dealt, both))
    return torch.tensor(found)


@dataclass
class JumpTest:
    """The gap, how many channels jumped and stayed, the standard deviation of shuffled gaps, and p (one-sided)."""

    gap: float
    jumped: int
    stayed: int
    spread: float
    p: float

    def words(self) -> str:
        """All of it in one line."""
        chance, counts = f"shuffled ± {self.spread:.3f}", f"{self.jumped} jumped, {self.stayed} stayed"
        return f"likeness {self.gap:+.3f} where the winner jumped ({chance}), p = {self.p:.3f}; {counts}"


def jump_test(nets, images: torch.Tensor, layer: str, winners: torch.Tensor, channels: list[int]) -> JumpTest:
    """Did features whose winner jumped change more? `winners` (E,C) are numbers of `images`, in the networks' units.

    Every channel's last winner is held, so that only the feature changes. p: the share of 1000 deals with a gap as low.
    """
    views = held(nets, images[winners[-1, channels]], layer, channels)
    likeness, both = alike(views)
    jumped = changed(winners)[1:, channels]
    found, chance = gap(likeness, jumped, both), shuffled_gaps(likeness, jumped, both)
    p = float(((chance <= found).sum() + 1) / (len(chance) + 1))
    return JumpTest(found, int((jumped & both).sum()), int((~jumped & both).sum()), float(chance.std()), p)


def rivals(nets: dict[int, nn.Module], image: torch.Tensor, layer: str, channel: int) -> torch.Tensor:
    """(E,C): how like each channel's projection, at each snapshot, is to the last one of `channel`: correlations.

    All of one image (1,3,H,W) in the networks' units, from the position where `channel` is strongest at the end. A rim
    that every channel draws there says nothing about this one. NaN where a channel is silent.
    """
    last = last_of(nets)
    maps = Deconvnet(last).activations(image, layer)[0]  # (C,h,w)
    channels, place = torch.arange(len(maps)), int(maps[channel].argmax())
    positions = torch.tensor([divmod(place, maps.shape[-1])]).repeat(len(maps), 1)
    images, rows = image.expand(len(maps), -1, -1, -1), []
    for _, net in sorted(nets.items()):
        views = Deconvnet(net).project(images, layer, channels, positions=positions).cpu().flatten(1)  # (C,3HW)
        views = views / views.abs().amax(dim=1, keepdim=True)  # silent: 0 / 0; untrained: 1e-9, below torch's smallest
        rows.append(views - views.mean(dim=1, keepdim=True))
    return F.cosine_similarity(torch.stack(rows), rows[-1][channel].expand(len(rows), len(maps), -1), dim=2)


def rank_among(likeness: torch.Tensor, channel: int) -> list[tuple[int, int] | None]:
    """Of each row of `rivals`: (the place of `channel`, 1 for the likest; how many are not silent), None if silent."""
    ranks = []
    for row in likeness:
        silent, better = bool(row[channel].isnan()), int((row > row[channel]).sum())
        ranks.append(None if silent else (better + 1, int((~row.isnan()).sum())))
    return ranks


# --- jumps without learning -------------------------------------------------------------------------------------------


def pushed(net: nn.Module, strength: float, generator: torch.Generator) -> nn.Module:
    """A copy whose conv filters were pushed in random directions, each by `strength` of its own length."""
    copy = deepcopy(net)
    for module in copy.modules():
        if isinstance(module, nn.Conv2d):
            noise = torch.randn(module.weight.shape, generator=generator).to(module.weight)
            own, drawn = (w.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1) for w in (module.weight, noise))
            module.weight.data += strength * own / drawn * noise
    return copy


def kept_class(before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> tuple[int, int]:
    """(how many of the (C,) winners jumped, how many of these jumps stayed within a class)."""
    jumped = before != after
    return int(jumped.sum()), int((labels[before] == labels[after])[jumped].sum())


def matched_pushes(
    start: nn.Module, images, labels: torch.Tensor, jumps: dict[str, int], *, draws: int = 2, seed: int = 0
) -> dict[str, list[tuple[int, int]]]:
    """layer -> `kept_class` of each draw of random pushes of `start` that move about jumps[layer] winners.

    The strength is chosen for every layer on its own, among eight from 0.05 to 1.6: that of the nearest mean count.
    """
    generator, layers = torch.Generator().manual_seed(seed), list(jumps)
    before, found = _winners(start, images, layers), {layer: [] for layer in layers}
    for strength in torch.logspace(-1.3, 0.2, 8).tolist():
        after = [_winners(pushed(start, strength, generator), images, layers) for _ in range(draws)]
        for layer in layers:
            found[layer].append([kept_class(before[layer], one[layer], labels) for one in after])
    return {
        layer: min(rows, key=lambda row: abs(sum(count for count, _ in row) / draws - jumps[layer]))
        for layer, rows in found.items()
    }


def _winners(net: nn.Module, images, layers: Sequence[str]) -> dict[str, torch.Tensor]:
    """layer -> (C,) the number of each channel's strongest image."""
    return {layer: peaks.images[:, 0] for layer, peaks in find_peaks(net, images, layers=list(layers), k=1).items()}


def jump_shares(nets: dict[int, nn.Module], images) -> dict[str, list[float]]:
    """layer -> share of its channels whose winner is another than at the snapshot before, from the second on."""
    layers = last_of(nets).conv_names
    rows = [_winners(net, images, layers) for _, net in sorted(nets.items())]
    table = {layer: changed(torch.stack([row[layer] for row in rows])) for layer in layers}  # (E,C) each
    return {layer: jumped[1:].float().mean(dim=1).tolist() for layer, jumped in table.items()}


def load_controls() -> dict:
    """What `python -m data.make.evolution controls` measured: more small runs, and pushed networks."""
    return json.loads((_files.SHIPPED / "evolution-controls.json").read_text())


# --- drawn ------------------------------------------------------------------------------------------------------------

#: What is measured in the figure of the layers' order, how it is drawn, and its words there.
LINES = {
    "alone": ("s-", "#d55e00", "maps, with all layers below\nas they are at the end"),
    "responses": ("o-", "black", "maps, as they are"),
    "filters": ("^-", "#0072b2", "filters"),
    "walk": ("v:", "#0072b2", "filters of a walk\nwithout aim"),
}
#: Who is asked whether jumps stay within a class; in other colours than the lines above, which mean something else.
JUMPERS = {
    "trained": ("o", "black", "training"),
    "pushed": ("s", "#cc79a7", "the same network, pushed at random"),
    "untrained, pushed": ("^", "#7f4f24", "an untrained network, pushed"),
}


#: Colours of the layers, dark for the first one: viridis, whose last yellow is darkened.
SHADES = ("#440154", "#3b528b", "#21918c", "#5ec962", "#e0b000")


def draw_by_layer(ax: show.Axes, curves: Mapping[str, Sequence[float]], epochs: Sequence[int], **words) -> show.Axes:
    """A line for each layer over the epochs, dark for the first layer; the layers' names stand beside their lines."""
    for (layer, curve), colour in zip(curves.items(), SHADES):
        ax.plot(epochs, curve, "o-", color=colour, label=layer, markersize=4)
    ax.set(xlabel="epoch", ylim=(0, 1.04), **words)
    return ax


def draw_rate(ax: show.Axes, recipe: train.Recipe) -> show.Axes:
    """The learning rate over the epochs, as a grey hill behind the curves; its peak is as high as the axes."""
    times = [step / 20 for step in range(20 * recipe.epochs + 1)]
    rates = [rate(recipe, time) for time in times]
    ax.fill_between(times, [one / max(rates) for one in rates], color="#e4e7ea", zorder=0)
    return ax


def draw_order(ax: show.Axes, runs: Sequence[Mapping], epoch: int) -> show.Axes:
    """Agreement with the end at one epoch, over the layers: the mean of several `agreements`, and their spread."""
    for what, (line, colour, words) in LINES.items():
        values = torch.tensor([[curve[str(epoch)] for curve in run[what].values()] for run in runs])  # (R,L)
        error = values.std(dim=0).tolist() if len(runs) > 1 else None
        ax.errorbar(list(runs[0][what]), values.mean(dim=0).tolist(), error, fmt=line, color=colour, capsize=3,
                    label=words)  # fmt: skip
    ax.set(ylim=(0, 1.04), ylabel="agreement with the last epoch")
    return ax


def draw_settling(ax: show.Axes, runs: Sequence[Mapping], what: str) -> show.Axes:
    """Agreement with the end over the epochs, the mean of several `agreements`: a line for each layer, dark at conv1.

    With "filters" the walk of each layer, dotted.
    """
    epochs = [int(epoch) for epoch in next(iter(runs[0][what].values()))]
    for layer, colour in zip(runs[0][what], SHADES):
        mean = torch.tensor([list(run[what][layer].values()) for run in runs]).mean(dim=0)
        ax.plot(epochs, mean.tolist(), "o-", color=colour, label=layer, markersize=4)
        if what == "filters":
            line = torch.tensor([list(run["walk"][layer].values()) for run in runs]).mean(dim=0)
            ax.plot(epochs, line.tolist(), ":", color=colour)
    ax.set(xlabel="epoch", ylabel="agreement with the end", ylim=(0, 1.04))
    return ax


def draw_gaps(ax: show.Axes, tests: Mapping[str, JumpTest]) -> show.Axes:
    """The gap of each layer, with its p, over the range of 95 in 100 shuffled gaps in grey."""
    for place, test in enumerate(tests.values()):
        reach = 1.96 * test.spread
        ax.plot([place, place], [-reach, reach], color="#c9ced4", lw=14, solid_capstyle="butt")
        ax.plot(place, test.gap, "o", color="black")
        ax.text(place + 0.12, test.gap, f"p = {test.p:.3f}" if test.p >= 0.001 else "p < 0.001", va="center")
    ax.axhline(0, color="grey", lw=1)
    ax.set_xticks(range(len(tests)), list(tests))
    ax.set(ylabel="likeness: jumped less stayed", xlim=(-0.5, len(tests) - 0.2))
    return ax


def kept_shares(jumps: Sequence[Mapping], who: str, layer: str) -> torch.Tensor:
    """(R,) of the jumps of each training, all draws together, the share that stayed within a class."""
    counts = torch.tensor([[sum(part) for part in zip(*run[who][layer])] for run in jumps])  # (R,2) jumps, within
    return counts[:, 1] / counts[:, 0]


def draw_kept_class(ax: show.Axes, jumps: Sequence[Mapping]) -> show.Axes:
    """Of the jumps of trained and of pushed networks, the share that stayed within a class.

    A small dot for each training; beside them their mean and its standard deviation over the trainings. Jumps of one
    training depend on each other, so their number is no measure of the error.
    """
    layers = list(jumps[0]["trained"])
    for shift, (who, (marker, colour, words)) in zip((-0.24, 0, 0.24), JUMPERS.items()):
        for place, layer in enumerate(layers):
            shares = kept_shares(jumps, who, layer)
            ax.plot([place + shift - 0.05] * len(shares), shares.tolist(), marker, color=colour, ms=4.5, alpha=0.5)
            ax.errorbar(place + shift + 0.03, float(shares.mean()), float(shares.std()), fmt=marker, color=colour,
                        capsize=3, ms=8, label=words if place == 0 else None)  # fmt: skip
    counts = [sum(run["trained"][layer][0][0] for run in jumps) for layer in layers]
    ax.set_xticks(range(len(layers)), [f"{layer}\n{count} jumps" for layer, count in zip(layers, counts)])
    ax.axhline(0.1, color="grey", ls=":")
    ax.text(len(layers) - 0.7, 0.12, "any two scenes", ha="right", color=show.ink("grey"))
    ax.set(ylim=(0, 1.04), ylabel="jumps within a class")
    return ax


def draw_rivals(ax: show.Axes, likeness: torch.Tensor, channel: int) -> show.Axes:
    """`rivals` over the snapshots: `channel` in black, all others as grey dashes, its rank below each snapshot."""
    for row, values in enumerate(likeness):
        others = torch.cat([values[:channel], values[channel + 1 :]])
        ax.plot([row] * len(others), others.tolist(), "_", color="#8a929b", ms=9, mew=1.5,
                label="the other channels" if row == 0 else None)  # fmt: skip
    ax.plot(likeness[:, channel].tolist(), "o-", color="black", ms=6, label="the channel itself")
    words = ["silent" if rank is None else f"{rank[0]}/{rank[1]}" for rank in rank_among(likeness, channel)]
    ax.set_xticks(range(len(words)), [f"{row}\n{word}" for row, word in enumerate(words)], fontsize=9)
    ax.set(ylim=(0, 1.04), xlabel="epoch; below it, the rank among the channels that answer")
    return ax
