"""Embeddings once per text and machine; the numbers are the model's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from benchmark.similarity import Similarity
from pipeline import embeddings
from pipeline.errors import UsageError, UserError

MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class Counting:
    """In place of the model: unit vectors that tell the text, and a list of what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str], model: str = "") -> npt.NDArray[np.float32]:
        self.asked += texts
        angles = np.array([len(text) for text in texts], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(embeddings, "encode", counting)
    return counting


def test_each_text_is_embedded_once_and_never_again(counting: Counting, tmp_path: Path) -> None:
    first, second = ["a", "bb", "a", ""], ["bb", "bb", "", "a"]
    found = Similarity(folder=tmp_path).of_pairs(first, second)
    assert found == pytest.approx(np.cos([1, 0, 1, 1]), abs=1e-6)
    assert sorted(counting.asked) == ["", "a", "bb"]
    again = Similarity(folder=tmp_path).of_pairs([*first, "ccc"], [*second, "a"])
    assert (again[:4] == found).all()
    assert counting.asked[3:] == ["ccc"]
    assert len(Similarity(folder=tmp_path).of_pairs([], [])) == 0


def test_two_runs_at_once_may_embed_the_same(counting: Counting, tmp_path: Path) -> None:
    one, other = Similarity(folder=tmp_path / "1"), Similarity(folder=tmp_path / "2")
    found = one.of_pairs(["a", "bb"], ["ccc", "a"])
    other.of_pairs(["bb"], ["a"])
    for file in (tmp_path / "2").rglob("*.arrow"):
        shutil.copy(file, next((tmp_path / "1").iterdir()))
    assert (one.of_pairs(["a", "bb"], ["ccc", "a"]) == found).all()


def test_another_model_has_its_own_vectors(counting: Counting, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in (("modules.json", "[]"), ("model.safetensors", "weights"), ("config.json", "{}")):
        (folder / name).write_text(content)
    Similarity(str(folder), tmp_path / "kept").of_pairs(["a"], ["bb"])
    assert len(counting.asked) == 2
    Similarity(str(folder), tmp_path / "kept").of_pairs(["a"], ["bb"])
    assert len(counting.asked) == 2
    (folder / "config.json").write_text('{"pooling": "other"}')
    embeddings.model_files.cache_clear()
    Similarity(str(folder), tmp_path / "kept").of_pairs(["a"], ["bb"])
    assert len(counting.asked) == 4
    Similarity(folder=tmp_path / "kept").of_pairs(["a"], ["bb"])
    assert len(counting.asked) == 6


def test_a_damaged_file_is_named(counting: Counting, tmp_path: Path) -> None:
    Similarity(folder=tmp_path).of_pairs(["a"], ["bb"])
    file = next(tmp_path.rglob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{file.name}: damaged"):
        Similarity(folder=tmp_path).of_pairs(["a"], ["bb"])


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it needs modules\.json and model\.safetensors"):
        Similarity(str(tmp_path))


def test_where_nothing_can_be_kept_it_takes_longer_and_no_more(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rr7k").write_text("a file, where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for asked in (2, 4):
        assert embeddings.embed(["a", "bb", "a"])[:, 0] == pytest.approx(np.cos([1, 2, 1]))
        assert len(counting.asked) == asked


def test_where_vectors_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert embeddings.default_folder() == Path("/somewhere/rr7k/embeddings")


def test_the_built_in_model_is_the_one_that_scores_are_defined_by() -> None:
    assert embeddings.model_files().weights == MINILM


def test_many_at_once_are_as_each_alone(tmp_path: Path) -> None:
    texts = ["cat", "a much longer name of a thing in a picture", "", "Traffic Light", "traffic light"]
    alone = np.concatenate([embeddings.encode([text]) for text in texts])
    kept = embeddings.Vectors(folder=tmp_path)
    for _ in range(2):
        assert np.abs(kept.of(pa.array(texts, pa.large_string())) - alone).max() < 1e-6
    assert Similarity(folder=tmp_path).of_pairs(["", "Traffic Light"], ["cat", "traffic light"]) == pytest.approx(
        [0.3564, 1], abs=1e-4
    )


def test_the_scorer_loads_no_model() -> None:
    code = "import benchmark.score, benchmark.published, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "ray", "transformers", "sentence_transformers", "label_studio_sdk"}
