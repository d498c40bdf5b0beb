"""Exercises of notebook 05: the vote of ten crops, gradient descent with momentum, dropout, renormalised filters."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from .. import show
from ..train import filters
from .cases import case, seeded
from .verdict import NOT_ATTEMPTED, WRONG, Exercise, Verdict, in_numbers


def mean_of_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """(N,classes) probabilities of N images from (N,10,classes) scores: every crop's softmax, then their mean."""
    return scores.softmax(dim=-1).mean(dim=1)


@seeded(11)
def _scores(generator):
    yield case(torch.randint(-2, 5, (2, 10, 4), generator=generator).float())
    yield case(torch.randint(-2, 4, (3, 10, 5), generator=generator).float())


def _draw_vote(given, answer, target) -> np.ndarray:
    """The first image: a column for each crop, and one for the vote."""
    (scores,), _ = given
    mine = None if answer is None else torch.as_tensor(answer).detach()[:1].T
    return in_numbers({"scores, a column for each crop": scores[0].T}, mine, target[:1].T)


vote = Exercise(
    "vote", mean_of_probabilities, _scores,
    mistakes={
        "each crop gave one whole vote to its first class; it should give its probabilities":
            lambda scores: nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).float().mean(dim=1),
        "the scores were averaged before the softmax; average the probabilities":
            lambda scores: scores.mean(dim=1).softmax(dim=-1),
        "these are mean scores, not probabilities; a softmax is missing": lambda scores: scores.mean(dim=1),
        "the surest crop decides alone; take the mean over the crops":
            lambda scores: scores.softmax(dim=-1).amax(dim=1),
        "ten crops add up to 10; take their mean": lambda scores: scores.softmax(dim=-1).sum(dim=1),
        "the softmax went over the crops; over the classes, every crop's probabilities add up to 1":
            lambda scores: scores.softmax(dim=1).mean(dim=1),
        "only the centre crop was asked": lambda scores: scores.softmax(dim=-1)[:, 4],
    },
    draw=_draw_vote,
)  # fmt: skip


# --- gradient descent with momentum ----------------------------------------------------------------------------------

START, STRETCH = (-9.0, 3.0), (1.0, 12.0)  # where the ball begins; how much steeper the valley is from row to row
VIEW, SIDE = (11.0, 5.0), (420, 190)  # half the width and height that are drawn, and twice as many pixels


def _valley(position: torch.Tensor) -> torch.Tensor:
    """The gradient of (x² + 12 y²) / 2 at (2,) x and y: a long valley with its lowest point at 0."""
    return position * torch.tensor(STRETCH)


def _tilted(position: torch.Tensor) -> torch.Tensor:
    """Of another valley, which runs from corner to corner."""
    return torch.tensor([[5.0, -3.0], [-3.0, 4.0]]) @ position


def _starts():
    return [
        case(_valley, torch.tensor(START), lr=0.03, momentum=0.8, steps=30),
        case(_tilted, torch.tensor([4.0, -2.0]), lr=0.05, momentum=0.5, steps=12),
    ]


def roll_down(gradient: Callable, start: torch.Tensor, *, lr: float, momentum: float, steps: int) -> torch.Tensor:
    """(steps + 1, 2) positions of gradient descent with momentum, `start` first; as `torch.optim.SGD` does it."""
    position, velocity = start, torch.zeros_like(start)
    path = [position]
    for _ in range(steps):
        velocity = momentum * velocity + gradient(position)
        position = position - lr * velocity
        path.append(position)
    return torch.stack(path)


def _rolled(renew: Callable, *, late: bool = False) -> Callable:
    """`roll_down` with another rule: renew(velocity, gradient, position, lr, momentum) gives the next velocity.

    `late`: the position moves before the velocity is renewed.
    """

    def descend(gradient, start, *, lr, momentum, steps):
        position, velocity = start, torch.zeros_like(start)
        path = [position]
        for _ in range(steps):
            found = renew(velocity, gradient, position, lr, momentum)
            position = position - lr * (velocity if late else found)
            velocity = found
            path.append(position)
        return torch.stack(path)

    return descend


def _last_everywhere(gradient, start, *, lr, momentum, steps):
    return roll_down(gradient, start, lr=lr, momentum=momentum, steps=steps)[-1].expand(steps + 1, 2)


def _gradient_of_the_start(gradient, start, *, lr, momentum, steps):
    return roll_down(lambda position: gradient(start), start, lr=lr, momentum=momentum, steps=steps)


