"""Several processes that share every batch: `torchrun --nproc-per-node=N -m zflib.train …`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed, nn


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """This process' number, 0 when it is alone."""
    return distributed.get_rank() if _joined() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _joined() else 1


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """The device of this process, inside the group that torchrun started; alone without torchrun."""
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
        wait()  # nobody closes a connection from which another still reads
    finally:
        distributed.destroy_process_group()


def share(batch: int) -> slice:
    """The rows of a batch that belong to this process."""
    if batch % world():
        raise ValueError(f"batch {batch} cannot be shared by {world()} processes; choose a number that divides it")
    part = batch // world()
    return slice(rank() * part, (rank() + 1) * part)


def total(*counts: float, device: torch.device) -> list[float]:
    """The sums of `counts` over all processes."""
    values = torch.tensor(counts, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    if world() > 1:
        distributed.all_reduce(values)
    return values.tolist()


def wait() -> None:
    """Until every process is here."""
    if world() > 1:
        distributed.barrier()


def shared(net: nn.Module) -> nn.Module:
    """`net` for training: itself if alone, else wrapped so that every process takes the mean of all gradients."""
    return net if world() == 1 else nn.parallel.DistributedDataParallel(net)


def agree(net: nn.Module) -> None:
    """The first process' buffers for all: each normalised its own part of the last batch."""
    for buffer in net.buffers() if world() > 1 else ():
        distributed.broadcast(buffer, 0)
