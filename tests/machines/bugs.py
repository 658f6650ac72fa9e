"""M10: bugs that others have made, as patches of this package, and the tests that see them.

``python -m tests.machines.bugs`` writes the table of ``docs/seeded-bugs.md`` anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.machines.seeding import ROOT, Edit

INTRODUCTION = """\
---
orphan: true
---

# Seeded bugs

Tests are worth what they see. Each of these bugs, which this or other software of its kind has had, is put into the
package in turn while the test suite runs (`tests/test_machine_seeded.py`; with `QUEUED_STORAGE_DOSE=1` all of them),
and each test named beside it must then fail. A patch that does not fit the code any more fails too.

This page is written by `python -m tests.machines.bugs` from the patches themselves.
"""
PAGE = ROOT / "docs" / "seeded-bugs.md"


@dataclass(frozen=True)
class Bug:
    """One bug: the edits that make it, and tests each of which must then fail."""

    name: str
    edits: tuple[Edit, ...]
    seen_by: tuple[str, ...]


BUGS = [
    Bug(
        "publish before commit",
        (
            (
                "publishing.py",
                "    if not connection.in_atomic_block:\n        return publication()",
                "    return publication()",
            ),
        ),
        ("test_messages.py::test_after_the_commit",),
    ),
    Bug(
        "publish that raises into the request",
        (
            ("publishing.py", "        breaker.failed()\n", "        raise\n"),
            (
                "publishing.py",
                '            logger.exception("Could not publish; the sweep will")\n',
                "            raise\n",
            ),
        ),
        ("test_contract_broker.py::test_a_silent_broker",),
    ),
    Bug(
        "message carries options",
        (("publishing.py", "without_secrets({} if storage.named else side)", "dict(side)"),),
        ("test_contract_foreign_tasks.py::test_a_foreign_task_gets_the_six_arguments",),
    ),
    Bug(
        "transferred before verification",
        (("transfers.py", "            stored.check()\n", ""),),
        ("test_contract_errors.py::test_other_bytes_on_the_remote",),
    ),
    Bug(
        "verification skipped when the look fails",
        (
            (
                "copying.py",
                "        stat = self.answer if self._is_told() else self._stat()\n",
                "        try:\n            stat = self._stat()\n        except Exception:\n            return\n",
            ),
        ),
        ("test_laws.py::test_cannot_tell_is_not_verified",),
    ),
    Bug(
        "forbidden taken for absent",
        (
            (
                "copying.py",
                "        return adapter_for(self.remote).stat(self.remote, self.remote_name)",
                "        try:\n"
                "            return adapter_for(self.remote).stat(self.remote, self.remote_name)\n"
                "        except Exception:\n"
                "            return None",
            ),
        ),
        ("test_laws.py::test_cannot_tell_is_not_absent",),
    ),
    Bug(
        "returned name ignored",
        (
            (
                "transfers.py",
                "            self.record.remote_name = stored.remote_name\n",
                "            stored = replace(stored, remote_name=copy.remote_name)\n",
            ),
        ),
        ("test_transfers.py::test_the_returned_name",),
    ),
    Bug(
        "local copy removed before the commit",
        (
            (
                "transfers.py",
                "    if not ledger.complete(record, timer_of(attempt.pair)):",
                "    if attempt.pair.evict_after == timedelta(0):\n"
                "        attempt.pair.local.delete(record.local_name)\n"
                "    if not ledger.complete(record, timer_of(attempt.pair)):",
            ),
        ),
        ("test_eviction_order.py::test_the_local_copy_is_there_at_every_statement_until_the_last",),
    ),
    Bug(
        "local copy removed without the token",
        (
            (
                "transfers.py",
                "    if not ledger.complete(record, timer_of(attempt.pair)):",
                "    if not ledger.complete(record, timer_of(attempt.pair)) and not removal.evict(\n"
                "        record, attempt.pair\n"
                "    ):",
            ),
        ),
        ("test_contract_leases.py::test_a_zombie_completes_after_the_second",),
    ),
    Bug(
        "lease by the worker's clock",
        (
            (
                "access.py",
                "    return ExpressionWrapper(DatabaseNow() + delay, output_field=DateTimeField())",
                "    from django.utils import timezone\n\n    return Value(timezone.now() + delay)",
            ),
        ),
        ("test_contract_leases.py::test_the_lease_is_measured_by_the_database",),
    ),
    Bug(
        "lease not renewed",
        (("transfers.py", "        if now >= self.renew_at and", "        if False and"),),
        ("test_contract_leases.py::test_progress_renews_the_lease",),
    ),
    Bug(
        "claim by plain save",
        (
            (
                "ledger.py",
                "    rows = records().filter(pk=pk, state=State.QUEUED)\n    if retries",
                "    rows = records().filter(pk=pk, state__in=[State.QUEUED, State.TRANSFERRING])\n    if retries",
            ),
        ),
        ("test_transfers.py::test_one_record_by_eight_workers",),
    ),
    Bug(
        "attempt counted at the end",
        (
            (
                "ledger.py",
                '        retries=F("retries") + 1,\n        due_at=after(settings.QUEUED_STORAGE_LEASE),',
                "        due_at=after(settings.QUEUED_STORAGE_LEASE),",
            ),
        ),
        ("test_contract_leases.py::test_three_lost_workers",),
    ),
    Bug(
        "token missing in the last UPDATE",
        (
            (
                "ledger.py",
                "    rows = _held(record.pk, record.lease)\n    body",
                "    rows = records().filter(pk=record.pk)\n    body",
            ),
        ),
        ("test_contract_leases.py::test_two_attempts_by_hand",),
    ),
    Bug(
        "two bodies on one remote name",
        (
            ("saving.py", "        record.remote_name = place\n", "        pass\n"),
            (
                "ledger.py",
                "                record.remote_name = generation_name(record.name, record.generation)\n",
                "                pass\n",
            ),
        ),
        ("test_contract_overwriting.py::test_the_record_of_new_content",),
    ),
    Bug(
        "a zombie removes a remote object that another record owns",
        (
            (
                "transfers.py",
                '    logger.warning("The lease was lost; nothing was touched", extra=log_facts(attempt.record))\n',
                "    attempt.pair.remote.delete(attempt.record.remote_name)\n",
            ),
        ),
        ("test_zombies.py::test_what_a_zombie_had_uploaded_belongs_to_its_successor",),
    ),
    Bug(
        'caching "local"',
        (("locations.py", "    if location.side == Side.REMOTE and timeout", "    if timeout"),),
        ("test_contract_same_name.py::test_a_name_that_was_pruned_is_not_gone_in_the_cache",),
    ),
    Bug(
        "cache key from the raw name",
        (
            (
                "locations.py",
                "    return _cache_key(storage, record_key(storage.alias, name))\n",
                '    return f"{storage.prefix}_{name}"\n',
            ),
        ),
        ("test_contract_same_name.py::test_two_storages_with_one_relative_name",),
    ),
    Bug(
        "cache error propagates",
        (("locations.py", "        breaker.failed()\n", "        raise\n"),),
        ("test_locations.py::test_a_failing_cache",),
    ),
    Bug(
        "no fsync",
        (("staging.py", "        if self.durable:\n            os.fsync(handle)", "        pass"),),
        ("test_local_faults.py::test_a_power_cut_after_save_takes_nothing",),
    ),
    Bug(
        "no count of short writes",
        (("staging.py", "        data = data[written:]", "        return"),),
        ("test_local_faults.py::test_short_writes_are_counted",),
    ),
    Bug(
        "rename over an existing name",
        (
            (
                "staging.py",
                "            os.link(self.base, base, src_dir_fd=self.staging, "
                "dst_dir_fd=parent, follow_symlinks=False)",
                "            os.rename(self.base, base, src_dir_fd=self.staging, dst_dir_fd=parent)",
            ),
        ),
        ("test_local_faults.py::test_threads_that_save_one_name_lose_nothing[content]",),
    ),
    Bug(
        "sweep sends twice",
        (
            (
                "ledger.py",
                "    with transaction.atomic(using=using()):\n        if features.has_select_for_update:",
                "    rows = list(rows[:limit])\n"
                "    with transaction.atomic(using=using()):\n"
                "        if features.has_select_for_update:",
            ),
        ),
        ("test_sweeping.py::test_eight_sweeps_at_once",),
    ),
    Bug(
        "sweep without a limit",
        (("ledger.py", "list(rows[:limit])", "list(rows)"),),
        ("test_sweeping.py::test_batches",),
    ),
    Bug(
        "transaction open while bytes move",
        (
            (
                "transfers.py",
                "        _work(attempt, task)\n    except",
                "        with __import__('django.db').db.transaction.atomic():\n"
                "            _work(attempt, task)\n"
                "    except",
            ),
        ),
        ("test_transfers.py::test_no_transaction_is_open_while_bytes_move",),
    ),
    Bug(
        "row read from a replica",
        (("access.py", "router.db_for_write(TransferRecord)", "router.db_for_read(TransferRecord)"),),
        ("test_replica.py::test_no_row_is_read_from_a_replica",),
    ),
    Bug(
        "name checked in save only",
        (
            (
                "backends.py",
                "        name = clean_name(name)\n"
                "        location = locations.locate(self, name) or self._unrecorded(name)\n",
                "        location = locations.locate(self, name) or self._unrecorded(name)\n",
            ),
        ),
        ("test_contract_names.py::test_refused_names",),
    ),
    Bug(
        "error text unredacted",
        (
            (
                "redaction.py",
                "    return redact(text, *options)",
                "    return text",
            ),
        ),
        ("test_redaction.py::test_an_error_is_described",),
    ),
]


def page() -> str:
    """Return the page of the documentation."""
    rows = [
        f"| {number} | {bug.name} | {', '.join(sorted({f'`{module}`' for module, _, _ in bug.edits}))} |"
        f" {'<br>'.join(f'`{test}`' for test in bug.seen_by)} |"
        for number, bug in enumerate(BUGS, start=1)
    ]
    return "\n".join([INTRODUCTION, "| | Bug | Put into | Seen by |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
