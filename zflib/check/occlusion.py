"""Exercises of notebook 09: the loop, the network that looks elsewhere, and what goes deeper: squares to pixels."""

from functools import partial

import numpy as np
import torch
from torch import nn

from .. import show
from ..experiments.occlusion import occlude
from ..studies import localisation
from .cases import case, randomised, seeded
from .verdict import Exercise, in_numbers


def slide_over(net, image, size, stride, label) -> torch.Tensor:
    """(rows,cols) p(label) behind every square of zeros, always inside (3,H,W), each on a fresh copy of the image."""
    tops = range(0, image.shape[1] - size + 1, stride)
    lefts = range(0, image.shape[2] - size + 1, stride)
    found = torch.zeros(len(tops), len(lefts))
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            covered = image.clone()
            covered[:, top : top + size, left : left + size] = 0
            with torch.no_grad():
                found[i, j] = net(covered[None]).softmax(dim=1)[0, label]
    return found


def _small_net() -> nn.Module:
    layers = nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)
    net = nn.Sequential(*layers)
    for parameter in randomised(net, torch.Generator().manual_seed(21), std=1.0).parameters():
        parameter.div_(max(1, parameter[0].numel()) ** 0.5)
    return net


@seeded(22)
def _one_image(generator):
    for side, label in ((8, 1), (9, 2)):  # the second leaves a row and a column that no square reaches
        grey = torch.randint(-4, 7, (side, side), generator=generator).float()  # whole numbers, of all three colours
        yield case(_small_net(), grey.expand(3, -1, -1).clone(), 4, 2, label)


def _scores(net, image, size, stride, *, fresh=True, fill=0.0) -> torch.Tensor:
    """(rows,cols,classes) of the loop, with squares that stay or of another colour."""
    places = range(0, image.shape[1] - size + 1, stride)
    covered, found = image.clone(), []
    for top in places:
        for left in places:
            covered = image.clone() if fresh else covered
            covered[:, top : top + size, left : left + size] = fill
            found.append(net(covered[None])[0])
    return torch.stack(found).unflatten(0, (len(places), len(places)))


def _probabilities(net, image, size, stride, label, **otherwise) -> torch.Tensor:
    return _scores(net, image, size, stride, **otherwise).softmax(-1)[..., label]


def _draw_slide(given, answer, target) -> np.ndarray:
    """The image, which is grey, so that one colour says all; the probabilities of the answer and the target."""
    (_, image, size, stride, _), _ = given
    return in_numbers({f"image; a square of {size}, stride {stride}": image[0]}, answer, target)


slide = Exercise(
    "slide", slide_over, _one_image,
    mistakes={
        "the squares stay: every position needs a fresh copy of the image (clone it inside the loop)":
            partial(_probabilities, fresh=False),
        "these are scores; the probability needs a softmax over the classes":
            lambda net, image, size, stride, label: _scores(net, image, size, stride)[..., label],
        "rows and columns are exchanged: the first index of the map is the square's row":
            lambda *given: slide_over(*given).T,
        "this is the most probable class's probability; one class is watched at every position":
            lambda net, image, size, stride, label: _scores(net, image, size, stride).softmax(-1).amax(dim=-1),
        "the square is as dark as the image's darkest pixel; grey is 0 in the network's units":
            lambda net, image, *given: _probabilities(net, image, *given, fill=image.min()),
        "this is the drop; wanted is the probability that is left":
            lambda net, image, size, stride, label: (
                net(image[None]).softmax(-1)[0, label] - slide_over(net, image, size, stride, label)
            ),
    },
    success="the same numbers as zflib.occlude(...).probability",
    draw=_draw_slide,
)  # fmt: skip


@seeded(23)
def _squares(generator):
    for shape, size, stride in (((6, 8), 4, 2), ((7, 7), 3, 2)):
        rows, columns = (torch.arange(0, n - size + 1, stride) for n in shape)
        corners = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        drop = torch.randint(-3, 10, corners.shape[:2], generator=generator).float()
        yield case(drop, corners, size, shape)


def _painted(drop, corners, size, shape, *, write=torch.add, empty=0.0) -> torch.Tensor:
    """(H,W): square after square, its pixels become `write(pixels, drop)`."""
    pixels = torch.full(shape, empty)
    for value, (top, left) in zip(drop.flatten(), corners.flatten(0, 1).tolist()):
        part = pixels[top : top + size, left : left + size]
        part.copy_(write(part, value))
    return pixels


def _draw_pixels(given, answer, target) -> np.ndarray:
    (drop, _, size, _), _ = given
    return in_numbers({f"drops of squares of {size}": drop}, answer, target)


pixel_means = Exercise(
    "pixel_means", lambda drop, corners, size, shape: localisation.to_pixels(drop, corners, size=size, shape=shape),
    _squares,
    mistakes={
        "these are sums: pixels in the middle lie under more squares; divide by how many cover each": _painted,
        "the last square that covers a pixel decides; add the squares up, and count them":
            partial(_painted, write=lambda part, value: value),
        "every pixel was divided by the number of all squares; divide by those that cover it":
            lambda drop, *rest: _painted(drop, *rest) / drop.numel(),
        "each pixel has the largest drop of its squares; captum takes the mean":
            partial(_painted, write=torch.maximum, empty=-torch.inf),
        "only the top left pixel of each square got its drop; a square is size x size pixels":
            lambda drop, corners, size, shape: _painted(drop, corners, 1, shape),
    },
    source=localisation.to_pixels,
    draw=_draw_pixels,
    success="the same numbers as captum's Occlusion",
)  # fmt: skip


