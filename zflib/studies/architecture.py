"""What Figure 6 compares by eye, as numbers: dead channels, the frequencies of filters, and aliasing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ..deconv import Deconvnet
from ..models import ImageClassifier, ZFNet
from ..record.inputs import check_images

#: Between low, middle and high, in cycles per pixel: wavelengths of 8 and of 3 pixels; the finest grating has 2.
BANDS = (1 / 8, 1 / 3)
SIZE = 64  # pixels that filters are padded to, so that those of 7 and of 11 are judged on one scale


def dead_channels(net: nn.Module, images: torch.Tensor, layer: str, *, share: float = 0.01) -> torch.Tensor:
    """(C,) bool: channels whose strongest activation over (N,3,H,W) images is below `share` of the layer's strongest.

    The more images, the surer: a channel that is dead on a hundred may live on a thousand.
    """
    deconvnet, parts = Deconvnet(net), check_images(images).split(100)
    peaks = [deconvnet.activations(some, layer).transpose(0, 1).flatten(1).amax(dim=1) for some in parts]
    strongest = torch.stack(peaks).amax(dim=0)
    return strongest <= share * strongest.max()


def frequency_shares(conv: nn.Conv2d) -> torch.Tensor:
    """(C,3): the shares of each filter's energy at low, middle and high frequencies; every row sums to 1."""
    low, high = BANDS
    power = torch.fft.fft2(conv.weight.detach().float(), s=(SIZE, SIZE)).abs().square().sum(dim=1)  # (C,SIZE,SIZE)
    frequency = torch.fft.fftfreq(SIZE, device=power.device)
    radius = (frequency[:, None].square() + frequency[None, :].square()).sqrt()
    masks = torch.stack([radius < low, (radius >= low) & (radius < high), radius >= high]).to(power)
    shares = torch.einsum("chw,bhw->cb", power, masks)
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-20)


def phase_energies(
    net: ImageClassifier, pixels: torch.Tensor, layer: str, *, shifts: Sequence[int] = range(8)
) -> torch.Tensor:
    """(S,N,C): each map's sum of squares as the crop moves right over (N,3,R,R) uint8 pixels, shift by shift."""
    if not isinstance(net, ImageClassifier):
        raise TypeError(f"net must be a network of zflib, whose geometry says how it crops, got {type(net).__name__}")
    crop, deconvnet = net.geometry.crop, Deconvnet(net)
    images, top = net.normalise(pixels), (pixels.shape[-2] - crop) // 2
    energies = []
    for shift in shifts:
        moved = images[..., top : top + crop, shift : shift + crop]
        maps = torch.cat([deconvnet.activations(some, layer) for some in moved.split(100)])
        energies.append(maps.square().unflatten(1, (-1, 1)).flatten(2).sum(dim=2))  # a unit is a map of one number
    return torch.stack(energies)


def aliasing(
    net: ImageClassifier, pixels: torch.Tensor, layer: str, *, shifts: Sequence[int] = range(8)
) -> torch.Tensor:
    """(C,): how much each channel's energy depends on where the stride happens to sample; 0 = not at all.

    Shifting an image by a pixel moves a finely sampled map and leaves its sum of squares as it is, but for the border.
    Where the stride is too coarse for what the filter passes, the sum depends on the shift: its standard deviation over
    `shifts` (root mean square over images), over its mean. Channels that never fire count as 0. See Figure 6d.
    """
    energies = phase_energies(net, pixels, layer, shifts=shifts)
    spread = energies.var(dim=0, unbiased=False).mean(dim=0).sqrt()
    return spread / energies.mean(dim=(0, 1)).clamp(min=1e-12)


def dense(net: ZFNet) -> ZFNet:
    """The control: a copy of `net` that ends with its first layer, at stride 1: nothing is skipped, nothing aliases."""
    geometry = replace(net.geometry, convs=net.geometry.convs[:1], hidden=None)
    control = ZFNet(0, geometry=geometry, batch_norm=hasattr(net, "bn1"))
    control.load_state_dict({key: value for key, value in net.state_dict().items() if key in control.state_dict()})
    control.conv1.stride = (1, 1)
    return control.eval()
