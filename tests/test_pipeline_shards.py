"""Finding and indexing shards, whole and damaged: what is sound is used, what is not is named."""

import gzip
import io
import os
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sa1b_shards import HEIGHT, WIDTH, Members, image_members, jpeg, write_shard, write_tar

from pipeline.errors import UsageError, UserError
from pipeline.shards import MissingBytesError, ShardIndex, find_shards, index_shard, open_shard

MAX_PIXELS = 100_000_000


def index(path: Path) -> ShardIndex:
    (shard,) = find_shards([str(path)])
    return index_shard(shard, MAX_PIXELS)


def ids(found: ShardIndex) -> list[int]:
    return [image.image_id for image in found.images]


def reasons(found: ShardIndex) -> dict[str, str]:
    return {problem.input: problem.reason for problem in found.problems}


# --- finding ---


def test_a_tar_a_folder_of_tars_a_glob_and_an_unpacked_folder(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write_shard(tmp_path, number)
    assert [s.name for s in find_shards([str(tmp_path)])] == ["sa_000000", "sa_000001", "sa_000002"]
    assert [s.name for s in find_shards([str(tmp_path / "sa_00000[12].tar")])] == ["sa_000001", "sa_000002"]
    assert [s.name for s in find_shards([str(tmp_path / "sa_000000.tar")] * 2)] == ["sa_000000"]
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for name, data in image_members(5):
        (unpacked / name).write_bytes(data)
    (shard,) = find_shards([str(unpacked)])
    assert (shard.kind, shard.name) == ("folder", "unpacked")


def test_a_shard_is_known_by_a_path_that_holds_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path, 0)
    monkeypatch.chdir(tmp_path)
    for path in ("sa_000000.tar", ".", "sa_*.tar", "./sa_000000.tar"):
        (shard,) = find_shards([path])
        assert Path(shard.uri) == tmp_path / "sa_000000.tar"


@pytest.mark.parametrize("path", ["nothing", "nothing.tar", "*.tar", "."])
def test_paths_without_shards(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match=r"no such|no file matches|holds neither"):
        find_shards([str(tmp_path / path)])


def test_a_folder_with_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    write_shard(tmp_path, 1)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/notes\xff.txt")).touch()
    with pytest.raises(UserError, match="name is not UTF-8, 'notes\ufffd"):
        find_shards([str(tmp_path)])


def test_two_shards_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [str(write_shard(tmp_path / folder, 1)) for folder in "ab"]
    with pytest.raises(UsageError, match="two shards are called sa_000001"):
        find_shards(paths)


def test_identity_follows_the_content_not_the_place(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1)
    (before,) = find_shards([str(path)])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    path.rename(moved / path.name)
    (after,) = find_shards([str(moved)])
    assert before.identity == after.identity
    data = bytearray((moved / path.name).read_bytes())
    data[700] ^= 1
    (moved / path.name).write_bytes(data)
    assert find_shards([str(moved)])[0].identity != before.identity


# --- indexing ---


def test_byte_ranges_are_those_of_the_members(tmp_path: Path) -> None:
    members = [m for i in (1, 2) for m in image_members(i)]
    path = write_tar(tmp_path / "s.tar", members)
    found = index(path)
    content = path.read_bytes()
    by_name = {name.removeprefix("./"): data for name, data in members}
    for image in found.images:
        for where, suffix in ((image.jpg, "jpg"), (image.json, "json")):
            assert content[where.offset : where.offset + where.bytes] == by_name[f"sa_{image.image_id}.{suffix}"]
        assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert (ids(found), found.state, found.found) == ([1, 2], "whole", 2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    order=st.permutations(range(6)), prefixes=st.lists(st.sampled_from(["", "./", "deep/er/"]), min_size=6, max_size=6)
)
def test_members_in_any_order_and_place(tmp_path: Path, order: list[int], prefixes: list[str]) -> None:
    members = [m for i in (1, 2, 3) for m in image_members(i, prefix="")]
    path = write_tar(tmp_path / "s.tar", [(prefixes[k] + members[k][0], members[k][1]) for k in order])
    found = index(path)
    assert (ids(found), found.problems) == ([1, 2, 3], [])


