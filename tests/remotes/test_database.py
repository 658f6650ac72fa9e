"""Files in the database: the round trip on the database that the suite runs on, and what only a database does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DataError, OperationalError, ProgrammingError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext, modify_settings
from django.utils.connection import ConnectionDoesNotExist

from queued_storage.exceptions import ErrorKind, MismatchError, StorageConfigurationError
from queued_storage.remotes.base import Stat
from tests.remotes.material import Upload, digests_of, error_of, text, upload
from tests.remotes.roundtrip import RoundTrip
from tests.remotes.stalled import stalled_save
from tests.servers.databases import url_of

APP = "queued_storage.remotes.database"
BACKEND = "queued_storage.remotes.database.storage.DatabaseStorage"
MB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def app(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Install the optional app, here and in the processes that tests start, and make its tables."""
    with django_db_blocker.unblock(), modify_settings(INSTALLED_APPS={"append": APP}):
        call_command("migrate", "queued_storage_database", verbosity=0)
        from django.conf import settings

        environment = {
            "TEST_DATABASE": url_of(connection.settings_dict),
            "TEST_SETTINGS": json.dumps({"INSTALLED_APPS": list(settings.INSTALLED_APPS)}),
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            yield
        call_command("migrate", "queued_storage_database", "zero", verbosity=0)
        connection.close()


@pytest.fixture
def storage(app: None) -> Any:
    """A storage in the tables of the default database."""
    from queued_storage.remotes.database.storage import DatabaseStorage

    return DatabaseStorage()


@pytest.fixture
def chunks(app: None) -> Any:
    """All chunks."""
    from queued_storage.remotes.database.models import StoredChunk

    return StoredChunk.objects.all()


def closing(storage: Any) -> Any:
    """Make ``storage`` close the connections of threads that end after one call."""
    save, opened = storage._save, storage.open

    def in_thread(call: Any) -> Any:
        def closes(*args: Any) -> Any:
            try:
                return call(*args)
            finally:
                if threading.current_thread() is not threading.main_thread():
                    connections.close_all()

        return closes

    storage._save, storage.open = in_thread(save), in_thread(opened)
    return storage


@pytest.mark.django_db(transaction=True)
class TestDatabase(RoundTrip):
    """Every promise of the round trip that does not need a network of its own."""

    backend = BACKEND
    digest_algorithms = frozenset({"sha256"})
    checks_known_digests = frozenset({"crc32", "md5", "sha256"})
    has_times = True
    # The connection and its password are Django's.
    has_network = False
    has_credentials = False

    @pytest.fixture
    def options(self, app: None) -> dict[str, Any]:
        return {"base_url": "https://files.example/database"}

    def content_type(self, storage: Any, name: str) -> str:
        return str(storage._find(name).content_type)

    def test_one_storage_serves_many_threads(self, storage: Any, folder: str) -> None:
        """A worker's threads share the storage object; each has a connection of its own."""
        from queued_storage.remotes.database.storage import _Body

        class Closing(_Body):
            def close(self) -> None:
                super().close()
                connections.close_all()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("queued_storage.remotes.database.storage._Body", Closing)
            super().test_one_storage_serves_many_threads(closing(storage), folder)

    def test_of_two_writers_at_once_one_wins(self, storage: Any, folder: str) -> None:
        """Writers that start together never mix; each has a connection of its own."""
        super().test_of_two_writers_at_once_one_wins(closing(storage), folder)


@pytest.mark.django_db(transaction=True)
def test_only_the_last_statement_is_in_a_transaction(storage: Any) -> None:
    """No transaction is open while bytes move, and the one that publishes the file is three statements long."""
    states = []

    class Watching(Upload):
        def read(self, size: int = -1) -> Any:
            states.append(connection.in_atomic_block)
            return super().read(size)

    source = upload(3 * MB)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        storage._save("a.bin", Watching(source.file, 3 * MB))
    assert states == [False] * len(states)
    assert len(states) > 11
    statements = [query["sql"].split()[0].upper() for query in queries]
    assert statements[0] == "SELECT"
    assert statements[-4:-1] == ["BEGIN", "SELECT", "INSERT"] or statements[-2:] == ["SELECT", "INSERT"]


@pytest.mark.django_db(transaction=True)
def test_the_loser_of_a_race_takes_nothing_with_it(storage: Any, chunks: Any) -> None:
    """A writer that finds the name taken at the very end removes its own chunks and no others."""

    class Overtaken(Upload):
        overtaken = False

        def read(self, size: int = -1) -> Any:
            if not self.overtaken:
                self.overtaken = True
                storage._save("a.bin", text(b"first"))
            return super().read(size)

    with pytest.raises(FileExistsError):
        storage._save("a.bin", Overtaken(upload(3 * MB).file, 3 * MB))
    with storage.open("a.bin") as file:
        assert file.read() == b"first"
    assert chunks.count() == 1


@pytest.mark.django_db
def test_the_transaction_of_the_caller_survives(storage: Any) -> None:
    """A name that is taken spoils no transaction that the caller is in."""

    class Late(Upload):
        def read(self, size: int = -1) -> Any:
            block = super().read(size)
            if not block and not storage.exists("a.bin"):
                storage._save("a.bin", text(b"first"))
            return block

    with transaction.atomic():
        with pytest.raises(FileExistsError):
            storage._save("a.bin", Late(upload(10).file, 10))
        assert storage.size("a.bin") == 5


@pytest.mark.django_db(transaction=True)
def test_broken_uploads_leave_no_chunks(storage: Any, chunks: Any) -> None:
    """Chunks of an upload whose source failed or lied are removed at once."""
    error_of(lambda: storage._save("a.bin", upload(9 * MB, break_at=8 * MB)))
    error_of(lambda: storage._save("a.bin", upload(MB, end_at=MB - 1)))
    assert chunks.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_commit_whose_answer_was_lost(storage: Any, chunks: Any) -> None:
    """When the database goes away while the file is published, its chunks stay: the file may be there."""

    def cut(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("INSERT") and "storedfile" in sql:
            raise OperationalError("server closed the connection unexpectedly")
        return result

    with connection.execute_wrapper(cut):
        error = error_of(lambda: storage._save("a.bin", upload(MB)))
    assert storage.sort_error(error) is ErrorKind.PASSING
    assert chunks.count() == 4
    assert storage.stat("a.bin") is None
    assert storage.delete_leftovers(timedelta(seconds=-5)) == 1


@pytest.mark.django_db(transaction=True)
def test_leftovers_of_the_dead(storage: Any, chunks: Any) -> None:
    """Chunks that a killed process left are found by age and removed; those of files never are."""
    storage._save("kept.bin", upload(MB))
    with stalled_save(BACKEND, {}, "killed.bin", 8 * MB):
        pass
    assert chunks.count() > 4 + 8
    assert storage.delete_leftovers(timedelta(hours=1)) == 0
    assert storage.delete_leftovers(timedelta(seconds=-5)) == 1
    assert chunks.count() == 4
    assert storage.size("kept.bin") == MB


@pytest.mark.django_db(transaction=True)
def test_a_chunk_that_is_gone_is_an_error(storage: Any, chunks: Any) -> None:
    """A file with a hole in it is an error, never a short file, and never one with the hole closed."""
    storage._save("a.bin", upload(MB))
    chunks.filter(number=2).delete()
    with storage.open("a.bin") as file, pytest.raises(OSError, match="524288 bytes of 1048576"):
        file.read()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_lost_a_chunk(storage: Any, chunks: Any) -> None:
    """Chunks are counted before the file gets its name."""

    class Stolen(Upload):
        def read(self, size: int = -1) -> Any:
            block = super().read(size)
            if not block:
                chunks.filter(number=2).delete()
            return block

    with pytest.raises(MismatchError):
        storage._save("a.bin", Stolen(upload(3 * MB).file, 3 * MB))
    assert storage.stat("a.bin") is None
    assert chunks.count() == 0


@pytest.mark.django_db(transaction=True)
def test_delete_takes_the_chunks_along(storage: Any, chunks: Any) -> None:
    """After a delete no row of the file is left, and those of its neighbours are."""
    storage._save("a.bin", upload(MB))
    storage._save("A.bin", text(b"other"))
    storage.delete("a.bin")
    assert chunks.count() == 1
    assert storage.listdir("") == ([], ["A.bin"])


@pytest.mark.django_db(transaction=True)
def test_folders_differ_in_case(storage: Any) -> None:
    """A folder's listing has nothing of one that differs in case only."""
    for name in ("sub/a", "Sub/b", "SUB/deep/c"):
        storage._save(name, text(b"x"))
    assert storage.listdir("sub") == ([], ["a"])
    assert storage.listdir("SUB") == (["deep"], [])


@pytest.mark.django_db(transaction=True)
def test_a_taken_name_costs_no_bytes(storage: Any) -> None:
    """A name that is taken already is refused before anything is read or written."""
    storage._save("a.bin", text(b"x"))
    source = upload(MB)
    with pytest.raises(FileExistsError):
        storage._save("a.bin", source)
    assert source.file.highest == 0


@pytest.mark.django_db(transaction=True)
def test_digest_is_of_the_bytes_that_were_sent(storage: Any) -> None:
    """The SHA-256 beside the file is right also when the content announced none."""
    storage._save("a.bin", upload(MB))
    assert storage.stat("a.bin") == Stat(MB, {"sha256": digests_of(MB)["sha256"]})


def kill_connection() -> None:
    """Have the server end this process's connection, as a restart would."""
    own, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
        "mysql": ("SELECT CONNECTION_ID()", "KILL %s"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(own)
        identifier = cursor.fetchone()[0]
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute(kill, [identifier])
    finally:
        other.close()


@pytest.mark.django_db(transaction=True)
def test_a_dead_connection_is_replaced(storage: Any) -> None:
    """An error of a dead connection is passing, and the next call finds a living one."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no server that could close a connection")
    storage._save("a.bin", text(b"x"))
    kill_connection()
    error = error_of(lambda: storage.size("a.bin"))
    assert storage.sort_error(error) is ErrorKind.PASSING
    assert storage.size("a.bin") == 1


def test_an_alias_that_is_not_there_is_a_matter_of_settings() -> None:
    """A database alias that the settings lack is no passing error."""
    from queued_storage.remotes.database.storage import DatabaseStorage

    storage = DatabaseStorage("nowhere")
    error = error_of(lambda: storage.stat("x"))
    assert storage.sort_error(error) is ErrorKind.SETTINGS


@pytest.mark.parametrize("size", [0, MB + 1])
def test_chunk_sizes_have_limits(size: int) -> None:
    """A chunk size that no database would take is refused when the storage is made."""
    from queued_storage.remotes.database.storage import DatabaseStorage

    with pytest.raises(StorageConfigurationError, match="chunk_size"):
        DatabaseStorage(chunk_size=size)


class _Cause(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("no")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "cause", "kind"),
    [
        (OperationalError('FATAL:  password authentication failed for user "x"'), None, ErrorKind.DENIED),
        (OperationalError(1045, "Access denied for user"), None, ErrorKind.DENIED),
        (ProgrammingError("no rights"), _Cause("42501"), ErrorKind.DENIED),
        (OperationalError("no login"), _Cause("28000"), ErrorKind.DENIED),
        (ProgrammingError('relation "x" does not exist'), _Cause("42P01"), ErrorKind.SETTINGS),
        (OperationalError("no such table: x"), None, ErrorKind.SETTINGS),
        (OperationalError("database or disk is full"), None, ErrorKind.PASSING),
        (OperationalError("database is locked"), None, ErrorKind.PASSING),
        (DataError("value too long"), None, ErrorKind.REFUSED),
        (ConnectionDoesNotExist("x"), None, ErrorKind.SETTINGS),
        (MismatchError(), None, ErrorKind.MISMATCH),
        (ValueError("x"), None, None),
    ],
)
def test_errors_are_sorted(error: Exception, cause: Exception | None, kind: ErrorKind | None) -> None:
    """Each error of a database has its kind, and nothing else has."""
    from queued_storage.remotes.database.errors import kind_of

    error.__cause__ = cause
    assert kind_of(error) is kind


def test_migration_is_complete() -> None:
    """The models have no change that the migration lacks."""
    call_command("makemigrations", "queued_storage_database", check=True, dry_run=True, verbosity=0)


def test_no_base_url() -> None:
    """Without an address there is no URL."""
    from queued_storage.remotes.database.storage import DatabaseStorage

    with pytest.raises(ValueError, match="base_url"):
        DatabaseStorage().url("a.txt")