def _velocity_of_one_step(gradient, start, *, lr, momentum, steps):
    """Each step takes the last two gradients, and no older ones."""
    position, before, path = start, torch.zeros_like(start), [start]
    for _ in range(steps):
        now = gradient(position)
        position = position - lr * (now + momentum * before)
        before = now
        path.append(position)
    return torch.stack(path)


def _plain(velocity, gradient, position, lr, momentum):
    return gradient(position)


def _draw_descent(given, answer, target) -> np.ndarray:
    """The first valley seen from above: the path without momentum, yours, and the target."""
    (gradient, start), settings = given
    pictures = {"without momentum": _rolled(_plain)(gradient, start, **settings)}
    pictures |= ({} if answer is None else {"yours": torch.as_tensor(answer).detach()}) | {"target": target}
    return show.beside([_path_pixels(gradient, path) for path in pictures.values()], list(pictures), size=15)


def _path_pixels(gradient: Callable, path: torch.Tensor) -> np.ndarray:
    """A valley from above, darker towards its lowest point, and the path of the ball, a dot for each position."""
    xs, ys = (torch.linspace(-half, half, size) for half, size in zip(VIEW, SIDE))
    places = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)  # (height,width,2)
    slopes = torch.stack([gradient(torch.eye(2)[i]) for i in range(2)])  # of a valley that is a square function
    heights = (places @ slopes * places).sum(dim=-1).clamp(min=1e-6)
    bands = heights.log2().floor().clamp(0, 8) / 8  # (height,width): from one band to the next the loss doubles
    image = Image.fromarray(_shades(bands))
    draw = ImageDraw.Draw(image)
    points = [_pixel(place) for place in path.clamp(-1e3, 1e3).tolist()]
    draw.line(points, fill=(190, 75, 0), width=2)
    for x, y in points:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(190, 75, 0))
    x, y = points[0]
    draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline="black", width=3)
    return np.asarray(image)


def _pixel(place: list[float]) -> tuple[float, float]:
    return tuple((value + half) / (2 * half) * size for value, half, size in zip(place, VIEW, SIDE))


def _shades(bands: torch.Tensor) -> np.ndarray:
    """(h,w,3) uint8 blues from (h,w) numbers between 0, dark, and 1, nearly white."""
    dark, pale = torch.tensor([96.0, 146, 196]), torch.tensor([246.0, 249, 252])
    return (dark + (pale - dark) * bands[..., None]).round().to(torch.uint8).numpy()


descend = Exercise(
    "descend", roll_down, _starts,
    mistakes={
        "the ball rolls uphill: the gradient points to where the loss grows; subtract":
            _rolled(lambda velocity, gradient, position, lr, momentum: momentum * velocity - gradient(position)),
        "that is gradient descent without momentum: keep a share `momentum` of the last velocity": _rolled(_plain),
        "the new gradient was weakened by 1 - momentum; it is added to the velocity as it is":
            _rolled(lambda velocity, gradient, position, lr, momentum:
                    momentum * velocity + (1 - momentum) * gradient(position)),
        "the position moved before the velocity was renewed; first the velocity, then the position":
            _rolled(lambda velocity, gradient, position, lr, momentum:
                    momentum * velocity + gradient(position), late=True),
        "the velocity only ever grows: nothing of it is lost; multiply the old one by `momentum`":
            _rolled(lambda velocity, gradient, position, lr, momentum: velocity + gradient(position)),
        "lr was used twice: once for the velocity and once for the position; once is enough":
            _rolled(lambda velocity, gradient, position, lr, momentum:
                    momentum * velocity + lr * gradient(position)),
        "the gradient is that of the start in every step; ask for it again at each new position":
            _gradient_of_the_start,
        "each step knows the last two gradients only: the velocity is the memory, renew it and keep it":
            _velocity_of_one_step,
        "every row is the last position: one tensor was changed in place; append position.clone()": _last_everywhere,
        "the gradient was asked for where the ball will be (Nesterov's rule); ask where it is":
            _rolled(lambda velocity, gradient, position, lr, momentum:
                    momentum * velocity + gradient(position - lr * momentum * velocity)),
    },
    success="the same path as torch.optim.SGD takes",
    draw=_draw_descent,
)  # fmt: skip


# --- dropout ---------------------------------------------------------------------------------------------------------


def scaled_survivors(activations: torch.Tensor, stays: torch.Tensor, p: float) -> torch.Tensor:
    """(N,C) activations where `stays` is True, times 1 / (1 - p); 0 elsewhere."""
    return activations * stays / (1 - p)


@seeded(12)
def _activations(generator):
    for p, units in ((0.2, 4), (0.5, 3)):
        stays = torch.rand(4, units, generator=generator) >= p
        stays[0, :2] = torch.tensor([True, False])
        yield case(4.0 * torch.randint(1, 6, (4, units), generator=generator), stays, p)


