"""From a finished training run to the files that zflib ships: the network, and the conv part of its snapshots.

python -m data.make.ship runs/zfnet56 zfnet56
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from zflib import _files, models

EPOCHS = (1, 2, 5, 10)  # Figure 4's first four; the last epoch is the network itself


def ship(run: str | Path, name: str, *, folder: str | Path = _files.SHIPPED, snapshots: bool = True) -> list[Path]:
    """Write `name`.pt and .json, and `name`-epochNNN for the snapshots that `run` kept, to `folder`; their paths."""
    run, folder = Path(run), Path(folder)
    net = models.load_file(run / "final.pt")
    models.save(net, folder / name, net.card)
    written = [folder / f"{name}.pt"]
    for epoch in EPOCHS if snapshots else ():
        source = run / f"epoch{epoch:03d}.pt"
        if source.is_file() and epoch < net.card["epochs"]:
            written.append(_ship_snapshot(net, source, folder / f"{name}-epoch{epoch:03d}", epoch))
    return written


def _ship_snapshot(net: models.ZFNet, source: Path, target: Path, epoch: int) -> Path:
    state = torch.load(source, weights_only=True, map_location="cpu")
    net.load_state_dict({key: value.float() for key, value in state.items()})
    row = next(row for row in net.card["curve"] if row["epoch"] == epoch)
    kept = {key: net.card[key] for key in ("data", "command", "seed")}
    card = kept | {"name": target.name, "epoch": epoch, "of": net.card["name"], "curve": [row]}
    part = models.conv_part(net)
    models.save(part, target, card)
    return target.with_name(f"{target.name}.pt")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.ship", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="the --out of python -m zflib.train")
    parser.add_argument("name", help="what zflib.load shall call it")
    parser.add_argument("--folder", type=Path, default=_files.SHIPPED, help="where to (the package's data)")
    parser.add_argument("--no-snapshots", action="store_true", help="the network alone")
    options = parser.parse_args(arguments)
    written = ship(options.run, options.name, folder=options.folder, snapshots=not options.no_snapshots)
    print(json.dumps({path.name: path.stat().st_size for path in written}))


if __name__ == "__main__":
    main()
