"""What the pages of the admin cost with a large ledger: ``python -m benchmarks.admin [records]``, a million by default.

Runs on PostgreSQL (or what ``TEST_DATABASE`` names), in a database of its own that is dropped afterwards. Prints, for
each page, the median and the longest of several server times until the answer, and the queries.
"""

from __future__ import annotations

import os
import statistics
import sys

os.environ.setdefault("TEST_DATABASE", "postgresql")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import setup_test_environment

from benchmarks.timing import ANSWERS
from queued_storage import figures
from queued_storage.admin import CappedPaginator
from queued_storage.models import TransferRecord
from queued_storage.names import record_key

TIMES = 7
LIST = "/admin/queued_storage/transferrecord/"
# Of each thousand records: 990 transferred, and some in every other state.
FILL = """
INSERT INTO queued_storage_transferrecord (storage, name, key, generation, state, local_name, remote_name, size, digest,
    content_type, retries, lease, worker, due_at, node, local_copy, error_kind, error, created_at, transferred_at,
    deleted_at, updated_at, checked_at)
SELECT 'default', name, key, 1, state, name, name, 1000 + number %% 100000, 'sha256:0 crc32:0', 'image/png', retries,
    NULL, 'host:' || number %% 9, CASE state WHEN 'queued' THEN moment + interval '60 s' END, '', TRUE,
    CASE state WHEN 'failed' THEN (ARRAY['refused', 'missing', 'mismatch'])[1 + number %% 3] ELSE '' END, '', moment,
    CASE state WHEN 'transferred' THEN moment + interval '5 s' END, NULL, moment, NULL
FROM (
    SELECT number, 'uploads/' || md5(number::text) || '.png' AS name, md5('key' || number)::uuid AS key,
        CASE WHEN number %% 1000 < 5 THEN 'queued' WHEN number %% 1000 < 8 THEN 'failed'
             WHEN number %% 1000 < 10 THEN 'delayed' ELSE 'transferred' END AS state,
        CASE WHEN number %% 4000 = 0 THEN 9 ELSE 0 END AS retries,
        now() - interval '30 days' * number / %(count)s AS moment
    FROM generate_series(1, %(count)s) AS number
) AS made
"""
ATTEMPTS = """
INSERT INTO queued_storage_transferattempt
    (record_id, started_at, finished_at, worker, outcome, error_kind, error, bytes)
SELECT id, created_at, created_at + interval '5 s', worker, CASE WHEN id %% 50 = 0 THEN 'retry' ELSE 'transferred' END,
    '', '', size
FROM queued_storage_transferrecord
"""


def fill(count: int) -> TransferRecord:
    """Fill the ledger and return one record that can be found by its name."""
    with connection.cursor() as cursor:
        cursor.execute(FILL.replace("%(count)s", str(count)).replace("%%", "%"))
        cursor.execute(ATTEMPTS.replace("%%", "%"))
        cursor.execute("ANALYZE")
    wanted = TransferRecord.objects.filter(state="transferred").order_by("pk")[count // 2]
    TransferRecord.objects.filter(pk=wanted.pk).update(key=record_key("default", wanted.name))
    return wanted


def measure(client: Client, path: str, *, cold: bool = False) -> tuple[float, float, int]:
    """Return the median and the longest time in milliseconds until the answer, and the queries, of a page."""
    times = []
    for turn in range(TIMES + 1):
        if cold:
            figures.forget()
        response = client.get(path, headers={"X-Count": "1"} if turn == TIMES else {})
        assert response.status_code == 200, (path, response.status_code)
        milliseconds, queries = ANSWERS.pop()
        times.append(milliseconds)
    return statistics.median(times[:-1]), max(times), queries


def main(count: int) -> None:
    """Fill, measure, print."""
    setup_test_environment()
    settings.MIDDLEWARE = ["benchmarks.timing.timed", *settings.MIDDLEWARE]
    connection.creation.create_test_db(verbosity=0)
    try:
        wanted = fill(count)
        client = Client()
        client.force_login(User.objects.create_superuser("admin"))
        client.get(LIST)
        print(f"{count:,} records and as many attempts, {connection.vendor}; milliseconds of server time")
        print(f"{'page':<36}{'median':>9}{'longest':>9}{'queries':>9}")
        for name, path, cold in (
            ("dashboard, nothing remembered", f"{LIST}dashboard/", True),
            ("dashboard, refreshed", f"{LIST}dashboard/", False),
            ("list", LIST, False),
            ("list, last page", f"{LIST}?p={max(min(count, CappedPaginator.CAP) // 50, 1)}", False),
            ("list of one state", f"{LIST}?state__exact=failed", False),
            ("failures of one kind", f"{LIST}?state__exact=failed&error_kind__exact=refused", False),
            ("search", f"{LIST}?q={wanted.name}", False),
            ("record", f"{LIST}{wanted.pk}/change/", False),
        ):
            median, longest, queries = measure(client, path, cold=cold)
            print(f"{name:<36}{median:>9.1f}{longest:>9.1f}{queries:>9}", flush=True)
    finally:
        connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