def looks_elsewhere(nets, images, labels, masks) -> torch.Tensor:
    """() the number of the network whose drop lies least on the objects: occlude, spread, share, mean, compare."""
    shares = torch.zeros(len(nets), len(images))
    for n, net in enumerate(nets):
        for i, image in enumerate(images):
            maps = occlude(net, image, size=4, stride=2, label=int(labels[i]), layer="conv5")
            drop = localisation.to_pixels(
                maps.before[0] - maps.probability, maps.corners, size=4, shape=image.shape[1:]
            )
            shares[n, i] = localisation.energy_in_mask(drop, masks[i])
    return shares.nanmean(dim=1).argmin()


class _Reader(nn.Module):
    """A network that sums one colour: class 0 if it is positive, class 1 if it is negative."""

    def __init__(self, channel: int, strength: float):
        super().__init__()
        self.channel = channel
        self.conv5 = nn.Conv2d(3, 2, 1, bias=False).requires_grad_(False)
        self.conv5.weight.zero_()
        self.conv5.weight[:, channel, 0, 0] = torch.tensor([strength, -strength])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv5(images).mean(dim=(2, 3))


def _suspects():
    """Four pairs of networks, both always right: one reads the objects' colour (0), one that of everything else (1).

    How sure they are and how much they lose has nothing to do with where they look.
    """
    orders, strengths = ((0, 1), (0, 1), (1, 0), (0, 1)), ((21, 9), (14, 60), (30, 8), (60, 8))
    return [_pair(30 + number, *pair) for number, pair in enumerate(zip(orders, strengths))]


def _pair(seed: int, order, strengths):
    generator, labels = torch.Generator().manual_seed(seed), torch.tensor([0, 1])
    masks, images = torch.zeros(2, 12, 12, dtype=torch.bool), torch.zeros(2, 3, 12, 12)
    for mask, (top, left) in zip(masks, torch.randint(0, 6, (2, 2), generator=generator).tolist()):
        mask[top : top + 6, left : left + 6] = True
    sign = torch.where(labels == 0, 1.0, -1.0)[:, None, None]
    light = 0.5 + 0.5 * torch.rand(2, 2, 12, 12, generator=generator)
    images[:, 0], images[:, 1] = sign * light[0] * masks * 0.5, sign * light[1] * ~masks * 0.25
    return case([_Reader(*each).eval() for each in zip(order, strengths)], images, labels, masks)


def _reads_the_rest(nets, images, labels, masks) -> torch.Tensor:
    """() the answer that `looks_elsewhere` has to find, known from how the networks were made."""
    return torch.tensor([net.channel for net in nets]).argmax()


def _confidence(net, images, labels) -> torch.Tensor:
    """() the labels' probabilities, the sum over the images."""
    return net(images).softmax(-1).gather(1, labels[:, None]).sum()


def _drop(net, images, labels) -> torch.Tensor:
    """() by how much the worst squares lower them."""
    left = [slide_over(net, image, 4, 2, label).min() for image, label in zip(images, labels)]
    return _confidence(net, images, labels) - torch.stack(left).sum()


def _largest(values) -> torch.Tensor:
    return torch.stack(list(values)).argmax()


def _draw_suspects(given, answer, target) -> np.ndarray:
    """The first image, and what squares take of its probability in either network; who is who, once there is a guess.

    Black: the object's outline.
    """
    (nets, images, labels, masks), _ = given
    axes = show.panels([np.full((4, 4, 3), 255, np.uint8)] * 3, size=3.2)[0]
    show.photo(images[0], axes[0], net=nets[0], title="an image and its object")
    for number, (net, ax) in enumerate(zip(nets, axes[1:])):
        pixels = localisation.study(net, images[:1], labels[:1].tolist(), size=4, stride=2, layer="conv5").pixels[0]
        localisation.outlined(images[0], pixels, masks[:1], ax, net=net).set_title(f"what network {number} loses")
    axes[0].contour(masks[0].float().numpy(), levels=[0.5], colors="black")
    pixels = show.axes_pixels(axes[0])
    if answer is None:
        return pixels
    return show.caption(pixels, f"yours: {float(torch.as_tensor(answer)):g}; target: {int(target)}", size=18)


cheater = Exercise(
    "cheater", _reads_the_rest, _suspects, source=looks_elsewhere,
    mistakes={
        "this is the network that looks at the objects; the other one's drop lies beside them":
            lambda *given: 1 - _reads_the_rest(*given),
        "this is the less sure of the two; how sure a network is says nothing about where it looks":
            lambda nets, images, labels, masks: _largest(-_confidence(net, images, labels) for net in nets),
        "this is the network that loses most; what matters is where it loses, so compare with the masks":
            lambda nets, images, labels, masks: _largest(_drop(net, images, labels) for net in nets),
        "always the same network is no evidence: the two come in another order every time":
            lambda nets, images, labels, masks: torch.tensor(1),
    },
    success="found in four pairs of networks that are all right about every image",
    draw=_draw_suspects,
)  # fmt: skip
