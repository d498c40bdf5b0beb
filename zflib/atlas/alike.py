"""Which channels are alike: those that share most of their strongest photographs."""

from __future__ import annotations

import torch

from ..experiments.top_k import Peaks


def most_alike(peaks: Peaks, count: int = 6) -> list[list[tuple[int, int]]]:
    """For every channel of (C,k) peaks the `count` channels that share most of its k images: (channel, shared) each.

    Only images that excite a channel count (values above 0). Channels that share nothing are left out; of channels
    that share as many the lower one is first.
    """
    from scipy.sparse import csr_array  # slow to import

    rows, columns = (peaks.values > 0).nonzero(as_tuple=True)
    images = peaks.images[rows, columns].unique(return_inverse=True)[1]
    shape = (len(peaks.values), int(images.max()) + 1 if len(images) else 1)
    excited = csr_array((torch.ones(len(rows), dtype=torch.int32).numpy(), (rows.numpy(), images.numpy())), shape)
    shared = torch.from_numpy((excited @ excited.T).toarray()).fill_diagonal_(0)
    order = shared.argsort(dim=1, descending=True, stable=True)[:, :count]
    pairs = zip(order.tolist(), shared.gather(1, order).tolist())
    return [[(channel, number) for channel, number in zip(*pair) if number] for pair in pairs]
