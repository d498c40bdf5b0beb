"""Several processes that compute what one would: `torchrun --nproc-per-node=N -m zflib.train …`."""

from __future__ import annotations

import os
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional as F


def rank() -> int:
    """This process' number, 0 when it is alone."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


@contextmanager
def joined(device: torch.device):
    """The device of this process, inside the group that torchrun started; alone without torchrun."""
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    store, number, count = next(rendezvous("env://"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        yield device
        _leave_together(store, number, count)
    finally:
        distributed.destroy_process_group()


def _leave_together(store: distributed.Store, number: int, count: int) -> None:
    """Nobody closes a connection from which another still reads; the first, who keeps the store, goes last."""
    if store.add("done", 1) == count:
        store.set("all done", "")
    store.wait(["all done"])
    if store.add("gone", 1) == count:
        store.set("all gone", "")
    if number == 0:
        store.wait(["all gone"])


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


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes; torch's own `SyncBatchNorm` needs a GPU."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(maps)
        count = maps.numel() / maps.shape[1] * world()
        mean = all_reduce(maps.sum((0, 2, 3))) / count
        centred = maps - mean.view(1, -1, 1, 1)
        var = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)  # the unbiased one, as torch keeps it
        gain = self.weight * (var + self.eps).rsqrt()
        return centred * gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class SharedDropout(nn.Dropout):
    """Every process draws the mask of the whole batch and uses its own rows, so the masks are those of one process."""

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return units
        rows = len(units)
        whole = F.dropout(units.new_ones(rows * world(), *units.shape[1:]), self.p)
        return units * whole[rank() * rows : (rank() + 1) * rows]


def shared(net: nn.Module) -> nn.Module:
    """`net` for training: itself if alone, else wrapped so that all processes take the step of the whole batch."""
    if world() == 1:
        return net
    for path, module in list(net.named_modules()):
        parent, _, name = path.rpartition(".")
        if isinstance(module, nn.BatchNorm2d):
            twin = SharedBatchNorm(module.num_features, module.eps, module.momentum).to(module.weight.device)
            twin.load_state_dict(module.state_dict())
            setattr(net.get_submodule(parent), name, twin)
        elif isinstance(module, nn.Dropout):
            setattr(net.get_submodule(parent), name, SharedDropout(module.p))
    return nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)
