"""What a user sees: help that teaches, one-line errors, exit codes."""

import json
import sys
from pathlib import Path

import pytest
from sa1b_shards import build, image_members, write_shard, write_tar

from pipeline import cli
from pipeline.run import Run


def rr7k(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    """Run the command line in this process; return its exit code and everything it printed, on one line."""
    monkeypatch.setattr(sys, "argv", ["rr7k", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), " ".join((printed.out + printed.err).split())


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    return lambda *arguments: rr7k(capsys, monkeypatch, *arguments)


def test_help_names_every_command_and_how_to_begin(call) -> None:  # type: ignore[no-untyped-def]
    code, text = call("--help")
    assert code == 0
    for word in ("sample-data", "fetch-shards", "stage-1", "status", "config", "Try it: rr7k sample-data"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["stage-1", "--run", "{tmp}/r", "--shards", "{tmp}/none"], 2, "none: no such file or folder"),
        (["stage-1", "--run", "{tmp}/r", "--shards", "{tmp}"], 2, "holds neither"),
        (["stage-1", "--run", "{tmp}/r"], 2, "name them with --shards"),
        (["stage-1", "ground", "--run", "{tmp}/r"], 2, "no second opinion can be had: the names are embedded"),
        (["stage-1", "ground", "--run", "{tmp}/r", "--limit", "3"], 2, "--limit: options of rr7k stage-1 names"),
        (["stage-1", "pairs", "--explain", "--run", "{tmp}/r"], 2, "no pairs yet"),
        (["show", "pairs", "--run", "{tmp}/r"], 2, "no pairs yet"),
        (["show", "verdicts", "--run", "{tmp}/r"], 2, "no verdicts yet"),
        (["stage-2", "--run", "{tmp}/r"], 2, "no pairs to check. Make them first: rr7k stage-1"),
        (["stage-2", "--run", "{tmp}/r", "--dry-run"], 2, "no pairs to check"),
        (["stage-3", "--run", "{tmp}/r"], 2, "rr7k stage-2"),
        (["stage-3", "import", "--run", "{tmp}/r"], 2, "Begin with: rr7k stage-3 export"),
        (["stage-3", "export", "--run", "{tmp}/r", "--watch"], 2, "options of rr7k stage-3 import"),
        (["stage-3", "--run", "s3://bucket/r"], 2, "s3://bucket/r"),
        (["stage-3", "--run", "{tmp}/r", "--set", "queue.tiles=25"], 2, "queue.tiles"),
        (["annotate", "--run", "{tmp}/r"], 2, "rr7k stage-2"),
        (["stage-2", "--run", "{tmp}/r", "--explain"], 2, "no pairs yet"),
        (["stage-2", "--run", "{tmp}/r", "--judged", "{tmp}/t"], 2, "--judged: an option of rr7k stage-2 calibrate"),
        (["stage-2", "calibrate", "--run", "{tmp}/r"], 2, "no negative control has an answer yet"),
        (["stage-2", "calibrate", "--run", "{tmp}/r", "--judged", "{tmp}/t"], 2, "t: not a Parquet table"),
        (["stage-2", "--run", "{tmp}/r", "--set", "verify.control_share=2"], 2, "verify.control_share"),
        (["stage-2", "--run", "{tmp}/r", "--set", "verifier.kind=vllm"], 2, "kind = vllm needs model"),
        (["stage-1", "pairs", "--run", "{tmp}/r"], 2, "no masks, so no names of any"),
        (["categories", "propose", "--run", "{tmp}/r"], 2, "no pairs yet"),
        (["categories", "apply", "--run", "{tmp}/r", "--table", "{tmp}/none.csv"], 2, "none.csv: cannot be read"),
        (
            ["stage-1", "--run", "{tmp}/r", "--set", "manifest.zeed=1"],
            2,
            "manifest.zeed: unknown key; did you mean seed?",
        ),
        (["stage-1", "--run", "{tmp}/r", "--images", "0"], 2, "manifest.images"),
        (["stage-1", "--run", "/proc/r", "--shards", "{tmp}"], 2, "cannot write there"),
        (["stage-1", "manifest", "--explain", "--run", "{tmp}/r"], 2, "no masks were read yet"),
        (["stage-1", "manifest", "--run", "{tmp}/r", "--limit", "5"], 2, "--limit: options of rr7k stage-1 names"),
        (["stage-1", "--run", "{tmp}/r", "--dry-run"], 2, "no masks to name"),
        (["stage-1", "names", "--run", "{tmp}/r", "--set", "namer.kind=openai"], 2, "kind = openai needs model"),
        (["show", "names", "--run", "{tmp}/r"], 2, "no names"),
        (["models", "fetch", "qwen", "--to", "{tmp}"], 2, "qwen"),
        (["stage-1", "pictures", "--run", "{tmp}/r"], 2, "pictures"),
        (["stage-1", "manifest", "a.tar", "--run", "{tmp}/r"], 2, "name shards with --shards"),
        (["status", "--run", "{tmp}/r"], 2, "no run there"),
        (["config", "show", "--config", "nowhere"], 2, "presets cluster, laptop"),
        (["fetch-shards", "{tmp}/links", "--out", "{tmp}"], 2, "cannot read it"),
        (["sample-data", "{tmp}/out", "--coco", "{tmp}/x.json", "{tmp}"], 2, "x.json: cannot read it"),
    ],
)
def test_mistakes_end_in_one_message(call, tmp_path: Path, arguments: list[str], code: int, says: str) -> None:  # type: ignore[no-untyped-def]
    got, text = call(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert says.replace(" ", "") in text.replace(" ", "")
    assert got == code
    assert "Traceback" not in text
    if arguments[0] != "stage-1" or "pairs" in arguments:
        assert not (tmp_path / "r").exists(), "a path that was mistyped is no new run"


def test_status_as_json_and_when_files_are_missing(call, run: Run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    build(run, write_tar(tmp_path / "a.tar", [*image_members(1), image_members(2)[0]]))
    code, text = call("status", "--run", run.folder.uri, "--json")
    levels = json.loads(text)["levels"]
    assert code == 0
    assert levels[1] == {
        "name": "images",
        "total": 2,
        "kept": 1,
        "dropped": {},
        "quarantined": {"without-partner": 1},
        "pending": 0,
        "difference": 0,
    }
    (part,) = Path(run.folder.path, "masks").iterdir()
    part.unlink()
    code, text = call("status", "--run", run.folder.uri)
    assert code == 1
    assert "No such file" in text


def test_a_shell_may_expand_the_glob(call, run: Run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    paths = [write_shard(tmp_path, number) for number in (1, 2, 3)]
    build(run, *paths)
    code, text = call("stage-1", "manifest", "--run", run.folder.uri, "--shards", *paths)
    assert (code, "shards 3 3" in text) == (0, True)


def test_config_show_explains_each_setting(call) -> None:  # type: ignore[no-untyped-def]
    code, text = call("config", "show", "--config", "cluster", "--set", "manifest.seed=3")
    assert code == 0
    assert 'address = "auto"' in text
    assert "seed = 3" in text
    assert "# Drop masks covering less than this share of the image." in text
