"""Exercises of notebook 11: score how alike changes are, what chance would give, and a network without any parts."""

import inspect

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from .. import data, models, show
from ..experiments import Correspondence, occluders
from .cases import case, seeded
from .verdict import NOT_ATTEMPTED, RIGHT, WRONG, Exercise, Verdict, in_numbers, judged


@seeded(8)
def _some_units(generator):
    """Rectified units before and after a mask, whole numbers: many unchanged, some changes common to all images."""
    for count, units in ((3, 6), (4, 8)):
        before = torch.randint(0, 7, (count, units), generator=generator).float()
        common = torch.randint(-3, 3, (units,), generator=generator)
        own = torch.randint(-2, 3, (count, units), generator=generator)
        reached = torch.rand(count, units, generator=generator) < 0.6
        yield case(before, (before + reached * (common + own)).clamp(min=0))


def _draw_units(given, answer, target) -> np.ndarray:
    """What the layer holds before and after, and the score: a row is an image, a column a unit."""
    (before, after), _ = given
    return in_numbers({"before: a row is an image": before, "after": after}, answer, target)


def _differing(signs) -> torch.Tensor:
    """(N,N) in how many units two images' signs differ."""
    return (signs[:, None] != signs[None]).sum(dim=2).double()


def _pair_mean(matrix):
    rows, columns = torch.triu_indices(*matrix.shape, offset=1)
    return matrix[rows, columns].mean()


def _sign_distance(before, after):
    """() the paper's score in [0,1]: the share of units whose signs differ, the mean over all pairs of images."""
    signs = (before - after).sign()  # (N,D) of -1, 0, 1
    scores = []
    for i in range(len(signs)):
        for j in range(i + 1, len(signs)):
            scores.append((signs[i] != signs[j]).float().mean())
    return torch.stack(scores).mean()


def _opposite_only(before, after):
    signs = (before - after).sign()
    return _pair_mean((signs[:, None] * signs[None] < 0).float().mean(dim=2))


sign_distance = Exercise(
    "sign_distance", _sign_distance, _some_units, success="the same score as zflib.correspondence gives",
    draw=_draw_units,
    mistakes={
        "this is the sum over all units and pairs, as in the equation; the table is per unit and per pair":
            lambda before, after: _differing((before - after).sign()).sum(),
        "the mean over pairs is taken, the one over units is missing: divide by the number of units":
            lambda before, after: _pair_mean(_differing((before - after).sign())),
        "only opposite signs count here (a product below 0); a sign against a 0 differs too": _opposite_only,
        "each image is compared with itself as well, which always gives 0; take pairs of different images":
            lambda before, after: _differing((before - after).sign()).mean() / before.shape[1],
        "values are compared, not their signs; two units rarely change by exactly as much":
            lambda before, after: _pair_mean(_differing(before - after)) / before.shape[1],
        "each image is compared with the masked version of another one":
            lambda before, after: _sign_distance(before, after.roll(1, 0)),
    },
)  # fmt: skip


@seeded(11)
def _some_signs(generator):
    """Images that differ in how many of their units change, and in how many of these lose."""
    for dense, losing, units in (((0.2, 0.5, 0.9), (0.9, 0.6, 0.8), 8), ((0.2, 0.4, 0.8, 0.6), (0.9, 0.2, 0.7, 1), 10)):
        changed = torch.rand(len(dense), units, generator=generator) < torch.tensor(dense)[:, None]
        loses = torch.rand(len(dense), units, generator=generator) < torch.tensor(losing)[:, None]
        yield case(torch.where(loses, 1, -1) * changed)


def _draw_signs(given, answer, target) -> np.ndarray:
    """The signs, a row for each image, and the score to expect by chance."""
    return in_numbers({"signs: a row is an image": given[0][0]}, answer, target)


def _chance(signs):
    """() the score to expect if every image's signs lay at random units: the mean over all pairs of images."""
    plus, zero, minus = ((signs == sign).float().mean(dim=1) for sign in (1, 0, -1))  # (N,) shares each
    scores = []
    for i in range(len(signs)):
        for j in range(i + 1, len(signs)):
            scores.append(1 - (plus[i] * plus[j] + zero[i] * zero[j] + minus[i] * minus[j]))
    return torch.stack(scores).mean()


