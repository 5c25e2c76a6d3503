"""`rr7k model`: what it says of checkpoints, and what it writes."""

from pathlib import Path

import pytest
import torch
from original_internvl_folders import write
from safetensors.torch import load_file
from typer import Typer
from typer.testing import CliRunner
from wowseg_models import wowseg

from pipeline.cli_model import app
from pipeline.errors import UserError


def rr7k(*arguments: str | Path) -> str:
    program = Typer()
    program.add_typer(app, name="model")
    return CliRunner().invoke(program, ["model", *map(str, arguments)], catch_exceptions=False).stdout


def inspect(folder: Path) -> str:
    return rr7k("inspect", folder)


def test_inspect_says_what_a_checkpoint_is(tmp_path: Path) -> None:
    folder = write(wowseg(double=False), tmp_path / "it", "Hermes-2")
    told = inspect(folder)
    for line in ("InternVL's own (InternVLChatModel)", "65 in the files: none missing, none left over", "Hermes-2"):
        assert line in told


def test_inspect_says_what_is_wrong(tmp_path: Path) -> None:
    folder = write(wowseg(double=False), tmp_path / "it", "phi3-chat")
    with pytest.raises(UserError, match=r"no conversation template 'phi3-chat'\. Known: Hermes-2, internvl2_5"):
        inspect(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights there"):
        inspect(folder)


def test_a_debug_checkpoint_in_both_formats(tmp_path: Path) -> None:
    first, original, native = (tmp_path / name for name in ("first", "original", "native"))
    assert "random weights" in rr7k("debug", first)
    rr7k("convert", first, original, "--to", "original")
    rr7k("convert", original, native)
    assert "InternVL's own (InternVLChatModel)" in inspect(original)
    assert inspect(native).splitlines()[1:] == inspect(first).splitlines()[1:]
    tensors = [load_file(folder / "model.safetensors") for folder in (first, native)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    with pytest.raises(UserError, match="native exists: a checkpoint is written to a new folder"):
        rr7k("debug", native)
