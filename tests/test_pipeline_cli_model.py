"""`rr7k model inspect`."""

from pathlib import Path

import pytest
from original_internvl_folders import write
from typer import Typer
from typer.testing import CliRunner
from wowseg_models import wowseg

from pipeline.cli_model import app
from pipeline.errors import UserError


def inspect(folder: Path) -> str:
    rr7k = Typer()
    rr7k.add_typer(app, name="model")
    return CliRunner().invoke(rr7k, ["model", "inspect", str(folder)], catch_exceptions=False).stdout


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
