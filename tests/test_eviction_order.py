"""The local copy goes last: not before the database has committed that the file is on the remote."""

from __future__ import annotations

from typing import Any

from django.core.files.base import ContentFile
from django.db import connection

from queued_storage import sweeping
from queued_storage.models import State, TransferRecord
from tests.conftest import Media
from tests.fixtures import MakePair, committing

pytestmark = committing
pytest_plugins = ["tests.fixtures"]


def test_the_local_copy_is_there_at_every_statement_until_the_last(make_pair: MakePair, media: Media) -> None:
    """While the row says anything but "transferred", the local copy lies in its place."""
    pair = make_pair(keep_local=False)
    pair.save("a.txt", ContentFile(b"content"))
    seen = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        there = (media.local / "a.txt").exists()
        with connection.cursor() as cursor:
            cursor.cursor.execute(f"SELECT state FROM {TransferRecord._meta.db_table}")
            seen.append((str(cursor.fetchone()[0]), there))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        sweeping.process(TransferRecord.objects.values_list("pk", flat=True)[0])
    assert not (media.local / "a.txt").exists()
    assert (State.TRANSFERRING.value, False) not in seen
    assert (State.TRANSFERRING.value, True) in seen
    assert (State.TRANSFERRED.value, True) in seen
