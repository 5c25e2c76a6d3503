"""`rr7k annotate` as a user runs it: a server of its own, pages on it, verdicts fetched, gone after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from checking_server import write_pairs
from label_studio_site import Site
from sa1b_shards import rows
from test_end_to_end import start, wait_for_rows
from verified_runs import masks

from annotation_ui import server_data
from annotation_ui.client import Client
from annotation_ui.projects import batches
from pipeline.run import Run
from stages import head_tail, verdicts
from stages.head_tail import HeadTailConfig


@pytest.mark.timeout(900)  # an environment to install, and a first start, may come first
def test_pages_go_out_verdicts_come_in_and_nothing_is_left_running(run: Run, tmp_path: Path) -> None:
    ids = masks(run, tmp_path, images=2, each=10)
    write_pairs(run, dict.fromkeys(ids, "dog"))
    head_tail.build(run, HeadTailConfig())
    verdicts.build(run)
    data = Path(run.folder.path, "label-studio")
    Site.prepare(data)
    process = start("annotate", "--run", run.folder.path, "--port", 0)
    assert process.stdout is not None
    opened = next(found for line in process.stdout if (found := re.search(r"open (http://127\.0\.0\.1:\d+)", line)))
    url, secrets = opened[1], server_data.keys(data)
    with Client(url, secrets.token) as there:
        (batch,) = batches(run)
        ((task,),) = there.pages(there.find(batch.title)).values()
    shown = rows(run, "queue")
    headers = {"Authorization": f"Token {secrets.token}"}
    wrong = {"choices": [f"{shown[0]['mask_id']}.{shown[0]['place']}"]}
    result = [{"from_name": "wrong", "to_name": "page", "type": "choices", "value": wrong}]
    answer = {"result": result, "lead_time": 20.0}
    httpx.post(f"{url}/api/tasks/{task}/annotations/", headers=headers, json=answer, trust_env=False).raise_for_status()
    wait_for_rows(run, "decisions", process, more_than=0)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (130, False), err
    assert secrets.password not in err
    decided = {row["mask_id"]: row["decision"] for row in rows(run, "decisions")}
    assert decided == {mask: "delete" if mask == shown[0]["mask_id"] else "release" for mask in ids}
    time.sleep(0.5)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health", trust_env=False)
