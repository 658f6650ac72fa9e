"""A save whose INSERT failed: what the database holds under the name afterwards may be somebody else's."""

from __future__ import annotations

from typing import Any

from django.core.files.base import ContentFile
from django.db import OperationalError, connection

from queued_storage.models import TransferRecord
from queued_storage.testing import run_owed
from tests.fixtures import MakePair, committing

pytestmark = committing
pytest_plugins = ["tests.fixtures"]


def test_a_name_whose_record_was_evicted(make_pair: MakePair) -> None:
    """The record of another file, whose local copy has left the same place, is not taken for the one just written."""
    pair = make_pair(keep_local=False)
    assert pair.save("a.txt", ContentFile(b"first")) == "a.txt"
    run_owed()
    failed = []

    def fail_once(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT") and not failed:
            failed.append(sql)
            raise OperationalError("the connection was lost before this arrived")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail_once):
        name = pair.save("a.txt", ContentFile(b"second"))
    assert len(failed) == 1
    assert name != "a.txt"
    for saved, content in (("a.txt", b"first"), (name, b"second")):
        with pair.open(saved) as file:
            assert file.read() == content
    assert TransferRecord.objects.count() == 2
