"""Before and beside the paper: how far a quadratic holds around a unit's optimal image, and which pictures see weights.

python -m data.make.curvature --out data/zfnet56-curvature.json
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import _files
from ..deconv import RULES, Deconvnet
from ..experiments.ascent import activation_maximisation
from ..experiments.hessian import curvature
from ..experiments.one_unit import OneUnit
from ..show import CURVES, ORANGE, Axes, ink

STEP = 0.3  # of the image's length: how far apart the gradients are that the finite Hessian compares
ANGLES = tuple(range(-60, 61, 2))  # degrees along a great circle
KINDS = ("flattest", "steepest", "random", "another unit's flattest")


# --- along great circles ---------------------------------------------------------------------------------------------


def turned(image: torch.Tensor, direction: torch.Tensor, degrees) -> torch.Tensor:
    """(A,…): an image moved along the great circle through it in a direction, by so many degrees; its length stays.

    Only the part of the direction at right angles to the image counts.
    """
    flat, along = image.flatten(), direction.flatten()
    along = along - flat * (flat @ along) / (flat @ flat)
    along = (along * (flat.norm() / along.norm().clamp(min=1e-12))).view_as(image)
    angles = torch.deg2rad(torch.as_tensor(degrees, dtype=image.dtype, device=image.device))
    angles = angles.view(-1, *[1] * image.dim())
    return angles.cos() * image + angles.sin() * along


def response(unit: OneUnit, direction: torch.Tensor, degrees: Sequence[float] = ANGLES) -> torch.Tensor:
    """(A,): the unit along the great circle from its own image in a direction (3,H,W)."""
    return unit.values(turned(unit.window(), unit.window(direction), degrees)).cpu()


def quadratic(unit: OneUnit, direction: torch.Tensor, degrees: Sequence[float] = ANGLES) -> torch.Tensor:
    """(A,): the same, predicted from the value, the slope and the exact curvature along the great circle."""
    window, length = unit.window(), unit.window().norm()
    one = turned(window, unit.window(direction), [90.0])[0] / length
    gradient = unit.gradient(window)
    slope = float((gradient * one).sum() * length)
    bend = float((unit.hessian_times(window, one) * one).sum() * length**2 - (gradient * window).sum())
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return float(unit.values(window[None])) + slope * angles + bend * angles**2 / 2


def reach(true: torch.Tensor, predicted: torch.Tensor, degrees: Sequence[float] = ANGLES, *, share: float = 0.1):
    """Degrees, to both sides, within which prediction and response differ by at most `share` of the response at 0."""
    degrees = torch.as_tensor(degrees)
    far = (true - predicted).abs() > share * true[degrees.abs().argmin()].abs()
    return float(degrees[far].abs().min()) if bool(far.any()) else float(degrees.abs().max())


def around_optima(
    net: nn.Module, layer: str, channels: Sequence[int], *, steps: int = 48, step: float = STEP, seed: int = 0
) -> list[dict]:
    """For each channel what happens around the image that activation maximisation finds for it, as plain numbers.

    "response" and "quadratic": kind of direction -> activations at `ANGLES`; the kinds are `KINDS`: the ends of the
    finite Hessian on the sphere, a random direction, and the flattest direction of the channel before.
    """
    units, ends = [], []
    for channel in channels:
        image = activation_maximisation(net, layer, channel, steps=steps, seed=seed)
        maps = Deconvnet(net).activations(image[None], layer)
        unit = OneUnit(net, image, layer, channel, None if maps.dim() == 2 else tuple(n // 2 for n in maps.shape[2:]))
        units.append(unit)
        ends.append(curvature(net, image, layer, channel, position=unit.position, k=1, sphere=True, step=step)[1])
    found = []
    for number, (unit, (flat, steep)) in enumerate(zip(units, ends)):
        generator = torch.Generator().manual_seed(seed + number)
        noise = torch.randn(unit.image.shape, generator=generator).to(unit.image)
        directions = dict(zip(KINDS, (flat, steep, noise, ends[number - 1][0])))
        found.append(_around(unit, directions))
    return found


def _around(unit: OneUnit, directions: dict[str, torch.Tensor]) -> dict:
    lines = {"response": response, "quadratic": quadratic}
    drawn = {what: {kind: line(unit, d).tolist() for kind, d in directions.items()} for what, line in lines.items()}
    exact = unit.hessian_times(unit.window(), torch.ones_like(unit.window()))
    return {"layer": unit.layer, "channel": unit.channel, "exact_zero": not bool(exact.any())} | drawn


def not_additive(
    net: nn.Module, image: torch.Tensor, layer: str, *, channels: int = 4, step: float = STEP, seed: int = 0
) -> torch.Tensor:
    """(channels,): by how much products with the finite Hessian fail to add up, for a layer's busiest channels.

    The length of H(u + v) - Hu - Hv over that of H(u + v), for two random directions; 0 for any matrix.
    """
    maps = Deconvnet(net).activations(image[None], layer)[0]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for channel in maps.flatten(1).amax(dim=1).topk(channels).indices.tolist():
        unit = OneUnit(net, image, layer, channel)
        window = unit.window()
        u, v = torch.randn(2, *window.shape, generator=generator).to(window)
        products = []
        for one in (u + v, u, v):
            near = step * window.norm() * one / one.norm()
            difference = unit.gradient(window + near) - unit.gradient(window - near)
            products.append(difference * one.norm())  # the Hessian times `one`, but for the same factor in all three
        found.append((products[0] - products[1] - products[2]).norm() / products[0].norm().clamp(min=1e-12))
    return torch.stack(found).cpu()


def load(net: nn.Module | None = None, path: str | Path = _files.SHIPPED / "zfnet56-curvature.json") -> dict:
    """The shipped numbers: layer -> what `around_optima` found; warns if `net` is another one than theirs."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if net is not None and getattr(net, "card", {}).get("sha256") != found["sha256"]:
        warnings.warn(f"{Path(path).name} was computed with another network than yours; python -m data.make.curvature "
                      "computes it again", stacklevel=2)  # fmt: skip
    return found["layers"]