def _both_unchanged(signs):
    shares = (signs == 0).float().mean(dim=1)
    return _pair_mean(torch.outer(shares, shares))


def _fair_coin(signs):
    q = (signs != 0).float().mean()
    return 2 * q * (1 - q) + q**2 / 2


chance = Exercise(
    "chance", _chance, _some_signs, success="the same null as zflib.correspondence gives", draw=_draw_signs,
    mistakes={
        "this is 2q(1-q) + q²/2, for + and - equally frequent and all images alike; use each image's own shares":
            _fair_coin,
        "the shares are taken over all images together; each image has its own":
            lambda signs: _chance(signs.flatten().expand(2, -1)),
        "two units that stay unchanged agree as well: the product of the zeros' shares is missing":
            lambda signs: _chance(signs) + _both_unchanged(signs),
        "this is how often two units agree; the score counts how often they differ": lambda signs: 1 - _chance(signs),
        "only changed against unchanged is counted; a + against a - differs too": lambda signs: _chance(signs.abs()),
    },
)  # fmt: skip


# --- a network without parts -----------------------------------------------------------------------------------------

ROWS = ("right eye", "left eye", "nose", "random")
PAPER = torch.tensor([0.067, 0.069, 0.079, 0.107])  # Table 1, layer 5
AS_PAPER, SHARE = 2 / 3, 1 / 5  # the parts' score over that of random places: in the paper, and at most here


def places_only(images: torch.Tensor) -> torch.Tensor:
    """(N,49) how far from grey the pixels of every 8x8 block are: it knows places and nothing else."""
    return F.avg_pool2d(images.abs().mean(dim=1), 8).flatten(1)


class _Invention:
    """An exercise with many right answers: any network without parts whose scores look like Table 1.

    Called with a function that turns (N,3,56,56) images into (N,D) units, it returns a `Verdict` and never raises. The
    scores must be clearer than the paper's for rendered faces and, with the same squares, for noise, without any parts.
    """

    name, success = "without_parts", "Table 1 without a single part: on noise it scores as on faces"
    is_exercise = True

    def __call__(self, attempt) -> Verdict:
        return judged(self.name, self._caught, attempt)

    def _caught(self, attempt) -> Verdict:
        try:
            return self._judge(attempt)
        except Exception as error:
            return Verdict(WRONG, f"your function raised {type(error).__name__}: {error}", _table({}))

    def solution(self) -> None:
        """Print one answer of many."""
        print(inspect.getsource(places_only))

    def _judge(self, attempt) -> Verdict:
        if attempt is None or attempt is ...:
            return Verdict(NOT_ATTEMPTED, f"pass your function itself: check.{self.name}({self.name})", _table({}))
        if not callable(attempt):
            return Verdict(WRONG, f"pass your function itself: check.{self.name}({self.name})", _table({}))
        faces, boxes = _faces_and_boxes()
        answer = attempt(faces.clone())
        if answer is None or answer is ...:
            return Verdict(NOT_ATTEMPTED, "replace the ... by your code; the paper's scores are drawn here", _table({}))
        problem = _unfit(answer, attempt(faces.clone()), len(faces))
        if problem:
            return Verdict(WRONG, problem, _table({}))
        noise = torch.randn(faces.shape, generator=torch.Generator().manual_seed(1))
        found = {"yours, on faces": _scores(attempt, faces, boxes), "yours, on noise": _scores(attempt, noise, boxes)}
        sentence = _fault(*found.values())
        ratios = [_ratio(scores) for scores in found.values()]
        score = f"; your parts score {ratios[0]:.2f} of random places on faces, {ratios[1]:.2f} on noise (paper: 0.67)"
        return Verdict(WRONG if sentence else RIGHT, (sentence or self.success) + score, _table(found))


