"""What training does to filters between its steps, how clean they are, and how batch normalisation goes into them."""

from __future__ import annotations

import torch
from torch import nn

from ..models import ZFNet


def renormalise(net: nn.Module, radius: float = 0.1) -> None:
    """Rescale, in place, every conv filter whose root mean square exceeds `radius` to `radius` (section 3)."""
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}; the paper uses 0.1")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                rms = module.weight.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
                module.weight.mul_((radius / rms.clamp(min=radius)).clamp(max=1.0))


def _outer_ring(side: int, device=None) -> torch.Tensor:
    """(k,k) which frequencies of a k x k FFT are the highest: the outer ring."""
    frequency = torch.fft.fftfreq(side, d=1 / side, device=device).abs().round()
    return torch.maximum(frequency[:, None], frequency[None, :]) == side // 2


def outer_ring_share(conv: nn.Conv2d) -> float:
    """Share of a layer's filter energy at the highest frequencies: the outer ring of the filters' FFT.

    0 for smooth filters, 24/49 = 0.49 for white noise in a 7x7 filter.
    """
    power = torch.fft.fft2(conv.weight.detach().float()).abs().square()
    return float(power[..., _outer_ring(power.shape[-1], power.device)].sum() / power.sum())


def limit_ring(conv: nn.Conv2d, share: float) -> None:
    """Scale down, in place, the highest frequencies of every filter that has more than `share` of its energy there.

    Every picture that a deconvnet draws is made of these filters; a few fine gratings, or noise that training never
    washed out, would cover it. Like the RMS renormalisation of section 3 it only touches filters beyond the limit.
    """
    with torch.no_grad():
        spectrum = torch.fft.fft2(conv.weight.float())
        ring, power = _outer_ring(spectrum.shape[-1], spectrum.device), spectrum.abs().square()
        outer = power[..., ring].sum(dim=(1, 2))
        inner = power.sum(dim=(1, 2, 3)) - outer
        gain = (share / (1 - share) * inner / outer.clamp(min=1e-20)).sqrt().clamp(max=1.0)
        conv.weight.copy_(torch.fft.ifft2(torch.where(ring, gain.view(-1, 1, 1, 1), 1.0) * spectrum).real)


def fold(net: ZFNet) -> ZFNet:
    """A copy of `net` in which every batch normalisation is folded into the convolution before it."""
    with torch.device("meta"):  # no weights to draw: a training run that looks at itself keeps its random numbers
        folded = ZFNet(net.num_classes, geometry=net.geometry)
    state = {k: v.clone() for k, v in net.state_dict().items() if not k.startswith("bn")}
    for i in range(1, len(net.geometry.convs) + 1):
        bn = getattr(net, f"bn{i}", None)
        if bn is None:
            continue
        gain = bn.weight / (bn.running_var + bn.eps).sqrt()
        state[f"conv{i}.weight"] = net.get_submodule(f"conv{i}").weight * gain.view(-1, 1, 1, 1)
        state[f"conv{i}.bias"] = bn.bias - gain * bn.running_mean
    folded.load_state_dict(state, assign=True)
    folded.classes, folded.wnids = net.classes, net.wnids
    return folded.eval()
