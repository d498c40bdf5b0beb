"""Table 3 at our scale: the same budget for every variant of the network, errors on Tiny ImageNet-200.

python -m data.make.ablation --data tiny-imagenet-200 --work runs/ablation --out data/ablation.json
python -m data.make.ablation --data tiny-imagenet-200 --work runs/ablation --variants "without fc7" --seeds 1
python -m data.make.ablation --data tiny-imagenet-200 --work runs/ablation --budget long --variants full --seeds 1

Stopped and called again, it goes on where it stopped. What is done already is written after every run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from zflib import _files, data, models
from zflib._arguments import one_sentence
from zflib.studies import ablation
from zflib.train.scoring import Images

COMMAND = __doc__.split("\n")[2]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data.make.ablation", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="the folder of Tiny ImageNet-200")
    parser.add_argument("--work", type=Path, required=True, help="a folder for checkpoints, weights and votes")
    parser.add_argument("--out", type=Path, help="the .json to write, of all runs that are done")
    parser.add_argument("--variants", nargs="+", choices=list(ablation.VARIANTS), default=list(ablation.VARIANTS))
    parser.add_argument("--seeds", type=int, help="at most so many of each variant")
    parser.add_argument("--budget", choices=list(ablation.BUDGETS), default="short")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with one_sentence("data.make.ablation"):
        _make(options)


def _make(options: argparse.Namespace) -> None:
    """What the command does."""
    crop = models.ZFNET56.crop
    training, validation = (Images(*data.tiny_imagenet(options.data, split)[:2], crop) for split in ("train", "val"))
    for variant, seed in ablation.runs(options.variants):
        if options.seeds is None or seed < options.seeds:
            place = ablation.folder(options.work, variant, seed, options.budget)
            row = ablation.run(variant, seed, training, validation, place, recipe=ablation.BUDGETS[options.budget])
            print(json.dumps({key: value for key, value in row.items() if key != "curve"}), flush=True)
            if options.out:
                _write(options, validation)


def _write(options: argparse.Namespace, validation: Images) -> None:
    """The table of everything that is done by now, and what the seeds of a variant add when they vote together."""
    rows, votes = [], {}
    for budget in ablation.BUDGETS:
        for name, variant in ablation.VARIANTS.items():
            done = [ablation.folder(options.work, variant, seed, budget) for seed in range(variant.seeds)]
            done = [folder for folder in done if (folder / "row.json").exists()]
            rows += [{"budget": budget} | json.loads((folder / "row.json").read_text()) for folder in done]
            if len(done) > 1 and budget == "short":
                votes[name] = {"networks": len(done)} | ablation.together(done, validation.labels)
    card = {
        "data": "Tiny ImageNet-200: 100,000 training images; validation error on its 10,000 validation images, "
                "training error on every tenth training image; centre crop unless it says ten-crop; per cent",
        "network": "zfnet56 with a quarter of its channels and fully connected units: 16-48-64-64-48, fc 256",
        "command": COMMAND, "torch": torch.__version__, "threads": options.threads,
        "budgets": {name: asdict(recipe) for name, recipe in ablation.BUDGETS.items()},
    }  # fmt: skip
    _files.write_atomically(options.out, (json.dumps(card | {"rows": rows, "votes": votes}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