def reaches(found: dict[str, list[dict]], kind: str) -> dict[str, torch.Tensor]:
    """Layer -> (n,) degrees within which the quadratic holds along this kind of direction."""
    return {layer: torch.tensor([_reach(one, kind) for one in some]) for layer, some in found.items()}


def _reach(one: dict, kind: str) -> float:
    return reach(torch.tensor(one["response"][kind]), torch.tensor(one["quadratic"][kind]))


def kept(found: dict[str, list[dict]], kind: str, degrees: int = 60) -> dict[str, torch.Tensor]:
    """Layer -> (n,) share of the activation that is left `degrees` away, mean of both sides."""
    ends = [ANGLES.index(degrees), ANGLES.index(-degrees)]
    middle = ANGLES.index(0)
    shares = {}
    for layer, some in found.items():
        lines = torch.tensor([one["response"][kind] for one in some])
        shares[layer] = lines[:, ends].mean(dim=1) / lines[:, middle]
    return shares


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """The mean of (n,) values and its standard error."""
    return float(values.double().mean()), float(values.double().std() / len(values) ** 0.5)


# --- sanity checks ---------------------------------------------------------------------------------------------------

METHODS = (*RULES, "Grad-CAM")
CONTROLS = {"other image": "two photographs, one network", "two random": "one photograph, two random networks"}


def grad_cam(net: nn.Module, images: torch.Tensor, layer: str, labels) -> torch.Tensor:
    """(N,h,w): Grad-CAM of each image's class at a layer (Selvaraju 2017): maps weighed by their mean gradients.

    `net` is one of ours, a row of modules, or an nn.Sequential.
    """
    path = net.layer_path(layer) if hasattr(net, "layer_path") else layer
    modules = list(net.named_children())
    cut = [name for name, _ in modules].index(path) + 1
    with torch.no_grad():
        for _, module in modules[:cut]:
            images = module(images)
    maps = images.clone().requires_grad_()
    with torch.enable_grad():
        scores = nn.Sequential(*[module for _, module in modules[cut:]])(maps)
        (gradient,) = torch.autograd.grad(scores[torch.arange(len(scores)), labels].sum(), maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1).clamp(min=0).detach()


