"""What workers would do, done in this process; and what was left for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.db.models import DateTimeField, ExpressionWrapper, F, Q, QuerySet

from queued_storage import ledger, sweeping
from queued_storage.conf import settings
from queued_storage.models import State, TransferRecord


def run_owed(attempts: int = 1) -> Counter[str]:
    """Do in this process, without a broker, what is owed on all records; return how many ended how.

    Transfers what is queued, rescues what dead workers hold, evicts, removes and prunes what is due. Each record is
    tried until that is done or it has had ``attempts`` tries in this call; the pauses between tries are not waited for.
    Held files, and local copies whose time has not come, are left alone. The keys are those of ``sweep()``, the
    outcomes of transfers (``transferred``, ``retry``, ...), and ``evicted``, ``kept``,
    ``removed`` and ``postponed``.
    """
    tried: Counter[int] = Counter()
    counts: Counter[str] = Counter()

    def run(records: Iterable[TransferRecord]) -> None:
        for record in records:
            tried[record.pk] += 1
            counts[_run(record)] += 1

    swept = sweeping.sweep(run)
    swept.pop("sent", None)
    while todo := [record for record in owed() if tried[record.pk] < attempts]:
        run(todo)
    return counts + Counter(swept)


def owed() -> QuerySet[TransferRecord]:
    """Return the records that a message is on its way for, or would be, oldest first."""
    # Once removed, a record is due at the date of its pruning.
    pruned_at = ExpressionWrapper(F("deleted_at") + settings.QUEUED_STORAGE_PRUNE_AFTER, output_field=DateTimeField())
    removal = Q(state=State.DELETED, worker="", due_at__lt=pruned_at)
    return ledger.records().filter(Q(state=State.QUEUED) | removal).order_by("pk")


def _run(record: TransferRecord) -> str:
    outcome = sweeping.process(record.pk)
    if outcome is not None:
        return str(outcome)
    if record.state == State.DELETED:
        return "postponed" if owed().filter(pk=record.pk).exists() else "removed"
    after = ledger.get(record.pk)
    return "evicted" if after is not None and not after.local_copy else "kept"


@contextmanager
def capture_transfers() -> Iterator[list[TransferRecord]]:
    """Give a list that holds, after the block, the records that the block has queued, in the order of their saving.

    Asks the ledger, not the broker: it works inside of transactions that never commit, and with eager tasks.
    """
    before = _states()
    captured: list[TransferRecord] = []
    yield captured
    resting = {State.DELAYED, State.FAILED, State.DELETED}
    for pk, state in _states().items():
        if state not in resting and before.get(pk, State.DELAYED) in resting:
            captured.append(ledger.records().get(pk=pk))


def _states() -> dict[int, str]:
    return dict(ledger.records().order_by("pk").values_list("pk", "state"))
