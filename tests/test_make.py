"""The commands that made what data/ ships end with one sentence when a name or a folder is wrong."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("command, arguments, message", [
    ("evolution", ["nothing"], "name 'nothing' has no snapshots here"),
    ("gallery", ["nothing"], "name 'nothing' is not a network"),
    ("gallery", ["zfnet56"], "there is no Tiny ImageNet in"),
    ("dogs", [], "there is no .*; give the folder that holds val/images"),
])  # fmt: skip
def test_a_command_ends_with_one_sentence(command, arguments, message, tmp_path):
    main = importlib.import_module(f"data.make.{command}").main
    with pytest.raises(SystemExit, match=rf"^data.make.{command}: .*{message}"):
        main([*arguments, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
