"""What a deconvnet must give, by another road: torch's autograd with the ReLU's backward replaced."""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from zflib._arguments import layer_path
from zflib.models.response_norm import ResponseNorm
from zflib.record import record
from zflib.record.steps import POINT

RULES = ("deconvnet", "gradient", "guided")


class Rectify(torch.autograd.Function):
    """A ReLU whose backward pass follows a rule."""

    @staticmethod
    def forward(ctx, maps, rule):
        ctx.rule = rule
        ctx.save_for_backward(maps > 0)
        return maps.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        (mask,) = ctx.saved_tensors
        if ctx.rule != "gradient":
            signal = signal.clamp(min=0)
        return signal if ctx.rule == "deconvnet" else signal * mask, None


class Skip(torch.autograd.Function):
    """A module on the way up, nothing on the way down."""

    @staticmethod
    def forward(ctx, maps, forward):
        with torch.no_grad():
            return forward(maps)

    @staticmethod
    def backward(ctx, signal):
        return signal, None


class _Reached(BaseException):
    pass


class _Rule(TorchFunctionMode):
    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ not in ("relu", "relu_"):
            return func(*args, **kwargs)
        inplace = func.__name__ == "relu_" or kwargs.get("inplace") or (func is F.relu and True in args[1:])
        if inplace:
            return args[0].copy_(Rectify.apply(args[0].clone(), self.rule))
        return Rectify.apply(args[0], self.rule)


@contextlib.contextmanager
def _skipping_norms(net):
    norms = [m for m in net.modules() if isinstance(m, ResponseNorm | nn.LocalResponseNorm)]
    for module in norms:
        module.forward = lambda maps, forward=module.forward: Skip.apply(maps, forward)
    try:
        yield
    finally:
        for module in norms:
            del module.forward


def project(net, images, layer, channels, *, positions=None, rule="deconvnet"):
    """(N,C,H,W): as `Deconvnet.project`, with overlap "sum"."""
    modes, found = [(m, m.training) for m in net.modules()], []

    def keep(module, inputs, out):
        found.append(out.clone())
        raise _Reached

    hook = net.get_submodule(layer_path(net, layer)).register_forward_hook(keep)
    leaf = images.detach().clone().requires_grad_()
    try:
        net.eval()
        with contextlib.suppress(_Reached), _skipping_norms(net), _Rule(rule), torch.enable_grad():
            net(leaf * 1)
        return torch.autograd.grad(found[0], leaf, seed(found[0], channels, positions))[0]
    finally:
        hook.remove()
        for module, mode in modes:
            module.training = mode


def seed(maps, channels, positions=None):
    """The maps with all but one activation per image set to 0, by plain loops."""
    alone = torch.zeros_like(maps)
    for i, channel in enumerate(channels):
        if maps.dim() == 2:
            alone[i, channel] = maps[i, channel].detach()
            continue
        place = int(maps[i, channel].argmax())
        row, column = divmod(place, maps.shape[-1]) if positions is None else map(int, positions[i])
        alone[i, channel, row, column] = maps[i, channel, row, column].detach()
    return alone


def close(ours, theirs, tolerance=1e-5):
    """The largest difference, relative to the largest value, is below `tolerance`; both hold something."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    peak = float(theirs.abs().max())
    assert peak > 0, "nothing to compare"
    difference = float((ours - theirs).abs().max()) / peak
    assert difference < tolerance, f"relative difference {difference:.1e}"


def replay(net, images, layer, *, n=3):
    """One image's record, computed again for n other images, gives what the network gives; so do parts of the maps.

    Returns how many of its steps were computed in part.
    """
    tape, parts = record(net, images[:1], layer_path(net, layer), whole=True), 0
    values = {0: torch.randn(n, *images.shape[1:], dtype=images.dtype)}
    for place in tape.used(len(tape.steps) - 1)[1:]:
        step = tape.steps[place]
        taken = [values[earlier] for earlier in step.inputs]
        before = [value.clone() for value in taken]
        values[place] = step.again(*taken)
        assert values[place].shape == (n, *step.shape[1:]) and all(map(torch.equal, taken, before))
        if step.window == POINT and all(value.shape[-2:] == step.shape[-2:] for value in taken):
            some = (..., slice(0, 2), slice(1, 3))
            torch.testing.assert_close(step.again(*(value[some] for value in taken)), values[place][some])
            parts += 1
    torch.testing.assert_close(values[len(tape.steps) - 1], net(values[0].clone()))
    return parts
