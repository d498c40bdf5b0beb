"""Exercises of notebook 07: bet on the channels that jump next, and find the epoch at which a channel had its name."""

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch

from .. import show
from ..studies.evolution import SmallRun, changed, load_run, named_from
from .cases import case
from .verdict import RIGHT, WRONG, Exercise, Verdict, in_numbers

BETS, FIRST = 10, 4  # channels to name at a time; the epoch after which the first ones are named


# --- which channels jump next -----------------------------------------------------------------------------------------


def closest_races(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """(10,) the channels whose second image is nearest to the first, from (E,C,9) activations and numbers of images."""
    winner, second = values[-1, :, 0], values[-1, :, 1]  # (C,) at the last snapshot
    return (second / winner.clamp(min=1e-9)).topk(BETS).indices


@lru_cache(maxsize=1)
def _seen() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """((E,C,9) activations, (E,C,9) numbers of scenes, (C,) numbers of layers): all channels of the small run."""
    run: SmallRun = load_run()
    layers = [torch.full((run.winners(layer).shape[1],), i) for i, layer in enumerate(run.layers)]
    values, images = (torch.cat([of(layer) for layer in run.layers], dim=1) for of in (run.values, run.nine))
    return values, images, torch.cat(layers)


def _until_each_epoch():
    values, images, _ = _seen()
    return [case(values[: e + 1].clone(), images[: e + 1].clone()) for e in range(FIRST, len(values) - 1)]


def _by_value(values, images, *, largest: bool) -> torch.Tensor:
    return values[-1, :, 0].topk(BETS, largest=largest).indices


def _clearest(values, images) -> torch.Tensor:
    return (values[-1, :, 1] / values[-1, :, 0].clamp(min=1e-9)).topk(BETS, largest=False).indices


@dataclass
class Bets(Exercise):
    """An exercise without one right answer: ten channels at a time, judged by how many of them jump."""

    def _compare_answers(self, answers: list, targets: list) -> Verdict:
        picks = [torch.as_tensor(answer).detach().cpu() for answer in answers]
        problem = next((found for found in map(_problem, picks) if found), None)
        if problem:
            return Verdict(WRONG, problem, self._preview(0, targets))
        picture = self._picture(0, picks, targets)
        if _luck(picks)[1] < 0.001:
            return Verdict(RIGHT, self.success, picture)
        unnamed = "that can be luck; what has to happen for another image to win?"
        return Verdict(WRONG, self._named_mistake(answers) or unnamed, picture)


def _problem(picks: torch.Tensor) -> str | None:
    """A sentence if these are not ten different channels."""
    count = _seen()[0].shape[1]
    if picks.is_floating_point() and not bool((picks == picks.round()).all()):
        return f"these are not numbers of channels: give {BETS} whole numbers from 0 to {count - 1}"
    if not 0 <= int(picks.min()) <= int(picks.max()) < count:
        return f"channels are numbered from 0 to {count - 1}; your numbers run from {picks.min():g} to {picks.max():g}"
    return None if len(set(picks.tolist())) == BETS else f"name {BETS} different channels; yours repeat"


def _jumps() -> torch.Tensor:
    """(8,C) which channels have another winner than before, at the epochs that are bet on."""
    return changed(_seen()[1][..., 0])[FIRST + 1 :]


def _hits(picks: list) -> torch.Tensor:
    """(8,) how many of the channels picked before each epoch jumped."""
    return torch.stack([row[pick.long()].sum() for row, pick in zip(_jumps(), picks)])


def _luck(picks: list) -> tuple[float, float]:
    """(hits expected, probability of as many) if the same number of channels of the same layers is drawn blindly."""
    from scipy.stats import hypergeom  # slow to import

    hits = int(_hits(picks).sum())
    layers, total = _seen()[2], np.ones(1)  # the distribution of the number of hits, grown draw by draw
    for row, pick in zip(_jumps(), picks):
        for layer in layers.unique():
            mine, jumped = int((layers[pick.long()] == layer).sum()), int(row[layers == layer].sum())
            total = np.convolve(total, hypergeom.pmf(range(mine + 1), int((layers == layer).sum()), jumped, mine))
    return float((total * np.arange(len(total))).sum()), float(total[hits:].sum())


def _draw_hits(given, picks, targets) -> np.ndarray:
    """Hits by epoch: of a blind draw, of the learner, of the closest races; above them the learner's score."""
    rows = {"blind draw": (BETS * _jumps().float().mean(dim=1)).round(decimals=1)}
    title = "channels, of ten, that jump"
    if picks is not None:
        rows |= {"yours": _hits(picks).float(), "the package's": _hits(targets).float()}
        chance, luck = _luck(picks)
        title = f"{int(_hits(picks).sum())} of your {BETS * len(picks)} channels jump; blindly, {chance:.0f} of the "
        title += f"same layers would (p = {luck:.1g})"
    ax = show.numbers(torch.stack(list(rows.values())), full=2 * BETS)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xticks(range(len(_jumps())), range(FIRST + 1, FIRST + 1 + len(_jumps())))
    ax.grid(False)
    ax.set(xlabel="epoch", title=title)
    ax.figure.set_size_inches(9, 1.3 + 0.75 * len(rows))
    return show.axes_pixels(ax)


bet_on_jumps = Bets(
    "bet_on_jumps", closest_races, _until_each_epoch,
    mistakes={
        "these have the clearest lead, so they are the safest; bet on the closest races": _clearest,
        "these are the strongest channels; a strong winner may have a strong rival": partial(_by_value, largest=True),
        "these are the weakest channels; what counts is how far ahead the winner is": partial(_by_value, largest=False),
        "you looked at the first snapshot; the last one is values[-1]":
            lambda values, images: closest_races(values[:1], images[:1]),
        "the ninth image is far behind in most channels; the first to overtake is the second":
            lambda values, images: (values[-1, :, 8] / values[-1, :, 0].clamp(min=1e-9)).topk(BETS).indices,
    },
    success="more of your channels jump than luck explains; can you beat the package's bets?",
    draw=_draw_hits,
)  # fmt: skip


# --- when a channel could be named ------------------------------------------------------------------------------------


def _counts(labels: torch.Tensor) -> torch.Tensor:
    """(E,C) how many of the nine are of the class that leads at the end."""
    return (labels == labels[-1].mode(dim=-1).values[None, :, None]).sum(dim=-1)


def _labels(counts: list[list[int]], names: list[int], others: list[int]) -> torch.Tensor:
    """(E,C,9) labels in which counts[e][c] of nine are names[c] and the rest others[c], or all different where -1."""
    rows = []
    for row in counts:
        nine = [[name] * n + [other if other >= 0 else 20 + i for i in range(9 - n)]
                for n, name, other in zip(row, names, others)]  # fmt: skip
        rows.append(nine)
    return torch.tensor(rows)


def _careers():
    """Channels that have a name at once, late, never, twice, with another class first, and by exactly seven."""
    counts = [[9, 1, 2, 8, 1, 7], [8, 3, 4, 5, 0, 6], [9, 6, 3, 7, 8, 7], [8, 8, 2, 9, 9, 7], [9, 9, 5, 8, 9, 7]]
    more = [[0, 8, 7, 1], [2, 8, 6, 6], [9, 3, 7, 9], [9, 8, 6, 7]]
    yield case(_labels(counts, [3, 4, 1, 0, 5, 2], [7, -1, -1, 6, 8, -1]))
    yield case(_labels(more, [1, 2, 3, 4], [5, 6, -1, 8]))


def _rows(good: torch.Tensor) -> torch.Tensor:
    """(C,) the first row from which on (E,C) is True, -1 if the last is not."""
    lasting = good.flip(0).cumprod(dim=0).flip(0)
    return torch.where(lasting[-1] > 0, lasting.argmax(dim=0), -1)


def _leading(labels, enough=7) -> torch.Tensor:
    """As the target, but with whichever class leads at each snapshot."""
    return _rows((labels == labels.mode(dim=-1).values[..., None]).sum(dim=-1) >= enough)


def _draw_careers(given, answer, target) -> np.ndarray:
    """A row for each channel, a column for each snapshot: how many of the nine; then yours and the target."""
    (labels, *_), _ = given
    mine = None if answer is None else torch.as_tensor(answer).detach()[:, None]
    return in_numbers({"of nine, how many are of the class that leads at the end": _counts(labels).T.float()},
                      mine, target[:, None])  # fmt: skip


first_named = Exercise(
    "first_named", named_from, lambda: list(_careers()),
    mistakes={
        "that is the first time; a name that is lost again does not count, it must hold from then on":
            lambda labels, enough=7: torch.where(
                (_counts(labels)[-1] >= enough), (_counts(labels) >= enough).float().argmax(dim=0), -1),
        "you let any class lead at each snapshot; the name is the class that leads at the end": _leading,
        "a channel without a name at the end gets -1; argmax of a column of zeros is 0":
            lambda labels, enough=7: named_from(labels, enough).clamp(min=0),
        "exactly enough is enough: at least, not more than":
            lambda labels, enough=7: named_from(labels, enough + 1),
        "one image is no name: count all nine, not the strongest alone":
            lambda labels, enough=7: _rows(labels[..., 0] == labels[-1].mode(dim=-1).values),
        "that is the last snapshot without the name; the one after it is wanted":
            lambda labels, enough=7: (named_from(labels, enough) - 1).clamp(min=-1),
        "nine of nine is more than was asked; use enough":
            lambda labels, enough=7: named_from(labels, 9),
        "these are numbers of epochs counted from 1; give rows of labels, the first is 0":
            lambda labels, enough=7: named_from(labels, enough) + 1,
    },
    success="the epoch from which on each name holds",
    draw=_draw_careers,
)  # fmt: skip