def test_an_unpacked_folder_is_read_as_the_tar_is(tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, data in [*image_members(1), *image_members(2)]:
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("…")
    (shard,) = find_shards([str(folder)])
    found = index_shard(shard, MAX_PIXELS)
    assert (ids(found), found.other_members) == ([1, 2], 1)
    with open_shard(shard) as reader:
        assert reader.read("sa_1.json", found.images[0].json) == (folder / "sa_1.json").read_bytes()


def test_lone_files(tmp_path: Path) -> None:
    first, second = image_members(1), image_members(2)
    found = index(write_tar(tmp_path / "s.tar", [first[0], second[1], *image_members(3)]))
    assert ids(found) == [3]
    assert reasons(found) == {"image:1": "without-partner", "image:2": "without-partner"}
    assert found.problems[0].error == "the shard holds sa_1.jpg but not sa_1.json"
    assert found.found == 3


def test_empty_files_and_files_that_are_no_jpeg(tmp_path: Path) -> None:
    members: Members = [("sa_1.jpg", b""), image_members(1)[1], ("sa_2.jpg", b"GIF89a..."), image_members(2)[1]]
    found = index(write_tar(tmp_path / "s.tar", [*members, *image_members(3)]))
    assert ids(found) == [3]
    assert reasons(found) == {"image:1": "empty-file", "image:2": "not-a-jpeg"}


def with_declared_size(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size; its pixels are never decoded."""
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def test_an_image_of_300_megapixels_is_refused_by_its_header(tmp_path: Path) -> None:
    members = [("sa_1.jpg", with_declared_size(20_000, 15_000)), image_members(1)[1], *image_members(2)]
    found = index(write_tar(tmp_path / "s.tar", members))
    assert ids(found) == [2]
    assert "20000×15000" in found.problems[0].error
    assert "manifest.max_pixels" in found.problems[0].error


def test_a_frame_header_behind_a_long_profile_is_found(tmp_path: Path) -> None:
    data = jpeg()
    profile = b"\xff\xe2" + struct.pack(">H", 60_000) + bytes(59_998)
    members = [("sa_1.jpg", data[:2] + profile + data[2:]), image_members(1)[1]]
    assert ids(index(write_tar(tmp_path / "s.tar", members))) == [1]


def test_repeated_members(tmp_path: Path) -> None:
    found = index(write_tar(tmp_path / "s.tar", [*image_members(1), *image_members(1), *image_members(2)]))
    assert ids(found) == [2]
    assert reasons(found) == {"image:1": "repeated-member"}


@pytest.mark.parametrize("name", ["../sa_1.jpg", "/etc/sa_1.jpg", "a/../../sa_1.jpg"])
def test_names_that_lead_elsewhere_are_not_read(tmp_path: Path, name: str) -> None:
    members = [(name, jpeg()), image_members(1)[1], *image_members(2)]
    found = index(write_tar(tmp_path / "s.tar", members))
    assert ids(found) == [2]
    assert reasons(found) == {"image:1": "unsafe-name"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_read(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("sa_1.jpg")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
        for name, data in [image_members(1)[1], *image_members(2)]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    found = index(path)
    assert ids(found) == [2]
    assert reasons(found) == {"image:1": "not-a-file"}


# --- damaged shards ---


def test_gzip(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1)
    path.write_bytes(gzip.compress(path.read_bytes()))
    found = index(path)
    assert (found.state, ids(found)) == ("unreadable", [])
    assert "gunzip" in found.problems[0].error


@pytest.mark.parametrize("content", [b"", b"<html>expired</html>" * 100, bytes(range(256)) * 8])
def test_files_that_are_no_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(content)
    found = index(path)
    assert (found.state, found.problems[0].reason) == ("unreadable", "not-a-tar")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(share=st.floats(0.02, 0.98))
def test_a_tar_cut_anywhere_gives_the_images_before_the_cut(tmp_path: Path, share: float) -> None:
    whole = write_shard(tmp_path, 1, images=5)
    content, complete = whole.read_bytes(), index(whole)
    cut = int(share * max(image.json.offset + image.json.bytes for image in complete.images))
    path = tmp_path / "cut" / "sa_000001.tar"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content[:cut])
    found = index(path)
    before = [image for image in complete.images if image.json.offset + image.json.bytes <= cut]
    if cut < 512:
        assert found.state == "unreadable"
    else:
        assert found.images == before
        assert found.state == "truncated"
        assert found.found == len(before) + sum(p.input.startswith("image:") for p in found.problems)
        assert any("Fetch it again" in p.error for p in found.problems)


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1, images=3)
    complete = index(path)
    content = bytearray(path.read_bytes())
    header = complete.images[1].json.offset - 512
    content[header : header + 100] = b"\xa5" * 100
    path.write_bytes(content)
    found = index(path)
    assert ids(found) == [1001]
    assert found.state == "truncated"
    assert str(header) in found.problems[0].error


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The 512 bytes before a member, as GNU tar writes them."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def with_checksum(block: bytes) -> bytes:
    """A header whose checksum is right again."""
    return block[:148] + b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:])) + block[156:]


def pax(records: bytes, size: int | None = None) -> bytes:
    """A header of the next member's, POSIX.1-2001; `size` where it says another than its own."""
    return header("x", len(records) if size is None else size, tarfile.XHDTYPE) + records + bytes(-len(records) % 512)


LONGER = "headers of more than 16384 bytes"
DAMAGED_HEADERS = [
    (
        with_checksum(header("a", 0).replace(b"00000000000", b"99999999999", 1)),
        "invalid",
        "damaged header at byte 3072",
    ),
    (header("a", -512), "", "'a' has a negative size"),
    (header("a", -1024, tarfile.GNUTYPE_SPARSE), "", "'a' has a negative size"),  # read again and again
    (header("a", 1 << 62, b"Z"), "", "ends inside a"),
    (pax(b"", 1 << 40), LONGER, LONGER),
    (pax(b"", -512), LONGER, LONGER),
    (header("a", 1 << 70, tarfile.GNUTYPE_LONGNAME), LONGER, LONGER),
    (pax(b"2 " * 100_000 + b"="), LONGER, LONGER),  # a hundred thousand records of a hundred kilobytes
    (header("a", 0, tarfile.GNUTYPE_LONGNAME) * 1000, LONGER, LONGER),
    (pax(b"21 GNU.sparse.size=x\n") + header("a", 0), "invalid literal", "invalid literal"),
    (pax(b"18 hdrcharset=\xff\n") + header("a", 0), "can't decode", "can't decode"),
    (pax(b"%d path=x\n" % 10**30) + header("a", 0), "too large", "too large"),
]


@pytest.mark.parametrize(("block", "first", "later"), DAMAGED_HEADERS)
def test_a_damaged_header_costs_what_follows_it(tmp_path: Path, block: bytes, first: str, later: str) -> None:
    path = tmp_path / "s.tar"
    sound, more = (b"".join(header(n, len(d)) + d + bytes(-len(d) % 512) for n, d in image_members(i)) for i in (1, 2))
    path.write_bytes(sound + block + more + bytes(1024))
    found = index(path)
    assert (ids(found), found.state) == ([1], "truncated")
    assert later in found.problems[-1].error
    path.write_bytes(block + more + bytes(1024))
    found = index(path)
    assert (ids(found), found.state) == ([], "unreadable" if first else "truncated")
    assert first in found.problems[-1].error


def test_a_shard_that_ends_in_the_map_of_a_sparse_file(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1, images=1)
    more_follows = header("a", 0, tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + bytes(29)
    last = index(path).images[0].json
    end = last.offset + last.bytes + -last.bytes % 512
    path.write_bytes(path.read_bytes()[:end] + with_checksum(more_follows))
    found = index(path)
    assert (ids(found), found.state) == ([1001], "truncated")
    assert "index out of range" in found.problems[-1].error


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", image_members(1, prefix="\udcff/") + image_members(2, prefix="\udcff/../"))
    found = index(path)
    assert [image.file_name for image in found.images] == ["\ufffd/sa_1.jpg"]
    assert found.problems[0].place == "\ufffd/../sa_2.jpg"


def test_what_is_said_of_all_members_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", pax_headers={"comment": "made by hand"}) as archive:
        for name, data in image_members(1):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert ids(index(path)) == [1]


def test_numbers_are_written_in_ascii_and_in_a_folder_without_leading_zeros(tmp_path: Path) -> None:
    odd = [(name.replace("sa_1", "sa_٣"), data) for name, data in image_members(1)]
    padded = [(name.replace("sa_2", "sa_002"), data) for name, data in image_members(2)]
    found = index(write_tar(tmp_path / "s.tar", [*odd, *padded]))
    assert (ids(found), found.other_members) == ([2], 2)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, data in [*padded, *image_members(3)]:
        (folder / name).write_bytes(data)
    found = index(folder)
    assert (ids(found), reasons(found)) == ([3], {"image:2": "wrong-name"})
    assert found.problems[0].error == "rename it to sa_2.jpg"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_headers_say_every_image_is_used_or_named(tmp_path: Path, data: st.DataObject) -> None:
    content = write_shard(tmp_path, 1, images=2).read_bytes()
    starts = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    for at in data.draw(st.lists(st.sampled_from(starts), min_size=1, max_size=3)):
        place = at + data.draw(st.integers(0, 511) | st.integers(124, 135) | st.just(156))
        value = data.draw(st.sampled_from(b"0123456789LKSgx-\x80\xff") | st.integers(0, 255))
        content = content[:place] + bytes([value]) + content[place + 1 :]
        content = content[:at] + with_checksum(content[at : at + 512]) + content[at + 512 :]
    path = tmp_path / "damaged" / "sa_000001.tar"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    found = index(path)
    named = {problem.image_id for problem in found.problems} - {None}
    assert found.found == len(found.images) + len(named)
    assert found.state == "whole" or found.problems
    str([*found.images, *found.problems]).encode()


def test_a_range_that_is_gone_is_an_error(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1)
    (shard,) = find_shards([str(path)])
    image = index_shard(shard, MAX_PIXELS).images[-1]
    path.write_bytes(path.read_bytes()[:1000])
    with open_shard(shard) as reader, pytest.raises(MissingBytesError, match="bytes expected"):
        reader.read("sa_1003.json", image.json)
