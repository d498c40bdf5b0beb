"""What each kind of step does on the way down; the paper's three operations, and the little there is beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from .._arguments import check_choice
from ..record import Tape, Unsupported, steps
from ..record.recorder import ACTIVATIONS
from .operations import OVERLAPS, rectify, transposed_filter, unpool

RULES = ("deconvnet", "gradient", "guided")

#: Modules that no rule here is right for.
REFUSED = (*ACTIVATIONS, nn.GLU, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.RNNBase, nn.Bilinear)


@dataclass(frozen=True)
class Rules:
    """`rule` at a ReLU, `overlap` at a pool, and the caller's `own` for kinds of modules: see `Deconvnet`."""

    rule: str = "deconvnet"
    overlap: str = "sum"
    own: Mapping[type[nn.Module], Callable] = field(default_factory=dict)

    def __post_init__(self):
        check_choice("rule", self.rule, RULES)
        check_choice("overlap", self.overlap, OVERLAPS)
        for kind, function in self.own.items():
            if not (isinstance(kind, type) and issubclass(kind, nn.Module) and callable(function)):
                got = f"{{{kind!r}: {function!r}}}"
                raise TypeError(f"rules must be {{kind of module: function}}, got {got}; give {{nn.GELU: my_rule}}")

    def check_network(self, net: nn.Module) -> None:
        """Unsupported, with its path, at the first module that has no rule (GELU, attention, …)."""
        for path, module in self.refused(net):
            where, kind = f"net: module {path!r}" if path else "net", type(module).__name__
            raise Unsupported(
                f"{where} is a {kind}, for which a deconvnet has no rule; the way down is defined for "
                f"ReLU networks only, or give a rule of your own: Deconvnet(net, rules={{nn.{kind}: …}}), or "
                f"net.deconv_rules = {{nn.{kind}: …}} for all that looks at this network"
            )

    def refused(self, net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """(path, module) of those that have no rule, neither here, nor from the caller for them or what they are in."""
        own = tuple(self.own)
        ruled = [f"{path}." if path else "" for path, module in net.named_modules() if isinstance(module, own)]
        for path, module in net.named_modules():
            if isinstance(module, REFUSED) and not isinstance(module, own) and not path.startswith(tuple(ruled)):
                yield path, module

    def check_way(self, tape: Tape) -> None:
        """Unsupported, with its name, if an operation on the way from the images to the layer has no way down."""
        refused = [place for place in tape.used() if isinstance(tape.steps[place], steps.Refused)]
        if refused:
            first = tape.steps[refused[0]]  # the others only took what it gave
            where = f" in module {first.where}" if first.where else ""
            kind = first.where.rpartition("(")[2].rstrip(")")
            own = f"give a rule of your own: Deconvnet(net, rules={{{kind}: …}}), or net.deconv_rules = {{{kind}: …}}"
            raise Unsupported(
                f"net: it uses {first.name!r}{where}, for which a deconvnet has no rule; choose a layer before it, or "
                + (own if kind else "make it a module of its own, for which you can give a rule")
            )

    def down(self, step: steps.Step, signal: torch.Tensor, owners) -> list[torch.Tensor]:
        """One recorded step, backwards: what its output's `signal` (B,…) says about each of its inputs.

        owners[b] is the recorded image that signal b belongs to; slice(None) if it is image b.
        """
        match step:
            case steps.Filter():
                return [transposed_filter(signal, step, size=step.size)]
            case steps.Rectify():
                return [self._rectified(signal, step, owners)]
            case steps.Pool() | steps.AdaptivePool():
                return [unpool(signal, step.switches[owners], size=step.size, overlap=self.overlap)]
            case steps.FullyConnected():
                return [signal @ step.weight.T]
            case steps.Scale():  # batch normalisation, folded into its scale
                return [signal * step.gain]
            case steps.Pass():  # response normalisation: unchanged on the way down (section 2.1); copies and casts, too
                return [signal.to(step.dtype)]
            case steps.Reshape():
                return [signal.reshape(len(signal), *step.size[1:])]
            case steps.Add():
                return [signal * share if share != 1 else signal for share in step.shares]
            case steps.Cat():
                return list(signal.split(step.parts, dim=step.dim))
            case steps.OtherLinear():
                start = signal.new_zeros(len(signal), *step.size[1:])
                return list(torch.func.vjp(step.function, start)[1](signal))
            case steps.Ruled():
                return [self._own(step, signal, owners)]
        raise AssertionError(f"no way down for a step {type(step).__name__}, and check_way did not refuse it")

    def _rectified(self, signal: torch.Tensor, step: steps.Rectify, owners) -> torch.Tensor:
        if self.rule != "gradient":
            signal = rectify(signal)
        return signal if self.rule == "deconvnet" else signal * step.mask[owners]

    def _own(self, step: steps.Ruled, signal: torch.Tensor, owners) -> torch.Tensor:
        function = next(self.own[kind] for kind in self.own if isinstance(step.module, kind))
        with torch.enable_grad():  # a rule may ask autograd for a slope
            below = function(signal, step.before[owners], step.after[owners])
        expected = (len(signal), *step.before.shape[1:])
        if not isinstance(below, torch.Tensor) or below.shape != expected:
            got = tuple(below.shape) if isinstance(below, torch.Tensor) else type(below).__name__
            raise ValueError(f"rules: that for {type(step.module).__name__} must give {expected}, got {got}")
        return below.detach()


def own_rules(net: nn.Module, rules: Mapping | None) -> dict[type[nn.Module], Callable]:
    """The rules that were given, or those that the network carries as `deconv_rules`."""
    return dict(getattr(net, "deconv_rules", {}) if rules is None else rules)


def walk(tape: Tape, signal, below: Callable):
    """From the layer's `signal` down to the image's: through every branch, added up where branches meet.

    `below(step, signal)` gives a signal for each of the step's inputs.
    """
    signals = {tape.place: signal}
    for place in tape.used()[:0:-1]:
        step = tape.steps[place]
        for source, part in zip(step.inputs, below(step, signals.pop(place))):
            signals[source] = signals[source] + part if source in signals else part
    return signals[0]
