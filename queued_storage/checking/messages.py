"""Every message of the system checks, one function each; the text says what is wrong, the hint what to type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.core.checks import Error, Warning  # noqa: A004 Django's name for it
from django.utils.translation import gettext as _


def e001(place: str, side: str, path: str, error: str, extra: str | None) -> Error:
    """Report a path of a local or remote storage that cannot be imported; ``extra`` would bring what it needs."""
    hint = _('Write a dotted path, such as %(side)s="myproject.storages.MyStorage", or an alias of STORAGES.')
    if extra is not None:
        hint = _("Run: pip install 'django-queued-storage[%(extra)s]'")
    return Error(
        _("The %(side)s storage %(path)r cannot be imported: %(error)s.")
        % {"side": side, "path": path, "error": error},
        hint=hint % {"side": side, "extra": extra},
        obj=place,
        id="queued_storage.E001",
    )


def e002(place: str, what: str, error: str) -> Error:
    """Report a storage that cannot be built."""
    return Error(
        _("%(what)s cannot be built: %(error)s") % {"what": what, "error": error},
        hint=_("Correct its options in %(place)s.") % {"place": place},
        obj=place,
        id="queued_storage.E002",
    )


def e003(place: str, error: str) -> Error:
    """Report a task that is not there, or is no task."""
    return Error(
        error,
        hint=_('Write a path such as task="queued_storage.tasks.TransferAndDelete".'),
        obj=place,
        id="queued_storage.E003",
    )


def e004(place: str, task: str, app: str) -> Error:
    """Report a task that belongs to another Celery app: the workers of this one would refuse its messages."""
    return Error(
        _("The Celery app %(app)r does not know the task %(task)r.") % {"app": app, "task": task},
        hint=_("Define it with @celery.shared_task, or as a subclass of queued_storage.tasks.Transfer."),
        obj=place,
        id="queued_storage.E004",
    )


def e005(message: str, doc: str) -> Error:
    """Report a setting with a value that cannot be used; ``message`` says what to write."""
    return Error(message, hint=doc, obj="settings", id="queued_storage.E005")


def e006(alias: str, known: Iterable[str]) -> Error:
    """Report a cache alias that CACHES does not have."""
    return Error(
        _("QUEUED_STORAGE_CACHE names the cache %(alias)r, which is not in CACHES.") % {"alias": alias},
        hint=_("Write one of %(known)s, or None for no cache.") % {"known": ", ".join(repr(name) for name in known)},
        obj="settings",
        id="queued_storage.E006",
    )


def e007() -> Error:
    """Report a cache that may outlive a deleted record: its name is handed out again while the cache says "gone"."""
    return Error(
        _(
            "QUEUED_STORAGE_CACHE_TIMEOUT is not shorter than QUEUED_STORAGE_PRUNE_AFTER: a new file could get the "
            "name of a deleted one while the cache still answers for that."
        ),
        hint=_("Set QUEUED_STORAGE_CACHE_TIMEOUT = timedelta(days=1), QUEUED_STORAGE_PRUNE_AFTER = timedelta(days=7)."),
        obj="settings",
        id="queued_storage.E007",
    )


def e008(place: str, other: str, alias: str, differences: Sequence[str]) -> Error:
    """Report two different storages under one alias: a worker would use either for the files of both."""
    return Error(
        _("The alias %(alias)r is also that of %(other)s, with another %(differences)s.")
        % {"alias": alias, "other": other, "differences": ", ".join(differences)},
        hint=_('Give each storage an alias of its own, such as alias="documents".'),
        obj=place,
        id="queued_storage.E008",
    )


def e009(place: str, other: str, alias: str, other_alias: str) -> Error:
    """Report two storages that write to one remote place: neither knows of the files of the other."""
    return Error(
        _("The storage %(alias)r writes to the same remote place as %(other_alias)r in %(other)s.")
        % {"alias": alias, "other_alias": other_alias, "other": other},
        hint=_('Give each a place of its own, such as remote_options={"location": "documents"}, or share one storage.'),
        obj=place,
        id="queued_storage.E009",
    )


def e010(place: str, local: str, remote: str) -> Error:
    """Report a remote that lies in the local storage or the other way round: files would meet their own copies."""
    return Error(
        _("The local storage (%(local)s) and the remote one (%(remote)s) share a place.")
        % {"local": local, "remote": remote},
        hint=_('Set different directories, such as local_options={"location": "/srv/incoming"}.'),
        obj=place,
        id="queued_storage.E010",
    )


def e011(place: str, base_url: str) -> Error:
    """Report files that are private on the remote, whose URLs are signed, and public while they are local."""
    return Error(
        _("The remote signs its URLs, but until a file is transferred everybody can read it under %(base_url)s.")
        % {"base_url": base_url},
        hint=_(
            'For public files set "querystring_auth": False in remote_options. For private ones set local_options='
            '{"location": ...} to a directory outside of MEDIA_ROOT, and add path("files/", '
            'include("queued_storage.urls")) to the URLs of the project.'
        ),
        obj=place,
        id="queued_storage.E011",
    )


def e012(place: str, side: str) -> Error:
    """Report a side that is a queued storage itself: files would be queued for ever, or call themselves."""
    return Error(
        _("The %(side)s storage is itself a queued storage.") % {"side": side},
        hint=_("Write the %(side)s storage that is meant in the end.") % {"side": side},
        obj=place,
        id="queued_storage.E012",
    )


def w001(name: str, close: str | None) -> Warning:
    """Report a setting that nobody reads: most likely a slip of the pen."""
    hint = _("Did you mean %(close)s?") if close else _("Remove %(name)s.")
    return Warning(
        _("There is no setting %(name)s.") % {"name": name},
        hint=hint % {"close": close, "name": name},
        obj="settings",
        id="queued_storage.W001",
    )


def w002(place: str, alias: str) -> Warning:
    """Report a storage whose alias is made from its options: another option, and its records are nobody's."""
    return Warning(
        _("This storage has no name of its own; its records are kept under %(alias)r, which changes with its options.")
        % {"alias": alias},
        hint=_('Write alias="%(alias)s", or move the storage to STORAGES and use storages["..."].') % {"alias": alias},
        obj=place,
        id="queued_storage.W002",
    )


