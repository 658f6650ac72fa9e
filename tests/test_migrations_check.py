"""``python -m migrations_check`` says yes to the migrations as they are, and no to each way of breaking them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import queued_storage
from migrations_check import rows
from queued_storage.models import State, TransferRecord
from tests.servers import mariadb, postgres
from tests.servers.processes import Unavailable

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = Path(queued_storage.__path__[0])

# The newest migration as it is, for a story that changes something of it.
INITIAL = """
from importlib import import_module

from django.db import migrations, models

newest = import_module("queued_storage.migrations.0001_initial").Migration


def without(model, *fields):
    for operation in newest.operations:
        if operation.name == model:
            kept = [(name, field) for name, field in operation.fields if name not in fields]
            operation = migrations.CreateModel(operation.name, kept, operation.options)
        yield operation


class Migration(migrations.Migration):
    initial = True
    operations = [*{operations}]
"""
SECOND = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queued_storage", "0001_initial")]
    operations = [{operations}]
"""
AS_IT_IS = "newest.operations"
WITHOUT_PROBE_AT = 'without("StorageHealth", "probe_at")'
PROBE_AT = 'migrations.AddField("storagehealth", "probe_at", models.DateTimeField("next probe", null=True))'
RELEASED = ("--release", "0.9=queued_storage:0001_initial,queued_storage_database:0001_initial")

Check = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Run the command with other migrations of the ledger: the operations of the first and of the second one."""

    def run(first: str, second: str, *arguments: str, database: str = "sqlite") -> subprocess.CompletedProcess[str]:
        package = tmp_path / "fabricated"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / "0001_initial.py").write_text(INITIAL.format(operations=first))
        if second:
            (package / "0002_second.py").write_text(SECOND.format(operations=second))
        return command("--migrations", "queued_storage=fabricated", "--database", database, *arguments, path=tmp_path)

    return run


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Pack the package as a wheel does; `tox -e package` tries a real one, and the sdist."""
    path = tmp_path / "the.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in PACKAGE.rglob("*"):
            if file.is_file() and file.suffix != ".pyc":
                archive.write(file, file.relative_to(PACKAGE.parent))
    return path


def command(*arguments: str, path: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """Run the command; ``path`` is where Python also looks for modules."""
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    # The linter is not among what the tests need; the command's own environment has it.
    environment.pop("QUEUED_STORAGE_TESTS_REQUIRE", None)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "migrations_check", *arguments],
        cwd=PROJECT,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def postgresql() -> str:
    """The kind of database that shows its locks; skipped where there is none."""
    return _there("postgresql", postgres.programs)


def _there(kind: str, look: Callable[[], object]) -> str:
    try:
        look()
    except Unavailable as reason:
        if os.environ.get("QUEUED_STORAGE_TESTS_REQUIRE") == "all":
            pytest.fail(f"required here: {reason}")
        pytest.skip(str(reason))
    return kind


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_in_order(database: str, wheel: Path) -> None:
    """The migrations as they are pass every check, and the output says that there is no release to come from.

    The code of today, out of a wheel, stands in for that of a release.
    """
    _there(database, {"postgresql": postgres.programs, "mariadb": mariadb.driver}.get(database, lambda: None))
    result = command("--database", database, "--previous", str(wheel))
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert (lines[0], lines[-1]) == (f"== {database}", f"{database}: in order")
    for title in (
        "every change of the models has a migration",
        "zero to newest to zero to newest",
        "migrated schema is that of the models",
        "no released schema yet, so there is none to upgrade from",
        "the.whl works beside the newest code",
    ):
        assert f"ok: {title}" in lines
    assert ("ok: no statement goes through a table that it locks" in lines) == (database == "postgresql")


def failed(result: subprocess.CompletedProcess[str], title: str, *texts: str) -> None:
    """Assert that the check of this title failed, and that these texts stand in the output."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"FAILED: {title}" in result.stdout.splitlines(), result.stdout
    for text in texts:
        assert text in result.stdout, result.stdout


def test_a_missing_migration(check: Check) -> None:
    """A field that no migration makes is named."""
    failed(check(WITHOUT_PROBE_AT, ""), "every change of the models has a migration", "Add field probe_at")


def test_a_missing_index(check: Check) -> None:
    """An index that a migration has dropped behind Django's back is named."""
    drop = 'migrations.RunSQL("DROP INDEX queued_storage_due", migrations.RunSQL.noop)'
    problem = "queued_storage_transferrecord: queued_storage_due is not there"
    failed(check(AS_IT_IS, drop), "migrated schema is that of the models", problem, "only in the models: index")


def test_an_index_without_its_condition(check: Check) -> None:
    """A partial index that has become a whole one is named."""
    drop = 'migrations.RunSQL("DROP INDEX queued_storage_due", migrations.RunSQL.noop)'
    make = """migrations.RunSQL(
        "CREATE INDEX queued_storage_due ON queued_storage_transferrecord (due_at, id)", migrations.RunSQL.noop)"""
    problem = "queued_storage_transferrecord: queued_storage_due has no condition"
    failed(check(AS_IT_IS, f"{drop}, {make}"), "migrated schema is that of the models", problem)


def test_what_is_left_behind(check: Check) -> None:
    """A table that the way back forgets is named."""
    make = 'migrations.RunSQL("CREATE TABLE forgotten (id integer)", migrations.RunSQL.noop)'
    failed(check(AS_IT_IS, make), "zero to newest to zero to newest", "left behind at zero: forgotten")


