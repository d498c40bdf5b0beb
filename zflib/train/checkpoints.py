"""What a killed training run continues from: everything that the next step depends on, whole or not at all."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from .. import _files
from .recipes import Progress, Recipe


def save_atomically(value, path: Path) -> None:
    """torch.save, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    _files.write_atomically(path, buffer.getvalue())


def save(out: Path, parts: dict, recipe: Recipe, progress: Progress) -> None:
    """The state of every part (network, optimiser, scaler), the random generators, and where the run stands."""
    state = {name: part.state_dict() for name, part in parts.items()}
    rng = {kind: generator.get_rng_state() for kind, generator in _generators(parts["net"]).items()}
    state |= {"progress": asdict(progress), "recipe": _plain(recipe), "rng": rng}
    save_atomically(state, out / "checkpoint.pt")


def read(out: Path, recipe: Recipe, net: nn.Module) -> dict | None:
    """What `save` wrote, None if nothing is there; ValueError if it is damaged or of another recipe or network."""
    path = out / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        changed = ", ".join(key for key, value in _plain(recipe).items() if state["recipe"].get(key) != value)
        fits = _shapes(state["net"]) == _shapes(net.state_dict())
    except Exception as error:  # damaged bytes raise half a dozen kinds of errors
        raise ValueError(f"out: {path} is damaged; remove it or choose a new folder") from error
    if changed:
        raise ValueError(f"out: {path} belongs to another recipe, it differs in {changed}; choose a new folder")
    if not fits:
        raise ValueError(f"out: {path} belongs to another network; choose a new folder")
    return state


def restore(state: dict, parts: dict) -> Progress:
    """Put back what `read` gave; where the run stands."""
    for name, part in parts.items():
        part.load_state_dict(state[name])
    for kind, generator in _generators(parts["net"]).items():
        if kind in state["rng"]:  # not if it began on another kind of device
            generator.set_rng_state(state["rng"][kind])
    return Progress(**state["progress"])


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in tensors.items() if key != "mean"}  # whose shape the recipe decides


def _plain(recipe: Recipe) -> dict:
    return json.loads(json.dumps(asdict(recipe)))  # lists for tuples, as a card has them


def _generators(net: nn.Module) -> dict:
    """The modules that draw random numbers for `net`: "cpu", and that of its device."""
    kind = net.mean.device.type
    return {"cpu": torch} | ({} if kind == "cpu" else {kind: torch.get_device_module(kind)})
