"""Exercises of notebook 02: rectification, and the rules that are mistaken for it."""

import torch

from .. import deconv
from .cases import case, seeded
from .verdict import Exercise


def let_through_positive_signals(signal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Deconvnet: the reconstruction must be positive, whatever the forward ReLU did."""
    return signal.clamp(min=0)


def let_through_open_places(signal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Gradient: what the forward ReLU let through, with either sign."""
    return signal * (before > 0)


def let_through_both(signal: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Guided backpropagation: positive signals at places that the forward ReLU let through."""
    return signal.clamp(min=0) * (before > 0)


@seeded(4)
def _signals(generator):
    yield case(torch.randn(1, 2, 6, 6, generator=generator), torch.randn(1, 2, 6, 6, generator=generator))


_THROUGH = {
    "everything passes: a ReLU is missing": lambda signal, before: signal,
    "you rectified the forward map; the rule changes the signal that comes down":
        lambda signal, before: before.clamp(min=0),
    "the absolute value makes negative signals positive; they should become 0": lambda signal, before: signal.abs(),
    "the signal was multiplied by the forward activation; only ask whether that was positive":
        lambda signal, before: signal * before.clamp(min=0),
}  # fmt: skip

rectify_deconvnet = Exercise(
    "rectify_deconvnet", let_through_positive_signals, _signals,
    mistakes={
        "this is the gradient's rule, it asks what the forward ReLU let through; ask for the sign of the signal":
            let_through_open_places,
        "this is guided backpropagation, it asks for the forward sign as well; the deconvnet does not look at it":
            let_through_both,
    } | _THROUGH,
)  # fmt: skip

rectify_gradient = Exercise(
    "rectify_gradient", let_through_open_places, _signals,
    mistakes={
        "this is the deconvnet's rule; the gradient asks what the forward ReLU let through, not for its sign":
            let_through_positive_signals,
        "this is guided backpropagation; the gradient keeps negative signals where the forward ReLU was open":
            let_through_both,
    } | _THROUGH,
)  # fmt: skip

rectify_guided = Exercise(
    "rectify_guided", let_through_both, _signals,
    mistakes={
        "this is the deconvnet's rule; guided backpropagation also shuts the places that the forward ReLU shut":
            let_through_positive_signals,
        "this is the gradient's rule; guided backpropagation also drops the negative signals": let_through_open_places,
    } | _THROUGH,
)  # fmt: skip


def rules_of_the_hooks() -> torch.Tensor:
    """grad_in has been through the forward mask, grad_out has not: guided clamps one, the deconvnet the other."""
    gradient, deconvnet, guided = 0, 1, 2
    return torch.tensor([guided, deconvnet, gradient])  # hook_a, hook_b, hook_c


which_rule = Exercise(
    "which_rule", rules_of_the_hooks, lambda: [case()],
    mistakes={
        "hook_a is not the deconvnet: grad_in has already been masked by the forward ReLU, so clamping it is guided":
            lambda: [1, 1, 0],
        "hook_a and hook_b are the other way round: grad_in is what torch's own backward pass made of grad_out":
            lambda: [1, 2, 0],
        "hook_b does not look at the forward pass: it replaces torch's mask by a clamp": lambda: [2, 2, 0],
        "hook_c returns grad_in as it is: what is left is torch's own rule": lambda: [2, 1, 1],
    },
    success="clamping grad_in is guided backpropagation, clamping grad_out is the deconvnet",
    guess="your three numbers",
)  # fmt: skip


def two_layers_down(top, second, first, hidden) -> torch.Tensor:
    """(N,P) pixels from (N,K) `top`: transpose `second` (K,M), rectify, transpose `first` (M,P); pixels stay signed."""
    return deconv.rectify(top @ second) @ first


@seeded(29)
def _two_layers(generator):
    shapes = ((2, 8), (6, 8), (4, 6))  # whole numbers from -1 to 1, so that the results can be read
    image, first, second = (torch.randint(-1, 2, shape, generator=generator).float() for shape in shapes)
    hidden = (image @ first.T).clamp(min=0)
    yield case((hidden @ second.T).clamp(min=0), second, first, hidden)


walk_down = Exercise(
    "walk_down", two_layers_down, _two_layers,
    mistakes={
        "a ReLU is missing: rectify the reconstruction of the hidden layer before you filter it":
            lambda top, second, first, hidden: top @ second @ first,
        "the pixels were rectified too; after the last filtering they may be negative":
            lambda *given: two_layers_down(*given).clamp(min=0),
        "only the pixels were rectified; the ReLU belongs to the hidden layer":
            lambda top, second, first, hidden: (top @ second @ first).clamp(min=0),
        "masked by the hidden activations: that is the gradient":
            lambda top, second, first, hidden: (top @ second * (hidden > 0)) @ first,
        "clamped and masked by the hidden activations: that is guided backpropagation":
            lambda top, second, first, hidden: ((top @ second).clamp(min=0) * (hidden > 0)) @ first,
    },
)  # fmt: skip
