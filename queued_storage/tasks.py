"""The Celery tasks: thin. What they do is in ``queued_storage.transfers`` and ``queued_storage.sweeping``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Task, _state, current_app, shared_task
from django.core.files.storage import Storage
from django.db.models import DateTimeField, ExpressionWrapper, Q
from django.utils.module_loading import import_string

from queued_storage import copying, lanes, ledger, legacy, nodes, publishing, settling, sweeping, transfers
from queued_storage.conf import Setting, Settings, settings
from queued_storage.exceptions import ErrorKind, LeaseLostError, StorageConfigurationError
from queued_storage.models import State, TransferRecord
from queued_storage.names import escape
from queued_storage.pairs import pair_for
from queued_storage.redaction import redact

logger = logging.getLogger("queued_storage")

# How often one message is sent on, where hosts share a queue and it may land anywhere.
HOPS = 3


class FromSettings:
    """A class attribute that reads a setting each time."""

    def __init__(self, setting: Setting[Any]) -> None:
        self.setting = setting

    def __get__(self, instance: object, owner: type) -> Any:
        value = self.setting.__get__(settings, Settings)
        return value.total_seconds() if hasattr(value, "total_seconds") else value


class Transfer(publishing.AnyTask):
    """Move files to the remote. Subclasses override ``transfer()`` and are registered with Celery by themselves.

    Retries, the ledger and the sweep come with it: a result of False, or an error, is tried again by the ledger's
    timer, not by Celery's.
    """

    max_retries = FromSettings(Settings.QUEUED_STORAGE_RETRIES)
    default_retry_delay = FromSettings(Settings.QUEUED_STORAGE_RETRY_DELAY)
    #: Whether the local copy stays after the transfer, for storages that do not say so themselves.
    keep_local = True
    # The ledger's lease and the sweep do what late acknowledgement and results are for; see the documentation.
    acks_late = False
    ignore_result = True
    serializer = "json"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(cls)

    @property
    def takes_records(self) -> bool:
        """Whether messages may carry ids: not where ``run`` is overridden, which gets the six documented arguments."""
        return type(self).run is Transfer.run

    def run(
        self,
        name: str | None = None,
        cache_key: str | None = None,
        local_path: str | None = None,
        remote_path: str | None = None,
        local_options: Mapping[str, Any] | None = None,
        remote_options: Mapping[str, Any] | None = None,
        *,
        records: Sequence[Sequence[int]] | None = None,
        hops: int = 0,
        **kwargs: Any,
    ) -> Any:
        """Do what is owed on ``records`` (id and count of retries each), or on the file of the six arguments.

        ``hops`` tells how often the message was sent on from a host that does not have the files.
        The six arguments are those of django-queued-storage 0.8, whose messages may still be waiting in the broker.
        """
        if records is not None:
            return process_each(records, self, hops)
        return legacy.run(self, name, cache_key, local_path, remote_path, local_options, remote_options, **kwargs)

    def transfer(self, name: str, local: Storage, remote: Storage, **kwargs: Any) -> bool:
        """Copy ``name`` from ``local`` to ``remote`` and verify it there; False, to be tried again, if that fails.

        Override to do more, and call ``super().transfer(...)``. Anything but True or False is a ``ValueError``.
        """
        attempt = transfers.current()
        try:
            if attempt is not None:
                attempt.copy()
            else:
                copying.copy(local, remote, name)
        except (LeaseLostError, Exception) as error:
            if attempt is not None:
                attempt.error = error
            logger.info("Not transferred", extra={"file": escape(name), "error": type(error).__name__})
            return False
        return True

    # Of this method alone, not of one that overrides it: that is anybody's code, made for one thread.
    transfer.many_at_once = True  # type: ignore[attr-defined]


def process_each(records: Any, task: Any = None, hops: int = 0) -> dict[str, str]:
    """Do what is owed on each of the records of a message, or send on those whose local copy lies on another host.

    Raises the first error of a task's own at the end.
    """
    pairs = valid_pairs(records)
    outcomes = send_home(pairs, hops)
    worker = lanes.Worker((pair for pair in pairs if str(pair[0]) not in outcomes), None, task)
    outcomes |= {str(pk): str(outcome) for pk, outcome in worker.run()}
    if worker.errors:
        raise worker.errors[0]
    return outcomes


def valid_pairs(records: Any) -> list[tuple[int, int | None]]:
    """Return the well-formed pairs of a message, which may be forged; the others are logged and left out."""
    pairs: list[tuple[int, int | None]] = []
    for entry in records if isinstance(records, (list, tuple)) else [records]:
        pk, retries = (*entry, None)[:2] if isinstance(entry, (list, tuple)) and entry else (entry, None)
        if type(pk) is int and 0 < pk < 2**63 and (retries is None or (type(retries) is int and 0 <= retries < 2**31)):
            pairs.append((pk, retries))
        else:
            logger.warning("Ignored a malformed message", extra={"entry": escape(entry)})
    return pairs


def register(cls: type[publishing.AnyTask]) -> None:
    """Register a task class with every Celery app, present and future, the way ``shared_task`` does for functions."""
    if "name" not in vars(cls):
        cls.name = f"{cls.__module__}.{cls.__qualname__}"
    _state.connect_on_app_finalize(lambda app: app.register_task(cls()))
    for app in _state._get_active_apps():  # type: ignore[attr-defined]
        if app.finalized:
            app.register_task(cls())


register(Transfer)


class TransferAndDelete(Transfer):
    """Move files to the remote and remove the local copy once the verified transfer is committed."""

    keep_local = False


def resolve(path: Any) -> Any:
    """Return the task at a dotted path; classes of Celery tasks become their registered instance.

    Raises ``StorageConfigurationError`` if there is none, or it has neither ``transfer`` nor ``delay``.
    """
    if not isinstance(path, str):
        return _resolve(path)
    # It is asked for several times with each file.
    app, known = _state.get_current_app(), _resolved.get(path)
    if known is None or known[0] is not app:
        known = _resolved[path] = app, _resolve(path)
    return known[1]


_resolved: dict[str, tuple[Any, Any]] = {}


def _resolve(path: Any) -> Any:
    try:
        found = import_string(path) if isinstance(path, str) else path
    except Exception as error:
        # A task's module is anybody's code.
        raise StorageConfigurationError(f"task={path!r} cannot be imported: {error}") from error
    if isinstance(found, type) and issubclass(found, Task):
        if found.name not in current_app.tasks:
            register(found)
        return current_app.tasks[found.name]
    if not hasattr(found, "delay"):
        raise StorageConfigurationError(
            f"task={path!r} is not a Celery task: write the dotted path of a subclass of queued_storage.tasks.Transfer"
        )
    return found


def send_home(pairs: Sequence[tuple[int, int | None]], hops: int = 0) -> dict[str, str]:
    """Send on to their own hosts the messages for records whose local copy lies elsewhere; return which these are.

    Such a record is neither claimed nor changed, and no attempt is counted. A message is sent on HOPS times at most;
    then the reason stands in the record, and the sweep sends another one when it is due. A host without a name leaves
    it to the transfer to find out.
    """
    here = settings.QUEUED_STORAGE_NODE
    if not (here and pairs):
        return {}
    told = dict(pairs)
    owed = Q(state__in=[State.QUEUED, State.DELETED]) | Q(state=State.TRANSFERRED, due_at__isnull=False)
    rows = ledger.records().filter(owed, pk__in=told, local_copy=True).exclude(node__in=["", here])
    now = ExpressionWrapper(ledger.DatabaseNow(), output_field=DateTimeField())
    found: list[Any] = ledger.persist(lambda: list(rows.annotate(age=now)))
    strays: list[TransferRecord] = [record for record in found if not nodes.waits_in_vain(record, record.age)]
    # One that was overtaken by an attempt at home is dropped, as it would be there.
    late = [record for record in strays if record.state != State.QUEUED or told[record.pk] in (None, record.retries)]
    if type(hops) is int and 0 <= hops < HOPS:
        send(late, hops + 1)
    else:
        for record in late:
            logger.warning("A message did not find its host", extra=settling.log_facts(record, node=record.node))
            if record.state == State.QUEUED:
                error = f"its messages reach {here}, and the file lies on the disk of {record.node}"
                ledger.note(record.pk, ErrorKind.ELSEWHERE, error)
    return {str(record.pk): str(ErrorKind.ELSEWHERE.value) for record in strays}


def send(records: Sequence[TransferRecord], hops: int = 0) -> None:
    """Send messages for ``records``, each to the task and the queue of its storage."""
    entries: list[publishing.Entry] = []
    for record in records:
        try:
            storage = pair_for(record.storage)
            _ = storage.task
        except Exception as error:
            # Whatever importing it raises: one storage that cannot be built must not keep the others waiting.
            ledger.note(record.pk, ErrorKind.SETTINGS, redact(error))
            logger.warning("A record has no usable storage", extra={"record_id": record.pk, "error": redact(error)})
        else:
            entries.append((storage, record, None))
    publishing.send(entries, confirm=True, hops=hops)


@shared_task(name=publishing.LOOK, ignore_result=True, acks_late=False)
def look(records: Sequence[Sequence[int]], hops: int = 0) -> dict[str, str]:
    """Do what is owed on records whose storage has a task that does not take them."""
    return process_each(records, hops=hops)


@shared_task(name="queued_storage.tasks.sweep", ignore_result=True, acks_late=False)
def sweep() -> dict[str, int]:
    """Run ``queued_storage.sweeping.sweep``; for Celery beat."""
    return sweeping.sweep(send)