def test_no_way_back(check: Check) -> None:
    """A migration that cannot be taken back fails."""
    make = 'migrations.RunSQL("SELECT 1")'
    failed(check(AS_IT_IS, make), "zero to newest to zero to newest", "IrreversibleError")


def test_an_upgrade_in_order(check: Check) -> None:
    """From a released schema with a column less, every row in every state comes through as it was."""
    result = check(WITHOUT_PROBE_AT, PROBE_AT, *RELEASED)
    assert result.returncode == 0, result.stdout + result.stderr
    compared = re.search(
        r"^ok: upgrade from 0.9 with rows in every state, and back\n    (\d+) rows", result.stdout, re.MULTILINE
    )
    assert compared is not None, result.stdout
    assert int(compared[1]) > len(rows.STATES)


def test_every_state_is_tried() -> None:
    """The rows that an upgrade carries are in every state and show every column of a record."""
    assert {facts.get("state", "queued") for facts in rows.STATES.values()} == {*State.values}
    written = {name for facts in rows.ROWS["queued_storage.transferrecord"]("x") for name in facts}
    assert {field.name for field in TransferRecord._meta.concrete_fields} - written == {"id", "location"}


def test_an_upgrade_that_changes_a_value(check: Check) -> None:
    """A migration that changes what stands in a row is told with the row, the column and both values."""
    change = """migrations.RunSQL(
        "UPDATE queued_storage_transferrecord SET digest = '' WHERE state = 'failed'", migrations.RunSQL.noop)"""
    title = "upgrade from 0.9 with rows in every state, and back"
    result = check(WITHOUT_PROBE_AT, f"{PROBE_AT}, {change}", *RELEASED)
    failed(result, title, ": digest was 'sha256:", "is '' by migrating to the newest")


def test_an_upgrade_that_loses_rows(check: Check) -> None:
    """A migration that deletes rows is told with their ids."""
    delete = """migrations.RunSQL(
        "DELETE FROM queued_storage_transferattempt WHERE outcome = 'lost'", migrations.RunSQL.noop)"""
    title = "upgrade from 0.9 with rows in every state, and back"
    failed(
        check(WITHOUT_PROBE_AT, f"{PROBE_AT}, {delete}", *RELEASED), title, "rows lost by migrating to the newest: 5"
    )


def test_an_upgrade_that_the_old_release_does_not_survive(check: Check) -> None:
    """A new column without a default is found by the models of the release, which know nothing of it."""
    title = "upgrade from 0.9 with rows in every state, and back"
    add = 'migrations.AddField("transferrecord", "node", models.CharField("node", max_length=255, blank=True))'
    result = check('without("TransferRecord", "node")', add, *RELEASED)
    failed(result, title, "the models of 0.9 cannot work on the newest schema: NOT NULL constraint failed")


def test_previous_code_that_cannot_write(check: Check, wheel: Path) -> None:
    """A column that the previous code does not fill, and no default of the database either, is found by its saves."""
    add = """migrations.RunSQL(
        "ALTER TABLE queued_storage_transferrecord ADD COLUMN added integer NOT NULL DEFAULT 0 CHECK (added = 1)",
        "ALTER TABLE queued_storage_transferrecord DROP COLUMN added")"""
    result = check(AS_IT_IS, add, "--previous", str(wheel))
    failed(result, "the.whl works beside the newest code", "    before: ", "IntegrityError: CHECK constraint failed")


def test_previous_code_that_does_not_find_new_files(check: Check, wheel: Path, tmp_path: Path) -> None:
    """A change of what both versions must make alike, here the key of a record, is found by the other's files."""
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel) as newest, zipfile.ZipFile(other, "w") as previous:
        for name in newest.namelist():
            data = newest.read(name)
            changed = (
                data.replace(b'f"{alias}\\0{name}"', b'f"{alias}/{name}"')
                if name == "queued_storage/names.py"
                else data
            )
            assert (changed != data) == (name == "queued_storage/names.py")
            previous.writestr(name, changed)
    result = check(AS_IT_IS, "", "--previous", str(other))
    failed(result, "other.whl works beside the newest code", "    previous: AssertionError: before/arrived.txt")


def test_no_previous_code(check: Check) -> None:
    """A tag that is not there is told."""
    result = check(AS_IT_IS, "", "--previous", "v0.0.0")
    failed(result, "v0.0.0 works beside the newest code", "v0.0.0 is no wheel, no sdist and no tag of this clone")


def test_a_lock_on_a_large_table(check: Check, postgresql: str) -> None:
    """An index that is built while nobody can write is found by the locks that PostgreSQL shows."""
    make = """migrations.RunSQL(
        "CREATE INDEX another ON queued_storage_transferrecord (due_at)", "DROP INDEX another")"""
    result = check(AS_IT_IS, make, database=postgresql)
    title = "no statement goes through a table that it locks"
    failed(result, title, "ShareLock on queued_storage_transferrecord, reads all of it: CREATE INDEX another")


def test_a_rewritten_table(check: Check, postgresql: str) -> None:
    """A change of a column's type that rewrites the table is found."""
    alter = """migrations.RunSQL(
        "ALTER TABLE queued_storage_transferattempt ALTER worker TYPE varchar(255) USING worker || ''",
        migrations.RunSQL.noop)"""
    result = check(AS_IT_IS, alter, database=postgresql)
    title = "no statement goes through a table that it locks"
    failed(result, title, "AccessExclusiveLock on queued_storage_transferattempt, rewrites it")


def test_wrong_use() -> None:
    """A value without a name is refused."""
    result = command("--migrations", "queued_storage")
    assert (result.returncode, "write NAME=VALUE" in result.stderr) == (2, True)
