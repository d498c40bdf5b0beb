"""Curvature equals known Hessians: quadratic units, their spheres, finite differences; and 0 where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zflib
from zflib._arguments import layer_path
from zflib.experiments.one_unit import OneUnit
from zflib.models import Conv, Geometry, ZFNet

TINY = Geometry(32, 28, (
    Conv(6, 5, stride=2, padding=1, pool=True, norm=True), Conv(8, 3, padding=1, pool=True, norm=True),
    Conv(8, 3, padding=1),
), hidden=(9,))  # fmt: skip


class Quadratic(nn.Module):
    """A unit ½ x·A x + b·x of an image (3,4,5), with a known Hessian A."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        matrix = torch.randn(60, 60, generator=generator, dtype=torch.float64)
        self.matrix = nn.Parameter(matrix + matrix.T)
        self.slope = nn.Parameter(torch.randn(60, generator=generator, dtype=torch.float64))

    def forward(self, x):
        x = x.flatten(1)
        return torch.stack([x @ self.slope, 0.5 * (x @ self.matrix * x).sum(1) + x @ self.slope], dim=1)


class Square(nn.Module):
    def forward(self, x):
        return x * x


def picture(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same_lines(ones, others):
    """Whether unit vectors agree but for their signs."""
    return bool(((ones.flatten(1) * others.flatten(1)).sum(1).abs() > 0.999).all())


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr("zflib.experiments.hessian.TOLERANCE", 0)


@pytest.mark.parametrize("step", [None, 0.1])
def test_a_quadratic_unit(exact, step):
    """Differences of gradients are exact, too, where the gradient is linear."""
    net = nn.Sequential(Quadratic())
    values, directions = zflib.curvature(net, picture(3, 4, 5), "0", 1, k=3, step=step)
    known, vectors = torch.linalg.eigh(net[0].matrix.detach())
    ends = [-1, -2, -3, 2, 1, 0]
    assert values.shape == (6,) and directions.shape == (6, 3, 4, 5) and not directions.requires_grad
    torch.testing.assert_close(values, known[ends])
    assert same_lines(directions, vectors.T[ends])
    torch.testing.assert_close(directions.flatten(1).norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_a_quadratic_unit_on_the_sphere(exact):
    """In a basis of the tangent space, by brute force."""
    net, image = nn.Sequential(Quadratic()), picture(3, 4, 5)
    values, directions = zflib.curvature(net, image, "0", 1, k=2, sphere=True)
    x, matrix = image.flatten(), net[0].matrix.detach()
    tangent = torch.linalg.svd(x[None])[2][1:]  # (59,60)
    bend = x @ (matrix @ x + net[0].slope.detach()) / (x @ x)
    known, vectors = torch.linalg.eigh(tangent @ matrix @ tangent.T - bend * torch.eye(59, dtype=torch.float64))
    torch.testing.assert_close(values, known[[-1, -2, 1, 0]])
    assert same_lines(directions, (vectors.T @ tangent)[[-1, -2, 1, 0]])
    assert (directions.flatten(1) @ x).abs().max() < 1e-9


def test_on_the_sphere_it_is_the_second_derivative_along_a_great_circle():
    net, image = nn.Sequential(Quadratic()), picture(3, 4, 5)
    values, directions = zflib.curvature(net, image, "0", 1, k=1, sphere=True)
    length, small = image.norm(), 1e-4
    angles = torch.tensor([-small, 0, small], dtype=torch.float64)
    for value, direction in zip(values, directions):
        moved = [image * torch.cos(t) + length * direction * torch.sin(t) for t in angles]
        before, here, after = net(torch.stack(moved))[:, 1]
        torch.testing.assert_close((before - 2 * here + after) / (small * length) ** 2, value, rtol=0.02, atol=0)


def test_the_square_of_a_filter_curves_along_the_filter_alone():
    """f = (w·x)²: the Hessian is 2 w wᵀ, at the filter's place in the image."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), Square()).double()
    values, directions = zflib.curvature(net, picture(3, 9, 8), "1", 2, position=(4, 5), k=2)
    weight = net[0].weight[2].detach()
    torch.testing.assert_close(values, torch.tensor([2 * float((weight**2).sum()), 0, 0, 0], dtype=torch.float64))
    expected = torch.zeros(3, 9, 8, dtype=torch.float64)
    expected[:, 3:6, 4:7] = weight / weight.norm()
    assert same_lines(directions[:1], expected[None])


@pytest.mark.parametrize("layer", ["norm1", "norm2", "conv3", "fc5"])
def test_products_with_the_hessian_are_differences_of_gradients(layer):
    """Response normalisation is all that curves such a network; strong here, so that it can be seen."""
    torch.manual_seed(0)
    net = ZFNet(5, geometry=TINY).double().eval()
    net.norm1.alpha = net.norm2.alpha = 1.0
    image = 3 * picture(3, 28, 28)
    maps = zflib.Deconvnet(net).activations(image[None], layer)[0]
    unit = OneUnit(net, image, layer, int(maps.reshape(len(maps), -1).amax(1).argmax()))
    window, direction = unit.window(), picture(*unit.window().shape, seed=2)
    product, small = unit.hessian_times(window, direction), 1e-6
    near = (unit.gradient(window + small * direction) - unit.gradient(window - small * direction)) / (2 * small)
    assert product.abs().max() > 1e-5
    torch.testing.assert_close(product, near, rtol=1e-4, atol=1e-4 * float(product.abs().max()))
    leaf = window.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(unit(leaf[None])[0], leaf)
    torch.testing.assert_close(unit.gradient(window), gradient)


def relu_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 5, 3), nn.ReLU()).double()


def test_a_network_of_relus_and_pools_has_no_hessian():
    values, directions = zflib.curvature(relu_net(), picture(3, 24, 24), "3", 1)
    assert not values.any() and not directions.any()


def test_on_the_sphere_all_directions_of_such_a_network_are_alike():
    net, image = relu_net(), picture(3, 24, 24)
    values, directions = zflib.curvature(net, image, "3", 1, position=(0, 0), sphere=True)
    unit = OneUnit(net, image, "3", 1, (0, 0))
    bend = (unit.gradient(unit.window()) * unit.window()).sum() / unit.window().norm() ** 2
    torch.testing.assert_close(values, -bend.expand(6))
    assert not directions.any()


def test_a_finite_step_sees_the_kinks():
    """Along each direction the response's second difference over the step has the eigenvalue's sign."""
    net, image = relu_net(), picture(3, 24, 24)
    values, directions = zflib.curvature(net, image, "3", 1, k=1, step=0.3)
    assert values[0] > 0 > values[1]
    unit = OneUnit(net, image, "3", 1)
    moved = 0.3 * unit.window().norm() * unit.window(directions)
    bends = (
        unit.values(unit.window() + moved) + unit.values(unit.window() - moved) - 2 * unit.values(unit.window()[None])
    )
    assert bends[0] > 0 > bends[1]


class Branches(nn.Module):
    """A shortcut, and a branch with a stride beside one without."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.one, self.five = nn.Conv2d(6, 4, 1, 2), nn.Conv2d(6, 4, 5, 2, 2)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = F.max_pool2d(torch.relu(x + self.conv(x)), 3, 2, 1, ceil_mode=True)
        return self.mixed(torch.cat([self.one(x), self.five(x)], dim=1))

    def mixed(self, x):
        return x


def net_to(net, layer, image):
    """(C,h,w) of a layer, by a hook and autograd."""
    found = []
    hook = net.get_submodule(layer_path(net, layer)).register_forward_hook(lambda *given: found.append(given[-1]))
    net(image[None])
    hook.remove()
    return found[0][0]


@pytest.mark.parametrize("net, layer", [
    (ZFNet(5, geometry=TINY), "norm1"), (ZFNet(5, geometry=TINY), "conv2"), (ZFNet(5, geometry=TINY), "conv3"),
    (Branches(), "five"), (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(3), nn.Conv2d(4, 4, 2)), "2"),
], ids=["norm1", "conv2", "conv3", "branches", "adaptive"])  # fmt: skip
def test_the_window_gives_every_position_its_activation_and_gradient(net, layer):
    net, image = net.double().eval(), picture(3, *((28, 28) if isinstance(net, ZFNet) else (43, 38)))
    maps = zflib.Deconvnet(net).activations(image[None], layer)[0]
    for row in range(maps.shape[1]):
        for column in range(0, maps.shape[2], 2):
            unit = OneUnit(net, image, layer, 2, (row, column))
            torch.testing.assert_close(unit.values(unit.window()[None])[0], maps[2, row, column])
            leaf = image.clone().requires_grad_()
            (full,) = torch.autograd.grad(net_to(net, layer, leaf)[2, row, column], leaf)
            torch.testing.assert_close(unit.embedded(unit.gradient(unit.window())), full)


def test_small_fields_give_small_windows():
    unit = OneUnit(ZFNet(5, geometry=TINY).eval(), picture(3, 64, 64, dtype=torch.float32), "conv2", 0, (6, 6))
    top, left, bottom, right = unit.box
    assert bottom - top < 24 and right - left < 24


def test_it_leaves_no_trace_and_needs_no_modes():
    net, image = relu_net(), picture(3, 24, 24)
    net.insert(1, nn.BatchNorm2d(6).double())
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        found = zflib.curvature(net, image, "4", 1, k=1, step=0.2)
    assert net.training and net[1].training and not any(m._forward_hooks for m in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.autocast("cpu"):
        again = zflib.curvature(net.eval(), image, "4", 1, k=1, step=0.2)
    torch.testing.assert_close(found, again)


GOOD = picture(3, 24, 24)
BAD = [
    ({"net": "zfnet56"}, TypeError, "net must be a torch network"),
    ({"image": GOOD[None].expand(2, -1, -1, -1)}, ValueError, r"image must be one preprocessed image \(3,H,W\)"),
    ({"image": GOOD / 0}, ValueError, "images hold NaN"),
    ({"layer": "conv9"}, ValueError, "layer 'conv9' is not in this network; it has 0, 1, 2"),
    ({"channel": 5}, ValueError, "channel must be one of layer '3', 0 to 4, got 5"),
    ({"position": (9, 0)}, ValueError, "position: the maps of layer '3' are 3x3"),
    ({"k": 0}, ValueError, "k must be 1 to .* directions at each end, got 0"),
    ({"step": 2}, ValueError, "step must be a share of the image's length, above 0 and at most 1, got 2"),
    ({"image": 0 * GOOD, "sphere": True}, ValueError, "image is 0 everywhere"),
    ({"seed": 0.5}, ValueError, "seed must be a whole number"),
]  # fmt: skip


@pytest.mark.parametrize("wrong, kind, sentence", BAD, ids=range(len(BAD)))
def test_bad_input(wrong, kind, sentence):
    given = {"net": relu_net(), "image": GOOD, "layer": "3", "channel": 1} | wrong
    with pytest.raises(kind, match=sentence) as caught:
        zflib.curvature(**given)
    assert "\n" not in str(caught.value)
