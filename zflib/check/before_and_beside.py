"""Exercises of notebook 14: a step uphill, the Hessian by finite differences, a method that ignores its network."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..experiments.ascent import ascent_step as _ascent_step
from ..experiments.ascent import within
from ..experiments.hessian import gradient_difference
from ..studies import curvature as study
from .cases import case, seeded
from .verdict import Exercise, in_numbers

# --- a step uphill ---------------------------------------------------------------------------------------------------


def _steps():
    """One that stays inside the sphere, one that leaves it and is called back; gradients of other lengths than 1."""
    inside = torch.tensor([[[1.0, 0, 2], [0, -1, 0]]]), torch.tensor([[[3.0, 0, 0], [0, 4, 0]]])
    outside = torch.tensor([[[6.0, 0, -3], [0, 2, 0]]]), torch.tensor([[[0.0, 0.3, 0], [0, 0, 0.4]]])
    return [case(*inside, 0.2, 10.0), case(*outside, 0.5, 6.0)]


def _uphill(image, gradient, rate, norm):
    return image + rate * norm * gradient / gradient.norm()


def _draw_step(given, answer, target) -> np.ndarray:
    (image, gradient, rate, norm), _ = given
    return in_numbers({f"image (norm {norm:g}, rate {rate:g})": image, "gradient": gradient}, answer, target)


ascent_step = Exercise(
    "ascent_step", _ascent_step, _steps,
    mistakes={
        "the image went downhill; add the gradient":
            lambda image, gradient, rate, norm: _ascent_step(image, -gradient, rate, norm),
        "the gradient's own length decides how far the image moves; divide the gradient by its norm first":
            lambda image, gradient, rate, norm: within(image + rate * norm * gradient, norm),
        "the image was left too long; shrink it back to `norm`": _uphill,
        "the image was stretched to `norm` as well; only shrink what is longer":
            lambda *given: norm_of(_uphill(*given), given[-1]),
        "you moved by `rate`; move by rate * norm":
            lambda image, gradient, rate, norm: within(image + rate * gradient / gradient.norm(), norm),
        "only the signs of the gradient counted; keep its values":
            lambda image, gradient, rate, norm: within(image + rate * norm * gradient.sign(), norm),
        "each pixel was clamped; the constraint is on the length of the whole image":
            lambda image, gradient, rate, norm: _uphill(image, gradient, rate, norm).clamp(-norm / 4, norm / 4),
        "you returned the step alone; add it to the image":
            lambda image, gradient, rate, norm: rate * norm * gradient / gradient.norm(),
    },
    draw=_draw_step,
)  # fmt: skip


def norm_of(image: torch.Tensor, norm: float) -> torch.Tensor:
    """The image, shrunk or stretched to a length."""
    return image / image.norm() * norm


# --- the Hessian without second derivatives --------------------------------------------------------------------------


def _cubic(matrix: torch.Tensor) -> Callable:
    """The gradient of x·Mx/2 + sum(x³)/3: the cube makes the two sides differ."""
    return lambda image: (matrix @ image.flatten()).view_as(image) + image**2


def _cubics():
    one = torch.tensor([[2.0, 1, 0, 0], [1, 0, -1, 0], [0, -1, 1, 3], [0, 0, 3, -2]])
    image, direction = torch.tensor([[1.0, 0], [2, -1]]), torch.tensor([[1.0, 2], [0, -2]])
    return [case(_cubic(one), image, direction, 0.5), case(_cubic(one.flip(0, 1)), 2 * image, direction.T + 1, 0.25)]


def _draw_product(given, answer, target) -> np.ndarray:
    (_, image, direction, step), _ = given
    return in_numbers({f"image (step {step:g})": image, "direction": direction}, answer, target)


hessian_times = Exercise(
    "hessian_times", gradient_difference, _cubics,
    mistakes={
        "you compared with the gradient at the image itself; step to both sides, and what is of third order cancels":
            lambda g, image, v, step: (g(image + step * v) - g(image)) / step,
        "the two points are 2 * step apart; divide by that":
            lambda g, image, v, step: (g(image + step * v) - g(image - step * v)) / step,
        "the difference was not divided; divide by 2 * step":
            lambda g, image, v, step: g(image + step * v) - g(image - step * v),
        "the direction was made one long; the product is with the direction as it is":
            lambda g, image, v, step: gradient_difference(g, image, v / v.norm(), step),
        "the sides are exchanged: later minus earlier":
            lambda g, image, v, step: -gradient_difference(g, image, v, step),
        "this is the second difference of the gradient, a third derivative; the gradient is a derivative already":
            lambda g, image, v, step: (g(image + step * v) - 2 * g(image) + g(image - step * v)) / step**2,
        "you multiplied the gradient by the direction; the Hessian says how the gradient changes along it":
            lambda g, image, v, step: g(image) * v,
    },
    draw=_draw_product,
)  # fmt: skip


# --- a method that ignores its network -------------------------------------------------------------------------------


def _edges(net, image):
    """Where brightness changes; the network is not asked."""
    grey = image.mean(dim=0)
    return F.pad(grey.diff(dim=1), (0, 1)).abs() + F.pad(grey.diff(dim=0), (0, 0, 0, 1)).abs()


def _gradient(net, image):
    leaf = image.clone().requires_grad_()
    return torch.autograd.grad(net(leaf[None])[0, 0], leaf)[0].abs().amax(dim=0)


def _first_layer(net, image):
    return net[0](image[None])[0].clamp(min=0).sum(dim=0).detach()


def _last_layer(net, image):
    return net[-1].weight[0].detach().view(-1, *image.shape[1:]).mean(dim=0) * image[0]


def _mostly_edges(net, image):
    return _edges(net, image) + 0.02 * _gradient(net, image)


def _pretends(net, image):
    """Asks the network, and multiplies by what it said, and divides again."""
    return _edges(net, image) * (1 + 0 * _gradient(net, image))


@seeded(14)
def _methods(generator):
    for method in (_gradient, _edges, _first_layer, _last_layer, _mostly_edges, _pretends):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        for weight in net.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.5
        yield case(method, net, torch.randint(0, 4, (3, 4, 4), generator=generator).float())


def _randomised(net, layers):
    other = copy.deepcopy(net)
    for layer in layers:
        for weight in other[layer].parameters():
            weight.data = torch.ones_like(weight) - 2 * weight.data
    return other


def _same_after(*layers) -> Callable:
    return lambda method, net, image: torch.allclose(method(net, image), method(_randomised(net, layers), image))


def _nearly(method, net, image):
    one, other = method(net, image), method(_randomised(net, (0, 3)), image)
    return bool(F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.9)


def _draw_method(given, answer, target) -> np.ndarray:
    (method, net, image), _ = given
    drawn = {"its picture": method(net, image), "with other weights": method(_randomised(net, (0, 3)), image)}
    drawn = {title: picture.detach().round(decimals=1) for title, picture in drawn.items()}
    return in_numbers(drawn, None if answer is None else float(torch.as_tensor(answer)), float(target))


ignores = Exercise(
    "ignores", study.ignores, _methods,
    mistakes={
        "one method uses the first layer only, and you changed only the last; change all weights": _same_after(3),
        "one method uses the last layer only, and you changed only the first; change all weights": _same_after(0),
        "you compared a network with itself; change the weights of a copy": lambda method, net, image: True,
        "you compared two images; keep the image and change the network":
            lambda method, net, image: torch.allclose(method(net, image), method(net, image + 1 + image.flip(1))),
        "a picture that is nearly the same is not the same; one method uses the network a little": _nearly,
        "the answers are exchanged: True if the network is ignored":
            lambda *given: not study.ignores(*given),
    },
    success="the same answers as the package's own, for six methods",
    draw=_draw_method,
)  # fmt: skip