def _faces_and_boxes() -> tuple[torch.Tensor, dict[str, list[torch.Tensor]]]:
    """Twelve frontal faces (12,3,56,56) as `scenes56` takes them, and the squares of each row; of the last, five."""
    net = models.load("scenes56")
    faces = data.scenes.scenes(12, classes="face", pose=data.scenes.FRONTAL)
    boxes = {part: [occluders.boxes_around(faces.part(part) - 4, 11, 56)] for part in ROWS[:3]}
    parts = torch.cat([torch.stack(several) for several in boxes.values()]).transpose(0, 1)  # (12,3,4)
    boxes["random"] = [occluders.random_boxes(12, 11, 56, avoid=parts, seed=seed) for seed in range(5)]
    return net.preprocess(faces.pixels), boxes


def _unfit(answer, again, count: int) -> str | None:
    """A sentence if the answer cannot be scored."""
    if not isinstance(answer, torch.Tensor):
        return f"your function should return a tensor, it returned {type(answer).__name__}"
    if answer.dim() < 2 or len(answer) != count:
        return f"wanted are (N,D) units, a row for each image; for {count} images yours are {tuple(answer.shape)}"
    if answer.is_complex() or not bool(torch.isfinite(answer.double()).all()):
        return "your units hold NaN, infinite or complex values"
    if not torch.equal(answer, again):
        return "the same images give other units the second time; draw random weights once, outside your function"
    return None


def _scores(attempt, images: torch.Tensor, boxes: dict[str, list[torch.Tensor]]) -> torch.Tensor:
    """(4,) the paper's score of each row, of random places the mean over the draws."""
    before = attempt(images.clone()).detach().double().flatten(1)
    found = []
    for several in boxes.values():
        masked = [attempt(occluders.masked(images, one)).detach().double().flatten(1) for one in several]
        found.append(sum(Correspondence(before - after).delta for after in masked) / len(masked))
    return torch.tensor(found)


def _ratio(scores: torch.Tensor) -> float:
    """The mean score of the parts over that of random places; 1 if nothing changes anywhere."""
    return float(scores[:3].mean() / scores[3]) if scores[3] > 0 else 1.0


def _fault(faces: torch.Tensor, noise: torch.Tensor) -> str | None:
    """What keeps these scores from being Table 1."""
    if not faces.any():
        return "no score differs from 0: no unit changes, or all change alike wherever the square is"
    if _ratio(faces) > 1.02:
        return "parts score higher than random places; Table 1 is the other way round"
    if _ratio(faces) > 0.95:
        return "random places score as low as parts: your units do not tell where the square is"
    if _ratio(faces) > AS_PAPER:
        return "parts score lower, but not by a third as in the paper"
    if _ratio(faces) > SHARE:
        return (
            "this passes for Table 1 already; but two images still differ if one is dark under the square, one bright"
        )
    if _ratio(noise) > SHARE:
        return "it passes on faces but not on noise: it depends on how faces look, so it may well contain parts"
    return None


without_parts = _Invention()


def _table(found: dict[str, torch.Tensor]) -> bytes:
    """PNG of Table 1 as bars: the paper's, and what was found."""
    return show.encoded(show.beside([_bars(PAPER), *map(_bars, found.values())], ["the paper", *found], size=15), "PNG")


def _bars(scores: torch.Tensor) -> np.ndarray:
    """(H,W,3) uint8: a bar for each row, the longest as long as there is room."""
    image = Image.new("RGB", (330, 30 * len(ROWS)), "white")
    draw, full = ImageDraw.Draw(image), float(scores.max()) or 1.0
    for number, (row, score) in enumerate(zip(ROWS, scores.tolist())):
        colour = "#8c8c8c" if row == "random" else "#0072b2"
        draw.text((0, 30 * number + 5), row, fill="black", font=show.font(14))
        draw.rectangle((86, 30 * number + 4, 87 + score / full * 170, 30 * number + 24), fill=colour)
        draw.text((94 + score / full * 170, 30 * number + 5), f"{score:.3f}", fill="black", font=show.font(14))
    return np.asarray(image)
