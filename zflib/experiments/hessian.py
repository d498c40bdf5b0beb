"""The curvature of one unit at an image: its Hessian's flattest and steepest directions (Le 2010)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from .._arguments import check_integer, check_net, check_seed, is_number
from .one_unit import OneUnit

TOLERANCE = 1e-2  # of eigenvalues, relative: directions to look at, not numbers to publish


def curvature(
    net: nn.Module, image: torch.Tensor, layer: str, channel: int, *, position=None, k: int = 3, sphere: bool = False,
    step: float | None = None, seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Eigenvalues (2k,) and unit directions (2k,3,H,W) of one unit's Hessian at a (3,H,W) image, largest first.

    At a maximum all eigenvalues are negative. Then the first k directions are the flattest, along which the unit falls
    off least, the last k are the steepest. Units: activation per squared length, in the network's units of pixels.
    `position` (row, column) is by default the strongest. `sphere`: the image keeps its Euclidean length and moves along
    great circles (Le 2010), which adds -(gradient · image) / length² to the curvature of every direction.

    A network of ReLUs, convolutions and max pools is linear around nearly every image: its Hessian is exactly 0, and on
    the sphere all directions are alike. Then the directions are 0, too, since none is special. Give `step`, a share of
    the image's length: products with the Hessian become differences of gradients that far to both sides, which see the
    ReLUs and pools that switch in between. Lanczos iterations (scipy's eigsh), started with `seed`. Bad input raises
    ValueError or TypeError.
    """
    check_net(net)
    unit = OneUnit(net, image, layer, channel, position)
    at = unit.window().double().cpu()
    k = check_integer("k", k, f"1 to {at.numel() // 4} directions at each end", low=1, high=at.numel() // 4)
    if step is not None and (not is_number(step) or not 0 < step <= 1):
        raise ValueError(f"step must be a share of the image's length, above 0 and at most 1, got {step!r}")
    length = float(at.norm())
    if (sphere or step) and not length:
        raise ValueError("image is 0 everywhere: it has no length, and no sphere; give a real image")
    times = _products(unit, None if step is None else step * length)
    bend = float(unit.gradient(unit.window()).double().cpu().flatten() @ at.flatten()) / length**2 if sphere else 0.0
    basis = _Tangent(at.numpy().ravel() / length) if sphere else None
    values, vectors = _ends(times, at.numel(), basis, k, bend, check_seed(seed))
    directions = torch.from_numpy(vectors).to(unit.image).view(2 * k, *at.shape)
    return torch.from_numpy(values).to(unit.image), unit.embedded(directions)


def _products(unit: OneUnit, step: float | None) -> Callable[[np.ndarray], np.ndarray]:
    """Direction (n,) -> the Hessian times it, exact or as a difference of gradients `step` to both sides."""
    window = unit.window()

    def times(direction: np.ndarray) -> np.ndarray:
        length = float(np.linalg.norm(direction))
        if not length:
            return np.zeros_like(direction)
        one = torch.from_numpy(direction / length).to(window).view_as(window)
        if step is None:
            product = unit.hessian_times(window, one)
        else:
            product = gradient_difference(unit.gradient, window, one, step)
        return product.double().cpu().numpy().ravel() * length

    return times


def gradient_difference(gradient: Callable, image: torch.Tensor, direction: torch.Tensor, step: float) -> torch.Tensor:
    """The Hessian times a direction, from the gradients at `step` times the direction to both sides of the image."""
    return (gradient(image + step * direction) - gradient(image - step * direction)) / (2 * step)


class _Tangent:
    """The directions at right angles to a unit vector (n,), as vectors of n - 1 numbers: a Householder reflection."""

    def __init__(self, normal: np.ndarray):
        self.mirror = normal.copy()
        self.mirror[0] += np.copysign(1.0, normal[0])
        self.mirror /= np.linalg.norm(self.mirror)

    def out(self, vector: np.ndarray) -> np.ndarray:
        """(n-1,) -> (n,)."""
        return self._reflected(np.concatenate([[0.0], vector.ravel()]))

    def back(self, vector: np.ndarray) -> np.ndarray:
        """(n,) -> (n-1,), without the part along the normal."""
        return self._reflected(vector)[1:]

    def _reflected(self, vector: np.ndarray) -> np.ndarray:
        return vector - 2 * self.mirror * (self.mirror @ vector)


def _ends(times: Callable, size: int, basis: _Tangent | None, k: int, bend: float, seed: int):
    """(2k,) eigenvalues, largest first, and (2k,size) directions of the Hessian, on the sphere if it has a `basis`."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # only who asks for it waits for scipy

    out = basis.out if basis else np.ravel
    back = basis.back if basis else np.asarray
    inner = size - 1 if basis else size
    start = np.random.default_rng(seed).standard_normal(inner)
    if not times(out(start)).any():  # linear around the image
        return np.full(2 * k, -bend), np.zeros((2 * k, size))
    operator = LinearOperator((inner, inner), matvec=lambda v: back(times(out(v))), dtype=np.float64)
    count = min(inner, max(4 * k + 1, 20))
    try:
        values, vectors = eigsh(operator, 2 * k, which="BE", v0=start, ncv=count, tol=TOLERANCE, maxiter=30)
    except ArpackNoConvergence as error:
        raise ValueError("step is too small: gradients that near differ by chance, and no direction stands out; "
                         "give a larger share of the image's length") from error  # fmt: skip
    order = values.argsort()[::-1]
    return values[order] - bend, np.stack([out(vector) for vector in vectors.T[order]])
