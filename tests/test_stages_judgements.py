"""What people judged, read with clear errors, and joined with the scores of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sa1b_shards import commit
from verified_runs import TEXT, answer, pair, tail

from pipeline.errors import UsageError
from pipeline.run import Run
from stages.judgements import gather, read_judged


def written(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_judgements_are_read(tmp_path: Path) -> None:
    some = {"mask_id": [7, 3], "right": [True, False], "comment": ["x", "y"]}
    found = read_judged(written(tmp_path / "a.parquet", **some, inclusion_probability=[0.5, 1.0]))
    assert (found.mask_ids.tolist(), found.right.tolist()) == ([7, 3], [True, False])
    assert [str(a.dtype) for a in (found.mask_ids, found.right, found.probability)] == ["int64", "bool", "float64"]
    assert found.probability.tolist() == [0.5, 1]
    assert found.source.startswith(f"{tmp_path / 'a.parquet'} (")
    assert read_judged(written(tmp_path / "b.parquet", **some)).probability.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mask_id": [1]}, "column right is missing or there twice; found: mask_id, inclusion_prob"),
        ({"mask_id": ["1"], "right": [True]}, "column mask_id holds string, not int64"),
        ({"mask_id": [1], "right": [1]}, "column right holds int64, not bool"),
        ({"mask_id": [1], "right": [True], "inclusion_probability": [1]}, "inclusion_probability holds int64, not dou"),
        ({"mask_id": [1, None, None], "right": [True] * 3}, r"column mask_id, row 2: empty; .* \(1 more such rows\)"),
        ({"mask_id": [1, 2], "right": [True, None]}, "column right, row 2: empty; leave out masks"),
        ({"mask_id": [5, 6, 5], "right": [True] * 3}, "column mask_id, row 3: the mask is in an earlier row already"),
        ({"mask_id": [1, 2], "right": [True] * 2, "inclusion_probability": [0.5, 0.0]}, "row 2: not above 0 and at"),
        ({"mask_id": [1, 2], "right": [True] * 2, "inclusion_probability": [1.5, 0.5]}, "row 1: not above 0 and at"),
        ({"mask_id": [1], "right": [True], "inclusion_probability": [np.nan]}, "row 1: not above 0"),
        ({"mask_id": pa.array([2**63], pa.uint64()), "right": [True]}, "column mask_id does not fit int64"),
    ],
)
def test_a_bad_table_is_refused_with_column_and_row(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = written(tmp_path / "judged.parquet", **columns)
    with pytest.raises(UsageError, match=message) as refused:
        read_judged(path)
    assert str(refused.value).startswith(f"{path}: column ")


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "judged.csv").write_text("mask_id,right\n1,true\n")
    for path in (tmp_path / "judged.csv", tmp_path / "none.parquet", tmp_path):
        with pytest.raises(UsageError, match="not a Parquet table that can be read"):
            read_judged(path)


def test_judgements_meet_their_scores(run: Run, tmp_path: Path) -> None:
    commit(run, bands=[{"category": c, "pairs": n, "band": "head"} for c, n in (("dog", 150), ("cat", 2000))])
    asked = [
        pair(5, "dog", TEXT, "yes"),
        pair(3, "cat", answer(0.2, 0.6), "no"),
        pair(4, "dog", TEXT, "unclear"),
        pair(9, "dog", answer(0.5, 0.3), "yes"),
    ]
    commit(run, verdicts=[*(verdict for _, verdict in asked), {**tail(6, "dog"), "score": 0.3}])
    ids = [6, 5, 4, 3, 8]
    path = written(
        tmp_path / "j.parquet", mask_id=ids, right=[True, True, True, False, True], inclusion_probability=[0.2] * 5
    )
    found = gather(run, read_judged(path))
    assert found.score.tolist() == [0.25, 1]
    assert found.right.tolist() == [False, True]
    assert found.weight.tolist() == [5, 5]
    assert found.pairs.tolist() == [2000, 150]
    assert found.unscored == 3  # unclear, of the tail, not of the run
    alone = written(tmp_path / "k.parquet", mask_id=[8], right=[True])
    with pytest.raises(UsageError, match=r"none of its 1 masks has a score .* run rr7k stage-2"):
        gather(run, read_judged(alone))