def pictures(net: nn.Module, images: torch.Tensor, labels, *, layer: str = "conv5") -> dict[str, torch.Tensor]:
    """Method -> (N,H,W): how strongly each pixel counts for the class, by the three rules and by Grad-CAM at a layer.

    Of the rules it is the largest absolute value over the colours, as in Simonyan (2013).
    """
    last = net.layer_names[-1]
    found = {rule: Deconvnet(net, rule=rule).project(images, last, labels).abs().amax(dim=1) for rule in RULES}
    maps = grad_cam(net, images, layer, labels)[:, None]
    large = nn.functional.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)
    return found | {"Grad-CAM": large[:, 0]}


def randomised_from_the_top(net: nn.Module, *, seed: int = 0):
    """Yields (name of the layer, network): a copy whose layers from the last down to this one have random weights.

    Drawn from a normal distribution with the spread of the layer's own weights (Adebayo 2018, cascading).
    """
    made, generator = copy.deepcopy(net), torch.Generator().manual_seed(seed)
    for name in [name for name in net.layer_names[::-1] if getattr(made, name, None) and _has_weights(made, name)]:
        module = getattr(made, name)
        with torch.no_grad():
            for weight in module.parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight)
                weight.copy_(noise * weight.std().nan_to_num())
        yield name, made


def ignores(method, net: nn.Module, image: torch.Tensor) -> bool:
    """Whether method(net, image) draws the same picture for a copy of the network with random weights."""
    other = copy.deepcopy(net)
    for weight in other.parameters():
        torch.nn.init.normal_(weight.data)
    return torch.allclose(method(net, image), method(other, image))


def _has_weights(net: nn.Module, name: str) -> bool:
    return any(True for _ in getattr(net, name).parameters())


def likeness(ones: torch.Tensor, others: torch.Tensor) -> dict[str, torch.Tensor]:
    """By measure, "rank" (Spearman) or "SSIM": (N,) how alike (N,H,W) pictures are; they range from 0 up."""
    from scipy.stats import spearmanr
    from skimage.metrics import structural_similarity

    ranks, structure = [], []
    for one, other in zip(*(some.cpu().double().numpy() for some in (ones, others))):
        flat = np.ptp(one) == 0 or np.ptp(other) == 0  # a picture of nothing resembles nothing
        ranks.append(0.0 if flat else spearmanr(one.ravel(), other.ravel()).statistic)
        a, b = (picture / (picture.max() or 1.0) for picture in (one, other))
        structure.append(structural_similarity(a, b, data_range=1.0))
    return {"rank": torch.tensor(ranks), "SSIM": torch.tensor(structure)}


def cascade(net: nn.Module, images: torch.Tensor, labels, *, draws: int = 1, seed: int = 0) -> dict:
    """Measure -> method -> layer -> (N,): likeness to the trained network's pictures while layers become random.

    Each is the mean over `draws` of the random weights. After the layers come two controls: "other image", the trained
    network's pictures of two images, and "two random", the pictures of two networks that are random throughout.
    """
    trained = pictures(net, images, labels)
    found = {measure: {method: {} for method in METHODS} for measure in ("rank", "SSIM")}

    def note(name: str, ones: dict, others: dict) -> None:
        for method in METHODS:
            for measure, values in likeness(ones[method], others[method]).items():
                found[measure][method].setdefault(name, []).append(values)

    throughout = []  # the pictures of networks that are random throughout, one for each draw and one more
    for draw in range(draws):
        for name, randomised in randomised_from_the_top(net, seed=seed + draw):
            drawn = pictures(randomised, images, labels)
            note(name, trained, drawn)
        throughout.append(drawn)
    *_, (_, again) = randomised_from_the_top(net, seed=seed + draws)
    throughout.append(pictures(again, images, labels))
    note("other image", trained, {method: values.roll(1, 0) for method, values in trained.items()})
    for one, other in pairwise(throughout):
        note("two random", one, other)
    return {
        measure: {
            method: {name: torch.stack(values).mean(dim=0) for name, values in rows.items()}
            for method, rows in methods.items()
        }
        for measure, methods in found.items()
    }


# --- figures ---------------------------------------------------------------------------------------------------------

