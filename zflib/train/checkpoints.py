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


def save(path: Path, parts: dict, recipe: Recipe, progress: Progress, *, data: dict) -> None:
    """The state of every part (network, optimiser, scaler), the random generators, and where the run stands.

    `data` tells of the training images, as `Images.about`.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"progress": asdict(progress), "recipe": _plain(recipe), "data": data, "rng": _generators(_device(parts))}
    save_atomically(state, path)


def read(path: Path, recipe: Recipe, net: nn.Module, *, data: dict) -> dict | None:
    """What `save` wrote, None if nothing is there. A damaged file, another recipe, network or data is a ValueError."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        changed = ", ".join(key for key, value in _plain(recipe).items() if state["recipe"].get(key) != value)
        fits = _shapes(state["net"]) == _shapes(net.state_dict())
        progress, _ = Progress(**state["progress"]), [state[key] for key in ("optimiser", "scaler", "rng", "data")]
    except Exception as error:  # damaged bytes raise half a dozen kinds of errors
        raise ValueError(f"out: {path} is damaged; remove it or choose a new folder") from error
    if changed:
        raise ValueError(f"out: {path} belongs to another recipe, it differs in {changed}; choose a new folder")
    if not fits:
        raise ValueError(f"out: {path} belongs to another network; choose a new folder")
    if state["data"] != data:
        raise ValueError(f"out: {path} belongs to other training images; choose a new folder")
    return state | {"progress": progress}


def resume(path: Path, parts: dict, recipe: Recipe, *, data: dict) -> Progress | None:
    """Restore what `save` wrote, as `read` checks it; None if nothing is there."""
    state = read(path, recipe, parts["net"], data=data)
    if state is None:
        return None
    for name, part in parts.items():
        part.load_state_dict(state[name])
    _set_generators(state["rng"], _device(parts))
    return state["progress"]


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in tensors.items() if key != "mean"}  # whose shape the recipe decides


def _plain(recipe: Recipe) -> dict:
    return json.loads(json.dumps(asdict(recipe)))  # lists for tuples, as a card has them


def _device(parts: dict) -> torch.device:
    return next(part for part in parts.values() if isinstance(part, nn.Module)).mean.device


def _generators(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type in ("cuda", "mps"):
        states[device.type] = torch.get_device_module(device.type).get_rng_state()
    return states


def _set_generators(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device.type).set_rng_state(states[device.type])
