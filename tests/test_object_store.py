"""Shards and run folder on an S3 server on loopback: no rename, no local file, the same result."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from sa1b_shards import build, rows, write_shard

from pipeline import files
from pipeline.errors import BusyError, UsageError
from pipeline.files import Folder
from pipeline.run import Run
from pipeline.shards import find_shards
from stages.funnel import levels


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
    import boto3

    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="rr7k-test")
    yield f"s3://rr7k-test/data?scheme=http&endpoint_override={host}%3A{port}&region=us-east-1"
    os.environ.clear()
    os.environ.update(before)
    server.stop()


def upload(bucket: str, path: Path) -> None:
    with Folder(files.join(bucket, "shards")).create(path.name) as sink:
        sink.write(path.read_bytes())


def test_a_run_on_an_object_store_equals_a_local_one(bucket: str, tmp_path: Path) -> None:
    for number in (1, 2):
        upload(bucket, write_shard(tmp_path, number, images=4))
    remote, local = Run(files.join(bucket, "run")), Run(str(tmp_path / "run"))
    shards = files.join(bucket, "shards")
    assert [s.name for s in find_shards([files.join(bucket, "shards", "sa_*.tar")])] == ["sa_000001", "sa_000002"]
    build(remote, shards, images=3)
    build(remote, images="all")
    build(local, tmp_path)
    assert rows(remote) == rows(local)
    assert [level.difference for level in levels(remote)] == [0, 0, 0]
    assert remote.folder.sub("locks").names() == []


def test_one_writer_on_an_object_store(bucket: str) -> None:
    run = Run(files.join(bucket, "locked"))
    with run.lock("s"), pytest.raises(BusyError, match=str(os.getpid())), run.lock("s"):
        pass


def test_addresses_that_cannot_be_opened() -> None:
    for address in ("ftp://host/x", "s3:/bucket"):
        with pytest.raises(UsageError):
            find_shards([address])


def test_parts_of_an_address() -> None:
    assert files.join("s3://b/p?x=1", "q", "r") == "s3://b/p/q/r?x=1"
    assert files.parent("s3://b/p/q?x=1") == "s3://b/p?x=1"
    assert files.base_name("s3://b/p/q/?x=1") == "q"
    assert (files.join("a?b", "c"), files.parent("a?b/c"), files.base_name("a?b/c")) == ("a?b/c", "a?b", "c")
    assert (files.parent("x"), files.parent("/x")) == (".", "/")