STYLES = {"flattest": ("-", "tab:blue"), "steepest": ("-", ORANGE), "random": ("--", "0.45"),
          "another unit's flattest": (":", "black")}  # fmt: skip


def layer_lines(rows: dict[str, dict[str, torch.Tensor]], ax: Axes, *, ylabel: str, title: str) -> Axes:
    """Kind -> layer -> (n,) values as one line a kind: means, standard errors, labelled at their ends."""
    for kind, by_layer in rows.items():
        line, colour = STYLES.get(kind, ("-", None))
        points = [mean_and_error(values) for values in by_layer.values()]
        means, errors = zip(*points)
        drawn = ax.errorbar(list(by_layer), means, errors, fmt="o" + line, color=colour, capsize=3)
        ax.text(len(means) - 0.9, means[-1], kind, va="center", color=ink(drawn[0].get_color()))
    ax.set(ylabel=ylabel, title=title, xlabel="layer", xlim=(-0.3, len(means) + 0.6))
    return ax


def contours(function, ax: Axes, *, paths: Sequence[torch.Tensor] = (), arrows: dict | None = None) -> Axes:
    """A function of two pixels, -3 to 3 each, as contours; (n,2) paths with a dot at their start.

    `arrows`: name -> ((2,) where from, (2,) direction), drawn to both sides in the colour of `STYLES`.
    """
    side = torch.linspace(-3, 3, 81)
    heights = torch.tensor([[float(function(torch.stack([x, y]))) for x in side] for y in side])
    ax.contourf(side, side, heights, levels=12, cmap="Greys", alpha=0.6)
    for path in paths:
        ax.plot(*path.T.tolist(), color="tab:blue", lw=2)
        ax.plot(*path[0].tolist(), "o", color="tab:blue", ms=8)
        ax.plot(*path[-1].tolist(), "*", color=ORANGE, ms=15)
    for name, (start, direction) in (arrows or {}).items():
        colour = STYLES[name][1]
        for sign in (1, -1):
            ax.annotate("", (start + sign * direction).tolist(), start.tolist(),
                        arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 3})  # fmt: skip
        ax.text(*(start + 1.15 * direction).tolist(), name, color=ink(colour), ha="center", va="center", fontsize=13,
                bbox={"fc": "white", "ec": "none", "pad": 1.5})  # fmt: skip
    ax.set(xlabel="first pixel", ylabel="second pixel", aspect="equal")
    return ax


def cascade_lines(rows: dict[str, dict[str, torch.Tensor]], ax: Axes) -> Axes:
    """Method -> layer -> (N,) likenesses of `cascade` as lines over the layers, labelled at their left ends."""
    for method, colour, marker in zip(METHODS, CURVES, "osD^"):
        layers = [name for name in rows[method] if name not in CONTROLS]
        points = [mean_and_error(rows[method][name]) for name in layers]
        means, errors = zip(*points)
        ax.errorbar(layers, means, errors, fmt=marker + "-", color=colour, capsize=3)
        ax.text(-0.2, means[0], method, color=ink(colour), ha="right", va="center")
    ax.axhline(0, color="0.8", lw=1)
    ax.set(ylabel="rank correlation with the trained network's map", xlim=(-2.1, len(layers) - 0.7),
           xlabel="random from the top down to …", ylim=(-0.3, 1.05))  # fmt: skip
    return ax


def control_bars(rows: dict[str, dict[str, torch.Tensor]], ax: Axes) -> Axes:
    """The controls of `cascade`, a pair of bars with standard errors for each method."""
    for number, control in enumerate(CONTROLS):
        points = [mean_and_error(rows[method][control]) for method in METHODS]
        means, errors = zip(*points)
        places = [place + 0.38 * (number - 0.5) for place in range(len(METHODS))]
        ax.bar(places, means, 0.34, yerr=errors, capsize=3, color=("0.82", "0.45")[number], label=CONTROLS[control])
    ax.axhline(0, color="0.8", lw=1)
    ax.set_xticks(range(len(METHODS)), METHODS)
    ax.set(ylim=(-0.3, 1.05), title="controls")
    ax.legend(frameon=False, loc="upper left")
    return ax
