"""Send a small file the whole way: saved here, transferred by a worker, found by everybody, deleted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from celery import current_app
from django.core.cache import caches
from django.core.files.base import ContentFile
from django.utils.translation import gettext, gettext_lazy as _

from queued_storage import health, ledger, locations, nodes, publishing
from queued_storage.conf import settings
from queued_storage.exceptions import ErrorKind
from queued_storage.findings import Finding, bad, good, unclear
from queued_storage.models import State, TransferRecord
from queued_storage.names import escape, record_key
from queued_storage.pairs import StoragePair, pair_for

PAUSE = 0.1
# How long after the transfer a worker's answer may take to reach the cache, in seconds.
CACHE_PATIENCE = 3.0

_ADVICE = {
    ErrorKind.MISSING: _("Give web and worker the same local folder, or set QUEUED_STORAGE_NODE on each host."),
    ErrorKind.ELSEWHERE: _('Set QUEUED_STORAGE_QUEUE = "transfers-{node}", and start a worker for that queue here.'),
    ErrorKind.SETTINGS: _("Give workers the same settings as the web process, and restart them."),
    ErrorKind.DENIED: _("Give workers the credentials that the web process has."),
}


def send(storage: StoragePair, timeout: float) -> Iterator[Finding]:
    """Send a canary through ``storage`` and yield what became of it within ``timeout`` seconds; leaves no file."""
    check = gettext("canary of %s") % escape(storage.alias)
    if storage.alias in health.down():
        yield unclear(check, gettext("not sent: the remote is down, or the storage is paused"))
        return
    name = ""
    try:
        name = storage.save(f"queued-storage-doctor/{secrets.token_hex(8)}.txt", ContentFile(secrets.token_bytes(32)))
        started = time.monotonic()
        record = _wait(storage, name, timeout)
        if record.state != State.TRANSFERRED:
            yield _explain(check, record, timeout)
            return
        worker = _worker(record)
        facts = {"seconds": time.monotonic() - started, "worker": escape(worker)}
        yield good(check, gettext("transferred in %(seconds).1f s by %(worker)s") % facts)
        if worker != nodes.worker_name():
            yield from _check_cache(storage, name)
    except Exception as error:
        advice = gettext("It could not even be saved: see the local side.")
        yield bad(check, f"{type(error).__name__}: {escape(error)}", advice)
    finally:
        if name:
            with suppress(Exception):
                storage.delete(name)


def _wait(storage: StoragePair, name: str, timeout: float) -> TransferRecord:
    record = ledger.lookup(record_key(storage.alias, name))
    assert record is not None
    if record.state == State.DELAYED:
        ledger.release(record.pk)
        publishing.after_commit(storage, record)

    def settled() -> bool:
        now = ledger.get(record.pk)
        # An attempt that failed once has said why.
        return now is None or now.state in (State.TRANSFERRED, State.FAILED) or bool(now.error_kind)

    _until(settled, timeout)
    return ledger.get(record.pk) or record


def _until(condition: Callable[[], bool], timeout: float) -> bool:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE)
    return True


def _worker(record: TransferRecord) -> str:
    return ledger.attempts().filter(record=record).order_by("-pk").values_list("worker", flat=True).first() or ""


def _explain(check: str, record: TransferRecord, timeout: float) -> Finding:
    if record.error_kind:
        kind = ErrorKind(record.error_kind)
        facts = {"worker": escape(_worker(record)), "error": escape(record.error, 1000)}
        text = gettext("%(worker)s could not transfer it: %(error)s") % facts
        return bad(
            check, text, str(_ADVICE.get(kind) or _("See the log of that worker, and whether it reaches the remote."))
        )
    if record.state == State.TRANSFERRING:
        text = gettext("%(worker)s took it, and was not done within %(seconds).0f s")
        advice = gettext("See the log of that worker; give it more time with --timeout.")
        return bad(check, text % {"worker": escape(record.worker), "seconds": timeout}, advice)
    queue = nodes.queue_of(pair_for(record.storage), record) or current_app.conf.task_default_queue
    advice = gettext("Start a worker that listens to the queue %s, on the same broker and the same database.")
    return bad(check, gettext("no worker took it within %.0f s") % timeout, advice % escape(queue))


def _check_cache(storage: StoragePair, name: str) -> Iterator[Finding]:
    alias = settings.QUEUED_STORAGE_CACHE
    if alias is None or (storage.overwrites and storage.staleness is None):
        return
    key = locations.cache_key(storage, name)
    check = gettext("cache of %s") % escape(storage.alias)
    try:
        seen = _until(lambda: caches[alias].get(key) is not None, CACHE_PATIENCE)
    except Exception as error:
        advice = gettext("Start its server or correct CACHES; until then every question goes to the database.")
        yield bad(check, f"{type(error).__name__}: {escape(error)}", advice)
        return
    if seen:
        yield good(check, gettext("what the worker wrote is seen here"))
    else:
        advice = gettext("Use one cache for all processes, such as Redis, or set QUEUED_STORAGE_CACHE = None.")
        yield bad(check, gettext("what the worker wrote into %r is not seen here") % alias, advice)
