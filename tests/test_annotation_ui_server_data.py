"""The data folder of a local server: secrets that stay, copies that can be put back."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from annotation_ui import server_data
from annotation_ui.server_data import DATABASE, SECRETS
from pipeline.errors import BusyError, UsageError, UserError

POSTGRESQL = {
    "DJANGO_DB": "default",
    "POSTGRE_HOST": "127.0.0.1",
    "POSTGRE_PORT": "5432",
    "POSTGRE_USER": "rr7k",
    "POSTGRE_PASSWORD": "hush",
    "POSTGRE_NAME": "screening",
}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    server_data.keys(folder)
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute("CREATE TABLE task (id)")
        database.execute("INSERT INTO task VALUES (7)")
    return folder


def tasks(folder: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        return database.execute("SELECT id FROM task").fetchall()


def test_secrets_are_made_once_and_are_the_owners(tmp_path: Path) -> None:
    made = server_data.keys(tmp_path)
    assert server_data.keys(tmp_path) == made
    assert (tmp_path / SECRETS).stat().st_mode & 0o777 == 0o600
    assert len(made.token) == 40
    for secret in (made.password, made.token, made.key):
        assert secret not in repr(made)
        assert secret not in made.hidden(f"log: {secret}")


def test_secrets_that_others_can_read_are_refused(tmp_path: Path) -> None:
    server_data.keys(tmp_path)
    (tmp_path / SECRETS).chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        server_data.keys(tmp_path)


def test_secrets_that_are_none(tmp_path: Path) -> None:
    server_data.keys(tmp_path)
    (tmp_path / SECRETS).write_text('{"password": "hush"}')
    with pytest.raises(UsageError, match=r"damaged .*Restore a backup") as refused:
        server_data.keys(tmp_path)
    assert "hush" not in str(refused.value)


def test_a_database_without_its_secrets(data_dir: Path) -> None:
    (data_dir / SECRETS).unlink()
    with pytest.raises(UsageError, match="opens to no other"):
        server_data.keys(data_dir)
    assert not (data_dir / SECRETS).exists()


def test_one_at_a_time(tmp_path: Path) -> None:
    with server_data.alone(tmp_path / "data"), pytest.raises(BusyError), server_data.alone(tmp_path / "data"):
        pass
    with server_data.alone(tmp_path / "data"):
        pass


def test_a_backup_under_writing_holds_what_was_committed_and_can_be_put_back(data_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "backups" / "1"
    with closing(sqlite3.connect(data_dir / DATABASE)) as writer:
        writer.execute("INSERT INTO task VALUES (8)")  # not committed
        server_data.backup(data_dir, copy)
        writer.commit()
    assert tasks(data_dir) == [(7,), (8,)]
    assert tasks(copy) == [(7,)]
    assert sorted(path.name for path in copy.iterdir()) == [DATABASE, SECRETS]
    assert [path.stat().st_mode & 0o777 for path in (copy, copy / DATABASE, copy / SECRETS)] == [0o700, 0o600, 0o600]

    other = tmp_path / "other"
    server_data.restore(copy, other)
    assert tasks(other) == [(7,)]
    assert server_data.keys(other) == server_data.keys(data_dir)


def test_a_backup_replaces_nothing(data_dir: Path, tmp_path: Path) -> None:
    server_data.backup(data_dir, tmp_path / "copy")
    with pytest.raises(UsageError, match="exists already"):
        server_data.backup(data_dir, tmp_path / "copy")
    with pytest.raises(UsageError, match="Move it away first"):
        server_data.restore(tmp_path / "copy", data_dir)


def test_no_backup_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no database"):
        server_data.backup(tmp_path, tmp_path / "copy")
    with pytest.raises(UsageError, match="not a backup"):
        server_data.restore(tmp_path, tmp_path / "data")


def test_no_restore_under_a_running_server(data_dir: Path, tmp_path: Path) -> None:
    server_data.backup(data_dir, tmp_path / "copy")
    with server_data.alone(tmp_path / "other"), pytest.raises(BusyError):
        server_data.restore(tmp_path / "copy", tmp_path / "other")


def test_a_damaged_database_makes_no_backup(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / DATABASE).write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="cannot be copied"):
        server_data.backup(data_dir, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_back_to_a_backup_loses_nothing(data_dir: Path, tmp_path: Path) -> None:
    copy, first = tmp_path / "copy", server_data.keys(data_dir)
    server_data.backup(data_dir, copy)
    with closing(sqlite3.connect(data_dir / DATABASE)) as database:
        database.execute("INSERT INTO task VALUES (8)")
        database.commit()
    (data_dir / f"{DATABASE}-journal").write_bytes(b"of the replaced one")
    aside = server_data.go_back(copy, data_dir)
    assert aside is not None
    assert aside.parent == data_dir / "backups"
    assert sorted(path.name for path in aside.iterdir()) == [DATABASE, f"{DATABASE}-journal", SECRETS]
    assert tasks(data_dir) == tasks(copy) == [(7,)]
    assert server_data.keys(data_dir) == server_data.keys(aside) == first
    (aside / f"{DATABASE}-journal").unlink()
    assert tasks(aside) == [(7,), (8,)]
    assert sorted(path.name for path in data_dir.iterdir()) == sorted([DATABASE, SECRETS, "backups", "server.lock"])


def test_what_is_not_yet_checked_in_goes_back_as_well(data_dir: Path, tmp_path: Path) -> None:
    """A server that is killed leaves answers in the file beside its database."""
    server_data.backup(data_dir, tmp_path / "copy")
    with closing(sqlite3.connect(data_dir / DATABASE)) as writer:
        writer.execute("PRAGMA journal_mode=wal")
        writer.execute("INSERT INTO task VALUES (8)")
        writer.commit()
        (tmp_path / "killed").mkdir()
        for path in (DATABASE, f"{DATABASE}-wal", SECRETS):
            (tmp_path / "killed" / path).write_bytes((data_dir / path).read_bytes())
            (tmp_path / "killed" / path).chmod(0o600)
    aside = server_data.go_back(tmp_path / "copy", tmp_path / "killed")
    assert aside is not None
    assert tasks(tmp_path / "killed") == [(7,)]
    server_data.go_back(aside, tmp_path / "other")
    assert tasks(tmp_path / "other") == [(7,), (8,)]


def test_a_move_that_was_killed_is_gone_on_with(data_dir: Path, tmp_path: Path) -> None:
    server_data.backup(data_dir, tmp_path / "copy")
    (data_dir / "backups" / ".aside.part").mkdir(parents=True)
    (data_dir / DATABASE).rename(data_dir / "backups" / ".aside.part" / DATABASE)
    aside = server_data.go_back(tmp_path / "copy", data_dir)
    assert aside is not None
    assert tasks(aside) == tasks(data_dir) == [(7,)]
    assert server_data.keys(aside) == server_data.keys(data_dir)


def test_a_damaged_backup_replaces_nothing(data_dir: Path, tmp_path: Path) -> None:
    server_data.backup(data_dir, tmp_path / "copy")
    (tmp_path / "copy" / DATABASE).write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="cannot be copied"):
        server_data.go_back(tmp_path / "copy", data_dir)
    assert tasks(data_dir) == [(7,)]


def test_a_new_folder_has_nothing_to_move(data_dir: Path, tmp_path: Path) -> None:
    server_data.backup(data_dir, tmp_path / "copy")
    assert server_data.go_back(tmp_path / "copy", tmp_path / "new") is None
    assert tasks(tmp_path / "new") == [(7,)]


def test_a_file_of_another_database_is_in_the_way(data_dir: Path, tmp_path: Path) -> None:
    server_data.backup(data_dir, tmp_path / "copy")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / f"{DATABASE}-wal").touch()
    with pytest.raises(UsageError, match="-wal: is there already"):
        server_data.restore(tmp_path / "copy", tmp_path / "new")


def test_postgresql(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_data.backup(data_dir, tmp_path / "copy")
    assert server_data.postgresql() == {}
    for name, value in POSTGRESQL.items():
        monkeypatch.setenv(name, value)
    assert server_data.postgresql() == POSTGRESQL
    assert server_data.keys(data_dir).hidden("log: hush") == "log: …"
    for step in (server_data.backup, server_data.restore, server_data.go_back):
        with pytest.raises(UsageError, match=r"PostgreSQL's.* pg_dump .*-U rr7k.* pg_restore") as refused:
            step(tmp_path / "copy", tmp_path / "other")
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"POSTGRE_PASSWORD": "", "POSTGRE_PORT": ""}, "POSTGRE_PORT, POSTGRE_PASSWORD are not set"),
        ({"DJANGO_DB": "mysql"}, "DJANGO_DB is 'mysql': only default"),
    ],
)
def test_postgresql_by_halves(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], told: str) -> None:
    for name, value in (POSTGRESQL | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=told):
        server_data.postgresql()
