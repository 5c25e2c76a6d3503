"""The page of what people decided: what stands where, and that what is private is not shown again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checking_server import write_pairs
from sa1b_shards import commit
from screened_runs import shown, vote
from test_pipeline_gallery import Reader
from verified_runs import masks

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import decisions, screening_gallery
from stages.decisions import ScreeningConfig

HOSTILE = "</bdi><script>alert(1)</script>"


def test_left_out_and_released_side_by_side(run: Run, tmp_path: Path) -> None:
    ids = masks(run, tmp_path, images=1, each=6)
    with pytest.raises(UsageError, match="people have decided nothing yet"):
        screening_gallery.write(run, 10, 0)
    names = {mask: HOSTILE if mask == ids[5] else "dog" for mask in ids}
    write_pairs(run, names)
    commit(run, queue=[shown(m, names[m], place=k) for k, m in enumerate(ids)])
    said = dict(zip(ids, ["keep", "delete", "private", "keep", "unsure", "delete"], strict=True))
    commit(run, screenings=[vote(m, "ann", verdict, category=names[m]) for m, verdict in said.items()])
    commit(run, screenings=[vote(ids[3], "simulated", "delete"), vote(ids[4], "simulated", "keep")])
    decisions.build(run, ScreeningConfig())
    assert screening_gallery.write(run, 500, 0) == (f"{run.folder.uri}/screenings.html", 5, 5)
    page = run.folder.read(screening_gallery.FILE).decode()
    dogs, _, rest = page.partition("<main>")[2].partition("</section>")
    columns = [re.findall(r"(\d+) of sa_\d+", column) for column in dogs.split('class="column"')[1:]]
    assert columns == [[str(ids[1]), str(ids[2])], [str(ids[0]), str(ids[3])]]
    assert str(ids[5]) in rest
    assert (dogs.count("not shown again"), dogs.count("data:image/jpeg")) == (1, 3)
    assert HOSTILE not in page
    assert Reader(page)