def w003(place: str, option: str) -> Warning:
    """Report a remote that replaces what lies under a name, be it ours or not."""
    return Warning(
        _("The remote storage overwrites files of the same name."),
        hint=_('Set "%(option)s": False in remote_options.') % {"option": option},
        obj=place,
        id="queued_storage.W003",
    )


def w004(alias: str, backend: str, reason: str) -> Warning:
    """Report a cache that does not reach the other processes."""
    return Warning(
        _("The cache %(alias)r is a %(backend)s: %(reason)s.") % {"alias": alias, "backend": backend, "reason": reason},
        hint=_(
            'Use a shared one, such as "django.core.cache.backends.redis.RedisCache", or QUEUED_STORAGE_CACHE = None.'
        ),
        obj="settings",
        id="queued_storage.W004",
    )


def w005() -> Warning:
    """Report workers that would unpickle whatever the broker hands them."""
    return Warning(
        _("Celery accepts pickled messages: whoever can write to the broker can run code in the workers."),
        hint=_('Set CELERY_ACCEPT_CONTENT = ["json"].'),
        obj="settings",
        id="queued_storage.W005",
    )


def w006(app: str, url: str | None) -> Warning:
    """Report a Celery app whose messages reach nobody."""
    text = _("The Celery app %(app)r has no broker: only the sweep moves files.")
    if url:
        text = _(
            "The Celery app %(app)r keeps its messages in the memory of one process (%(url)s): only the sweep moves "
            "files."
        )
    return Warning(
        text % {"app": app, "url": url},
        hint=_('Set CELERY_BROKER_URL = "redis://localhost", and import the Celery app in the project\'s __init__.py.'),
        obj="settings",
        id="queued_storage.W006",
    )


def w007() -> Warning:
    """Report a project without a sweep: what is lost on the way, or fails once, stays where it is."""
    return Warning(
        _("No sweep is scheduled: files whose message or worker is lost are not transferred."),
        hint=_(
            "Add **queued_storage.conf.BEAT_SCHEDULE to CELERY_BEAT_SCHEDULE and run celery beat; or have cron run "
            '"manage.py queued_storage_sweep" and set SILENCED_SYSTEM_CHECKS = ["queued_storage.W007"].'
        ),
        obj="settings",
        id="queued_storage.W007",
    )


