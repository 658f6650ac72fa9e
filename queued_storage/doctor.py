"""Tell a newcomer what is wrong with the set-up, and what to do about it: each part is tried, not looked up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from celery import Task, current_app
from django.core import checks
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count
from django.utils.translation import gettext as _

from queued_storage import backlog, canary, heartbeat, ledger, nodes, probes, publishing
from queued_storage.conf import SettingError, settings
from queued_storage.findings import Finding, bad, good, unclear
from queued_storage.models import State
from queued_storage.names import escape
from queued_storage.pairs import StoragePair, aliases, pair_for
from queued_storage.redaction import describe
from queued_storage.remotes.registry import adapter_for
from queued_storage.summary import summarize

BODY = b"A file of the doctor of queued_storage; it may be deleted.\n"
# How many seconds workers get to answer; once more, and longer, when none did, for a busy machine is no missing worker.
PATIENCE = (2.0, 8.0)
# A sweep a minute is the rule; this is when somebody should look.
SWEEP_AGE = timedelta(minutes=5)


def examine(chosen: str | None = None, timeout: float = 30.0, with_canary: bool = True) -> Iterator[Finding]:
    """Try every part, for one storage or for all, and yield what was found, the foundations first.

    ``timeout`` is how many seconds a worker may take for the canary: a small file that is saved, transferred and
    deleted again in each storage.
    """
    yield from _check_settings()
    if not _readable():
        return
    database = list(_check_database())
    yield from database
    if any(finding.is_bad for finding in database):
        return
    names = [chosen] if chosen else aliases()
    if not names:
        yield bad(
            "storages",
            _("no queued storage is configured"),
            _("Add one to STORAGES, as the documentation shows."),
        )
    whole = []
    for name in names:
        sound = True
        for finding in _check_sides(name):
            sound = sound and not finding.is_bad
            yield finding
        if sound:
            whole.append(pair_for(name))
    broker = _check_broker()
    yield broker
    if not broker.is_bad:
        yield from _check_workers(whole)
    yield _check_sweep()
    yield from _check_limits(whole)
    for storage in whole if with_canary else ():
        yield from canary.send(storage, timeout)
    yield from _check_ledger(chosen)


def _check_settings() -> Iterator[Finding]:
    serious = [message for message in checks.run_checks(tags=["queued_storage"]) if message.is_serious()]
    for message in serious:
        yield bad("settings", f"{message.id}: {message.msg}", message.hint or _("Run manage.py check."))
    if not serious:
        yield good("settings", _("the system checks found nothing serious"))


def _readable() -> bool:
    # A value that nobody can read stops everything else.
    try:
        for setting in settings:
            getattr(settings, setting.name)
    except SettingError:
        return False
    return True


def _check_database() -> Iterator[Finding]:
    alias = ledger.using()
    try:
        executor = MigrationExecutor(connections[alias])
        wanted = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "queued_storage"]
        if executor.migration_plan(wanted):
            text = _("its tables are not those of this release (%s)") % alias
            yield bad("database", text, _("Run manage.py migrate."))
            return
        ledger.records().exists()
    except Exception as error:
        yield bad("database", describe(error), _("Correct DATABASES[%r] or start its server.") % alias)
        return
    where = {"alias": alias, "vendor": connections[alias].vendor}
    yield good("database", _("the ledger is in %(alias)r (%(vendor)s)") % where)


def _check_sides(alias: str) -> Iterator[Finding]:
    try:
        storage = pair_for(alias)
        sides = {"local": storage.local, "remote": storage.remote}
    except Exception as error:
        yield bad(_("storage %s") % escape(alias), describe(error), _("Correct its entry in STORAGES, or its field."))
        return
    for side, built in sides.items():
        yield _try_side(storage, side, built)


def _try_side(storage: StoragePair, side: str, built: Storage) -> Finding:
    check = _("%(side)s side of %(storage)s") % {"side": side, "storage": escape(storage.alias)}
    name = f"queued-storage-doctor/{secrets.token_hex(8)}.txt"
    advice = {
        "local": _("The web process must be able to write there: see the folder, its owner and the space on its disk."),
        "remote": _("See address, bucket and credentials; they must allow to read, list, write and delete."),
    }[side]
    stored = None
    try:
        content = ContentFile(BODY, name)
        stored = adapter_for(built).upload(built, name, content) if side == "remote" else built.save(name, content)
        with built.open(stored, "rb") as file:
            if file.read() != BODY:
                return bad(check, _("it gave other bytes than it was given"), advice)
        built.delete(stored)
        if built.exists(stored):
            return bad(check, _("it still has a file that was deleted"), advice)
    except Exception as error:
        if stored is not None:
            with suppress(Exception):
                built.delete(stored)
        return bad(check, describe(error, storage.local_options, storage.remote_options), advice)
    return good(check, _("a small file was written, read and deleted from here"))


def _check_broker() -> Finding:
    if current_app.conf.task_always_eager:
        return unclear("broker", _("tasks run eagerly, in this process"), _("Unset task_always_eager but in tests."))
    try:
        connection = publishing._connection(current_app)
        address = escape(connection.as_uri())
        if connection.transport.driver_type == "memory":
            return bad("broker", _("it is in memory: no worker ever sees a message"), _("Set CELERY_BROKER_URL."))
        with connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
    except Exception as error:
        return bad("broker", describe(error), _("Start it, or correct CELERY_BROKER_URL; files wait for the sweep."))
    return good("broker", _("%s answers") % address)


def _check_workers(storages: list[StoragePair]) -> Iterator[Finding]:
    if current_app.conf.task_always_eager:
        return
    try:
        with publishing._connection(current_app) as connection:
            tasks: dict[str, list[str]] = {}
            for seconds in PATIENCE:
                inspect = current_app.control.inspect(timeout=seconds, connection=connection)
                tasks = inspect.registered() or {}
                if tasks:
                    break
            queues = inspect.active_queues() if tasks else None
    except Exception as error:
        yield bad("workers", describe(error), _("See whether the broker lets workers be asked."))
        return
    if not tasks:
        app = current_app.main or "yourproject"
        advice = _("Start one: celery -A %s worker") % escape(app)
        yield bad("workers", _("none answered within 10 seconds"), advice)
        return
    shown = {"count": len(tasks), "names": ", ".join(escape(name) for name in sorted(tasks))}
    yield good("workers", _("%(count)d answered: %(names)s") % shown)
    # Who answered one question may be too busy for the next one.
    listened = None if not queues else {queue["name"] for worker in queues.values() for queue in worker or ()}
    for storage in storages:
        yield from _check_worker_for(storage, set().union(*tasks.values()), listened)
        if listened is not None:
            yield from _check_other_hosts(storage, listened)


def _check_worker_for(storage: StoragePair, known: set[str], listened: set[str] | None) -> Iterator[Finding]:
    check, task = _("workers for %s") % escape(storage.alias), storage.task
    names = {name.split(" ")[0] for name in known}
    queue = nodes.queue_at(storage, settings.QUEUED_STORAGE_NODE) or current_app.conf.task_default_queue
    if isinstance(task, Task) and task.name not in names:
        advice = _("Have the worker import its module, and restart workers after a change.")
        yield bad(check, _("no worker knows the task %s") % task.name, advice)
    elif listened is None:
        yield unclear(check, _("they know its task, and none said within 2 seconds which queues it listens to"))
    elif queue not in listened:
        advice = _("Start one with -Q %s.") % escape(queue)
        yield bad(check, _("no worker listens to the queue %s") % escape(queue), advice)
    else:
        yield good(check, _("they know its task and listen to the queue %s") % escape(queue))


def _check_other_hosts(storage: StoragePair, listened: set[str]) -> Iterator[Finding]:
    # Where the queue follows the host, files may wait for one whose worker is gone, or for a host that is.
    if nodes.PLACEHOLDER not in (nodes.queue_pattern(storage) or ""):
        return
    rows = ledger.records().filter(storage=storage.alias, state=State.QUEUED)
    others = rows.exclude(node__in=["", settings.QUEUED_STORAGE_NODE]).order_by().values_list("node")
    for node, files in sorted(others.annotate(files=Count("pk"))):
        queue = nodes.queue_at(storage, node) or ""
        if queue not in listened:
            facts = {"files": files, "node": escape(node), "queue": escape(queue)}
            text = _("%(files)s files lie on the disk of %(node)s, and no worker listens to its queue %(queue)s")
            advice = _("Start one on %(node)s with -Q %(queue)s. If the host is gone, see the page on several hosts.")
            yield bad(_("hosts of %s") % escape(storage.alias), text % facts, advice % facts)


def _check_sweep() -> Finding:
    age = probes.sweep_age()
    if age is not None and age <= SWEEP_AGE:
        return good("sweep", _("it ran %s") % probes.sweep_text(age))
    advice = _(
        "Run celery beat with queued_storage.conf.BEAT_SCHEDULE, or manage.py queued_storage_sweep every minute from "
        "cron: without it a lost message is never sent again."
    )
    return bad(heartbeat.SWEEP, _("it last ran %s") % probes.sweep_text(age), advice)


def _check_limits(storages: list[StoragePair]) -> Iterator[Finding]:
    for storage in storages:
        if storage.limited and (figure := backlog.look(storage)).reaches(storage):
            text = _("it owes %(files)d files, %(bytes)d bytes, as much as it may")
            advice = _("Start more workers, or raise max_owed_files or max_owed_bytes.")
            check = _("limits of %s") % escape(storage.alias)
            yield bad(check, text % {"files": figure.files, "bytes": figure.bytes}, advice)


def _check_ledger(chosen: str | None) -> Iterator[Finding]:
    storages, total = summarize(chosen, transferred=False)
    troubles = {
        _("%d files have failed"): (total.states["failed"].files, "queued_storage_retry --all --dry-run"),
        _("%d files have used up their retries"): (total.stalled, "queued_storage_run"),
    }
    for text, (count, command) in troubles.items():
        if count:
            advice = _("See why, and have them tried again: manage.py %s") % command
            yield unclear("ledger", text % count, advice)
    for summary in storages:
        alias = escape(summary.storage)
        if summary.down_since:
            facts = {"storage": alias, "moment": f"{summary.down_since:%Y-%m-%d %H:%M}"}
            yield bad("ledger", _("the remote of %(storage)s has been down since %(moment)s") % facts, "")
        if summary.paused_since:
            advice = _("Run manage.py queued_storage_resume %s.") % alias
            yield unclear("ledger", _("%s is paused") % alias, advice)
    if not total.states["failed"].files and not total.stalled:
        yield good("ledger", _("%d files are owed, none has failed or stalled") % total.owed.files)
