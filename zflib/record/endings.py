"""What a network says of its scores: whether they are probabilities already, as the last steps of its record tell."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from .._arguments import shape_or_type
from . import steps
from .hooks import watched
from .tape import Tape, record

#: What scores are by the last operation that made them.
ENDINGS = {"_softmax": "softmax", "_log_softmax": "log_softmax", "sigmoid": "sigmoid", "hardsigmoid": "sigmoid",
           "log_sigmoid_forward": "log_sigmoid"}  # fmt: skip
#: The logarithm of probabilities, and back.
LOG = {"softmax": "log_softmax", "sigmoid": "log_sigmoid"}
EXP = {log: plain for plain, log in LOG.items()}


def check_scores(scores) -> torch.Tensor:
    """(N,classes); ValueError for a network that gives something else, one single score, or NaN probabilities."""
    if not isinstance(scores, torch.Tensor) or scores.dim() != 2:
        keys = f" with {', '.join(map(repr, scores))}" if isinstance(scores, Mapping) else ""
        fix = (
            "wrap it in a module that gives its scores alone"
            if not isinstance(scores, torch.Tensor)
            else "this needs a classifier"
        )
        raise ValueError(f"net must give scores (N,classes), got {shape_or_type(scores)}{keys}; {fix}")
    if scores.shape[1] < 2:
        raise ValueError(f"net must give a score for each of at least two classes, got {tuple(scores.shape)}; "
                         "let it give one for yes and one for no")  # fmt: skip
    if bool(scores.softmax(-1).isnan().any()):
        raise ValueError("net gives scores without probabilities; look for NaN or overflow in net's weights")
    return scores


def probabilities(scores, ending: str = "logits") -> torch.Tensor:
    """(N,classes) probabilities of a network's scores, as `check_scores` wants them, by what `ending` said of them.

    Those of a network that ends in a sigmoid for each class need not sum to 1: each stands on its own.
    """
    scores = check_scores(scores)
    if ending == "logits":
        return scores.softmax(-1)
    return scores.exp() if ending in EXP else scores


def ending(net: nn.Module, image: torch.Tensor, tape: Tape | None = None) -> str:
    """What the network's scores for one image (1,3,H,W) are: "logits", "softmax", "sigmoid", or logarithms of these.

    The record tells, if there is one. Only where the last operation is of another kind, the numbers do: from 0 to 1,
    even if the image is 100 times as strong, they are probabilities if they sum to 1, and if not, nobody knows.
    ValueError for these, and for a softmax over another axis than the classes.
    """
    found, name = "", "an operation"
    try:
        tape = tape or record(net, image, "", whole=True)
        found, name, scores = _kind(tape, len(tape.steps) - 1), _name(tape.steps[-1]), tape.scores
    except (ValueError, RuntimeError):  # a network that cannot be followed
        pass
    if not found:
        with watched(net, []) as look:
            scores = look(torch.cat([image, 100 * image, -100 * image]))[1]
    scores = check_scores(scores)
    if found in ("softmax", "log_softmax"):
        total = float(probabilities(scores, found).sum(-1)[0])
        if abs(total - 1) > 0.01:
            raise ValueError(f"net ends in a {found} whose probabilities sum to {total:.3g} instead of 1; "
                             "take it over the classes, dim=1, and change nothing behind it")  # fmt: skip
    between = bool(((scores >= 0) & (scores <= 1)).all())
    if found or not between:
        return found or "logits"
    if bool(((scores.sum(-1) - 1).abs() > 0.01).any()):
        raise ValueError(f"net ends in {name!r}, which gives numbers from 0 to 1 that do not sum to 1; "
                         "let it end in logits, a softmax or a sigmoid")  # fmt: skip
    return "softmax"


def _name(step: steps.Step) -> str:
    return getattr(step, "name", type(step).__name__)


def _kind(tape: Tape, place: int) -> str:
    """What the numbers at this place are; "" if that cannot be said."""
    step = tape.steps[place]
    if isinstance(step, steps.Filter | steps.FullyConnected | steps.Rectify | steps.Scale | steps.Image):
        return "logits"
    name = _name(step)
    if name in ENDINGS:
        return ENDINGS[name]
    kinds = {_kind(tape, source) for source in step.inputs}
    if len(kinds) != 1:  # of several branches
        return "logits" if "logits" in kinds and name not in ("Cat", "stack") else ""
    (kind,) = kinds
    if isinstance(step, steps.Cat) or name == "stack" or (name == "mul" and len(step.inputs) > 1):
        return {"softmax": "sigmoid", "log_softmax": "log_sigmoid"}.get(kind, kind)  # several, that do not sum to 1
    if name in ("log", "exp"):
        return (LOG if name == "log" else EXP).get(kind, "")
    linear = not isinstance(step, steps.Refused) or name in ("clamp", "clamp_min", "clamp_max", "rsub")
    return kind if linear else ""
