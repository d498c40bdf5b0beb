"""How far a quadratic holds around the optimal images of zfnet56's units, and what is left along four directions.

python -m data.make.curvature --out data/zfnet56-curvature.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import zflib
from zflib import _files
from zflib.studies import curvature

LAYERS = ("conv2", "conv3", "conv4", "conv5", "fc8")


def rounded(value):
    """Plain numbers with four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/zfnet56-curvature.json"))
    parser.add_argument("--units", type=int, default=6, help="of each layer, drawn with seed 0")
    options = parser.parse_args()
    net = zflib.load("zfnet56").requires_grad_(False)
    found = {}
    for layer in LAYERS:
        count = zflib.Deconvnet(net).activations(torch.zeros(1, 3, 56, 56), layer).shape[1]
        channels = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: options.units].tolist()
        found[layer] = curvature.around_optima(net, layer, channels)
        print(layer, channels, flush=True)
        content = {"network": "zfnet56", "sha256": net.card["sha256"], "units": options.units, "layers": rounded(found)}
        _files.write_atomically(options.out, json.dumps(content).encode())


if __name__ == "__main__":
    main()