def w008(alias: str, counts: str) -> Warning:
    """Report records that no storage of the settings answers for."""
    return Warning(
        _("The ledger has records of the storage %(alias)r, which is not configured: %(counts)s.")
        % {"alias": alias, "counts": counts},
        hint=_('Put "%(alias)s" back into STORAGES, or alias="%(alias)s" onto its field.') % {"alias": alias},
        obj="ledger",
        id="queued_storage.W008",
    )


def w009() -> Warning:
    """Report naive times, which are ambiguous when the clocks change."""
    return Warning(
        _("USE_TZ is False: the times of the ledger jump when the clocks change."),
        hint=_("Set USE_TZ = True."),
        obj="settings",
        id="queued_storage.W009",
    )


def w010(place: str, path: str) -> Warning:
    """Report Django's own file system storage as the place where the only copy of a file lies."""
    return Warning(
        _(
            "The local storage %(path)r does not sync files to the disk, and shows them half written: after a crash a "
            "file may be short or gone although it was saved."
        )
        % {"path": path},
        hint=_('Write local="queued_storage.local.LocalStorage"; it takes the same options.'),
        obj=place,
        id="queued_storage.W010",
    )


def w011(place: str, task: str, module: str) -> Warning:
    """Report a task in a module that workers do not import: they would throw its messages away."""
    return Warning(
        _("Workers do not import %(module)r by themselves and may not know the task %(task)r.")
        % {"module": module, "task": task},
        hint=_('Move it to the tasks.py of an installed app, or set CELERY_IMPORTS = ["%(module)s"].')
        % {"module": module},
        obj=place,
        id="queued_storage.W011",
    )


def w012(alias: str) -> Warning:
    """Report an SQLite where writers fail at once in place of waiting for their turn."""
    return Warning(
        _("The database %(alias)r is SQLite with deferred transactions: web and worker can lock each other out.")
        % {"alias": alias},
        hint=_('Set DATABASES["%(alias)s"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}.')
        % {"alias": alias},
        obj="settings",
        id="queued_storage.W012",
    )


def w013(alias: str) -> Warning:
    """Report a ledger without tables.

    No error, although nothing can be saved: ``migrate`` itself runs the checks first, and would refuse to help.
    """
    return Warning(
        _("The database %(alias)r lacks the tables of the ledger.") % {"alias": alias},
        hint=_("Run: manage.py migrate queued_storage --database %(alias)s") % {"alias": alias},
        obj="ledger",
        id="queued_storage.W013",
    )


def w014() -> Warning:
    """Report that django-celery-beat is there and the sweep is not, or was switched off, in its tables."""
    return Warning(
        _("django-celery-beat has no enabled periodic task for the sweep."),
        hint=_("Run: manage.py queued_storage_schedule"),
        obj="ledger",
        id="queued_storage.W014",
    )


def w015(place: str, node: str, queue: str) -> Warning:
    """Report hosts with disks of their own whose messages go to one queue: most reach a worker without the file."""
    return Warning(
        _(
            "QUEUED_STORAGE_NODE is %(node)r, so only this host can transfer its files, but the queue %(queue)r does "
            "not follow the host."
        )
        % {"node": node, "queue": queue},
        hint=_(
            'Set QUEUED_STORAGE_QUEUE = "transfers-{node}", as it stands, and run a worker for that queue on each '
            "host. Where hosts share the local disk, remove QUEUED_STORAGE_NODE."
        ),
        obj=place,
        id="queued_storage.W015",
    )


def w016(place: str, queue: str) -> Warning:
    """Report a queue for each host on a host without a name: its files would be everybody's, and found by nobody."""
    return Warning(
        _("The queue %(queue)r follows the host, and this host has no name.") % {"queue": queue},
        hint=_(
            "Set QUEUED_STORAGE_NODE = socket.gethostname(). A host that takes no files, such as one for beat alone, "
            'may do without: SILENCED_SYSTEM_CHECKS = ["queued_storage.W016"].'
        ),
        obj=place,
        id="queued_storage.W016",
    )