def _draw_dropout(given, answer, target) -> np.ndarray:
    (activations, stays, p), _ = given
    return in_numbers({"activations": activations, f"stays (p = {p})": stays}, answer, target)


dropout = Exercise(
    "dropout", scaled_survivors, _activations,
    mistakes={
        "the right units are zero, but what stays is too weak: on average a share p is missing; divide by 1 - p":
            lambda activations, stays, p: activations * stays,
        "twice is right for p = 0.5 alone; divide by the share that stays, 1 - p":
            lambda activations, stays, p: activations * stays * 2,
        "divided by p; p is the share that goes, 1 - p the share that stays":
            lambda activations, stays, p: activations * stays / p,
        "multiplied by 1 - p: that is done at test time if nothing was scaled in training; here divide":
            lambda activations, stays, p: activations * stays * (1 - p),
        "the wrong units are zero: `stays` says which ones are kept":
            lambda activations, stays, p: activations * ~stays / (1 - p),
        "scaled by the share that happened to stay this time; use 1 - p, which is no accident":
            lambda activations, stays, p: activations * stays / stays.float().mean(),
        "every unit is scaled, and none is dropped: multiply by `stays` as well":
            lambda activations, stays, p: activations / (1 - p),
    },
    draw=_draw_dropout,
)  # fmt: skip


# --- renormalised filters: the notebook on recipes -------------------------------------------------------------------


def renormalised(weight: torch.Tensor, radius: float) -> torch.Tensor:
    """(Cout,Cin,k,k) filters after `zflib.train.renormalise`."""
    conv = nn.Conv2d(*weight.shape[1::-1], weight.shape[-1], bias=False)
    conv.weight = nn.Parameter(weight.clone())
    filters.renormalise(conv, radius)
    return conv.weight.detach()


@seeded(13)
def _filters(generator):
    for spread in ((0.3, 0.02, 0.15, 0.05, 0.6), (0.03, 0.01, 0.02)):  # the second layer has nothing to rescale
        size = torch.tensor(spread)[:, None, None, None]
        colour = torch.rand(len(spread), 3, 1, 1, generator=generator) + 0.3
        yield case(torch.randn(len(spread), 3, 5, 5, generator=generator) * size * colour, 0.1)


def _rms(weight, *dims):
    return weight.square().mean(dim=dims, keepdim=True).sqrt()


def _held(size: Callable) -> Callable:
    """Filters whose `size(weight)` is beyond the radius, brought to it."""
    return lambda weight, radius: weight * (radius / size(weight)).clamp(max=1)


class _Renormalise(Exercise):
    """An answer may rescale the filters where they are, as the package does; the check wants them back all the same."""

    def _judge(self, attempt: Callable) -> Verdict:
        found = super()._judge(attempt)
        if found.state == NOT_ATTEMPTED and callable(attempt) and _writes(attempt, *self.cases()[0][0]):
            return Verdict(WRONG, "your function returned None; return the filters", found.picture)
        return found


def _writes(attempt: Callable, weight: torch.Tensor, radius: float) -> bool:
    """Whether the attempt changes the filters that it is given."""
    before = weight.clone()
    attempt(weight, radius)
    return not torch.equal(weight, before)


renormalise = _Renormalise(
    "renormalise", renormalised, _filters, source=filters.renormalise,
    success="the same filters as zflib.train.renormalise leaves",
    mistakes={
        "that is the RMS of the whole layer: one strong filter weakens all; each filter has its own":
            _held(lambda weight: _rms(weight, 0, 1, 2, 3)),
        "each colour of a filter was held by itself, which changes its hue; a filter is all of its channels":
            _held(lambda weight: _rms(weight, 2, 3)),
        "the mean went over the filters (dimension 0); keep that one, and average over the other three":
            _held(lambda weight: _rms(weight, 0, 2, 3)),
        "small filters grew to the radius; only those beyond it are rescaled":
            lambda weight, radius: weight * radius / _rms(weight, 1, 2, 3),
        "the largest weight was held to the radius; it is a limit for the root mean square":
            _held(lambda weight: weight.abs().amax(dim=(1, 2, 3), keepdim=True)),
        "each weight was clipped, which changes the pattern; rescale a filter as a whole":
            lambda weight, radius: weight.clamp(-radius, radius),
        "that is the length (the root of the sum of squares); take the mean of the squares":
            _held(lambda weight: weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()),
        "that is the mean square; its root is missing": _held(lambda weight: _rms(weight, 1, 2, 3) ** 2),
    },
)  # fmt: skip
