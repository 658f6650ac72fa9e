"""A configured pair of storages: which two, under which alias, by which rules. Does no I/O."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage, storages
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from queued_storage import conf, discovery
from queued_storage.conf import settings
from queued_storage.discovery import Broken, Found
from queued_storage.exceptions import ErrorKind, StorageConfigurationError, TransferError
from queued_storage.redaction import describe, without_secrets

ALIAS_LENGTH = 100


class UnknownStorageError(TransferError):
    """No usable storage has the alias of this record: mend STORAGES, or the field, on the workers too."""

    kind = ErrorKind.SETTINGS


class StoragePair(Storage):
    """The configuration of a queued storage; a subclass gives defaults by class attributes of the same names.

    Raises ``StorageConfigurationError`` for what can be seen without importing the two storages; the system checks
    find the rest. The storages themselves are built at their first use.
    """

    local_options: Mapping[str, Any] = {}
    remote_options: Mapping[str, Any] = {}
    cache_prefix: str | None = None
    delayed: bool | timedelta = False
    keep_local: bool | timedelta | str | None = None
    queue: str | None = None
    overwrite: bool = False
    verify: str | None = None
    staleness: timedelta | None = None
    links: bool | None = None
    max_owed_files: int | None = None
    max_owed_bytes: int | str | None = None
    when_full: str = "signal"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # ``local = "dotted.path"`` on a subclass is a default; on an instance ``local`` is the storage itself.
        for name in ("local", "remote", "task"):
            if name in vars(cls) and not isinstance(vars(cls)[name], (property, cached_property)):
                setattr(cls, f"default_{name}", vars(cls)[name])
                delattr(cls, name)

    if TYPE_CHECKING:
        # Any, so that a typed subclass may write ``remote = "dotted.path"``.
        local: Any
        remote: Any
        task: Any

        def send_to_foreign_task(self, record: Any) -> Any:
            """Call the task of the storage, which is not ours."""
    else:
        local = property(lambda self: self._build("local"), doc="The fast storage that takes the file at once.")
        remote = property(lambda self: self._build("remote"), doc="The storage that the file is moved to.")

    default_local: Any = None
    default_remote: Any = None
    default_task: Any = "queued_storage.tasks.Transfer"

    def __init__(
        self,
        local: str | None = None,
        remote: str | None = None,
        local_options: Mapping[str, Any] | None = None,
        remote_options: Mapping[str, Any] | None = None,
        cache_prefix: str | None = None,
        delayed: bool | timedelta | None = None,
        task: str | None = None,
        *,
        alias: str | None = None,
        keep_local: bool | timedelta | str | None = None,
        queue: str | None = None,
        overwrite: bool | None = None,
        verify: str | None = None,
        staleness: timedelta | None = None,
        links: bool | None = None,
        max_owed_files: int | None = None,
        max_owed_bytes: int | str | None = None,
        when_full: str | None = None,
    ) -> None:
        given = (local_options, remote_options, cache_prefix, delayed, task, keep_local, queue, overwrite, verify)
        more = (staleness, links, max_owed_files, max_owed_bytes, when_full)
        if (left_out := self._left_out(alias, local, remote, *given, *more)) is not None:
            StoragePair.__init__(self, **left_out)
            return
        self.local_path = self._path("local", local if local is not None else self.default_local)
        self.remote_path = self._path("remote", remote if remote is not None else self.default_remote)
        self.local_options = self._options("local", self.local_path, local_options, type(self).local_options)
        self.remote_options = self._options("remote", self.remote_path, remote_options, type(self).remote_options)
        self.task_path = task if task is not None else self.default_task
        self._alias = self._checked_alias(alias)
        for name, value in (
            ("cache_prefix", cache_prefix),
            ("delayed", delayed),
            ("keep_local", keep_local),
            ("queue", queue),
            ("overwrite", overwrite),
            ("verify", verify),
            ("staleness", staleness),
            ("links", links),
            ("max_owed_files", max_owed_files),
            ("max_owed_bytes", max_owed_bytes),
            ("when_full", when_full),
        ):
            setattr(self, name, getattr(type(self), name) if value is None else value)
        self._check_rules()

    def _left_out(self, alias: object, local: object, remote: object, *given: object) -> dict[str, Any] | None:
        # Somebody builds a storage anew from what deconstruct() says, without its options: they stand in STORAGES.
        entry = django_settings.STORAGES.get(alias, {}) if isinstance(alias, str) else {}
        if any(option is not None for option in given) or not _is_class(entry.get("BACKEND"), type(self)):
            return None
        options = {"alias": alias, "local_options": {}, "remote_options": {}, **entry.get("OPTIONS", {})}
        sides = ((local, "local", self.default_local), (remote, "remote", self.default_remote))
        same = all((side or default) == (options.get(name) or default) for side, name, default in sides)
        return options if same else None

    def _path(self, side: str, value: Any) -> str:
        if isinstance(value, str) and value:
            return value
        kind = type(self).__name__
        example = f'{kind}({side}="myproject.storages.MyStorage", {side}_options={{...}})'
        if value is None or value == "":
            raise StorageConfigurationError(
                f"{kind} has no {side} storage. Write {example}, or an alias of STORAGES in place of the path."
            )
        raise StorageConfigurationError(
            f"{kind} takes its {side} storage by dotted path or by alias of STORAGES, not as "
            f"{'a class' if isinstance(value, type) else 'an instance'}: workers build it for themselves. "
            f"Write {example}."
        )

    def _options(self, side: str, path: str, given: object, default: object) -> dict[str, Any]:
        options = given if given is not None else default
        if options is not None and not isinstance(options, Mapping):
            raise StorageConfigurationError(f"{side}_options must be a dictionary, not {type(options).__name__}.")
        if options and path in django_settings.STORAGES:
            raise StorageConfigurationError(
                f"{side}={path!r} is an alias of STORAGES; write its options there and leave out {side}_options."
            )
        return dict(options or {})

    def _checked_alias(self, alias: object) -> str | None:
        if alias is None or (isinstance(alias, str) and 0 < len(alias) <= ALIAS_LENGTH and "\0" not in alias):
            return alias
        raise StorageConfigurationError(f"alias must be a string of 1 to {ALIAS_LENGTH} characters.")

    def _check_rules(self) -> None:
        delayed: object = self.delayed
        if not isinstance(delayed, (bool, timedelta)):
            raise StorageConfigurationError(f"delayed must be True, False or a timedelta, not {delayed!r}.")
        keep: object = self.keep_local
        try:
            known = keep is None or isinstance(keep, (bool, timedelta)) or conf.size(keep) >= 0
        except ValueError:
            known = False
        if not known:
            raise StorageConfigurationError(
                f'keep_local must be True, False, a timedelta or a size such as "20G", not {keep!r}.'
            )
        if not isinstance(self.queue or "", str):
            raise StorageConfigurationError(f'queue must be a string such as "transfers", not {self.queue!r}.')
        if self.verify not in (None, "auto", "read", "size"):
            raise StorageConfigurationError(f'verify must be "auto", "read" or "size", not {self.verify!r}.')
        self._check_limits()
        if not isinstance(self.task_path, str) and not hasattr(self.task_path, "delay"):
            raise StorageConfigurationError("task must be the dotted path of a Celery task.")

    def _check_limits(self) -> None:
        for name, read in (("max_owed_files", conf.positive), ("max_owed_bytes", conf.quantity)):
            try:
                conf.optional(read)(getattr(self, name))
            except ValueError as error:
                raise StorageConfigurationError(f"{name}={getattr(self, name)!r}: {error}.") from None
        if self.when_full not in ("signal", "refuse", "write_through"):
            raise StorageConfigurationError(
                f'when_full must be "signal", "refuse" or "write_through", not {self.when_full!r}.'
            )
        if self.when_full != "signal" and not self.limited:
            raise StorageConfigurationError(f"when_full={self.when_full!r} needs max_owed_files or max_owed_bytes.")

    @cached_property
    def alias(self) -> str:
        """The name of this storage in the ledger: as given, else its alias in STORAGES, else made from its settings."""
        name = self._alias or self._alias_in_settings() or self._derived_alias()
        _instances.setdefault(name, self)
        return name

    @property
    def named(self) -> bool:
        """Whether the alias was given, or stands in STORAGES, and so survives a change of the options."""
        return bool(self._alias or self._alias_in_settings())

    def configuration(self) -> tuple[Any, ...]:
        """Return what makes two storages the same one."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, self.local_path, self.remote_path, self.local_options, self.remote_options, self.cache_prefix

    def _alias_in_settings(self) -> str | None:
        found = {each.entry: each.storage for each in discovery.in_settings(StoragePair) if isinstance(each, Found)}
        itself = (alias for alias, other in found.items() if other is self)
        equal = (alias for alias, other in found.items() if other.configuration() == self.configuration())
        return next(itself, None) or next(equal, None)

    def _derived_alias(self) -> str:
        # Without secrets, so that a new password does not orphan the records.
        path, local, remote, local_options, remote_options, prefix = self.configuration()
        facts = [path, local, remote, without_secrets(local_options), without_secrets(remote_options), prefix]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=_stable).encode()).hexdigest()
        return f"{type(self).__name__[:80]}-{digest[:12]}"

    def _build(self, side: str) -> Storage:
        built: Storage | None = self.__dict__.get(f"_{side}")
        if built is not None:
            return built
        path: str = getattr(self, f"{side}_path")
        if path in django_settings.STORAGES:
            return storages[path]
        built = load(path)(**getattr(self, f"{side}_options"))
        self.__dict__[f"_{side}"] = built
        return built

    @property
    def overwrites(self) -> bool:
        """Whether a save under a taken name replaces the file: asked for, or because the local storage does so."""
        return bool(self.overwrite or self.local_overwrites)

    @property
    def local_overwrites(self) -> bool:
        """Whether the local storage itself would write over an existing file."""
        return bool(getattr(self.local, "_allow_overwrite", False) or getattr(self.local, "file_overwrite", False))

    @property
    def evict_after(self) -> timedelta | None:
        """How long after the transfer the local copy is removed; ``None`` keeps it.

        ``keep_local`` decides: True, False or a ``timedelta``; where it is not given, the task does. A size sets no
        time: see ``keep_bytes``.
        """
        keep = self.keep_local if self.keep_local is not None else getattr(self.task, "keep_local", True)
        if isinstance(keep, timedelta):
            return keep
        return None if keep else timedelta(0)

    @property
    def keep_bytes(self) -> int | None:
        """Up to how many bytes lie on the local side before the oldest copies go; ``None`` sets no limit."""
        return conf.size(self.keep_local) if isinstance(self.keep_local, str) else None

    @property
    def limited(self) -> bool:
        """Whether there is a limit to what this storage may owe."""
        return self.max_owed_files is not None or self.max_owed_bytes is not None

    @property
    def max_owed_size(self) -> int | None:
        """How many bytes this storage may owe; ``None`` sets no limit."""
        return conf.optional(conf.quantity)(self.max_owed_bytes)

    @property
    def verification(self) -> str:
        """How transfers are verified: of this storage, else QUEUED_STORAGE_VERIFY."""
        return self.verify or settings.QUEUED_STORAGE_VERIFY

    @property
    def prefix(self) -> str:
        """The prefix of this storage's cache keys."""
        return self.cache_prefix or settings.QUEUED_STORAGE_CACHE_PREFIX

    def deconstruct(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Describe the storage for a migration: without any option, because options hold secrets."""
        kwargs: dict[str, Any] = {"local": self.local_path, "remote": self.remote_path}
        if self.named:
            kwargs["alias"] = self.alias
        return f"{type(self).__module__}.{type(self).__qualname__}", (), kwargs

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias}: {self.local_path} to {self.remote_path}>"


def _is_class(path: Any, cls: type) -> bool:
    try:
        return (import_string(path) if isinstance(path, str) else path) is cls
    except ImportError:
        return False


# The extra that brings what a backend of django-storages needs.
EXTRAS = {
    "storages.backends.azure_storage": "azure",
    "storages.backends.dropbox": "dropbox",
    "storages.backends.gcloud": "google",
    "storages.backends.s3": "s3",
    "storages.backends.sftpstorage": "sftp",
}


def load(path: str) -> Any:
    """Return the storage class at a dotted path; raises ``StorageConfigurationError`` that says what to install."""
    try:
        return import_string(path)
    except StorageConfigurationError:
        raise
    except (ImportError, ImproperlyConfigured) as error:
        extra = EXTRAS.get(path.rpartition(".")[0])
        advice = f"Run pip install 'django-queued-storage[{extra}]'." if extra else "Correct the path, or install it."
        raise StorageConfigurationError(f"{path} cannot be imported: {error}. {advice}") from error


def _stable(value: Any) -> str:
    # No repr(): it may hold an address, and the alias must be the same in every process.
    cls = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return f"{cls.__module__}.{cls.__qualname__}" if cls is value else f"{cls.__qualname__}:{value}"


# Storages that are neither in STORAGES nor on a field, for as long as somebody holds them.
_instances: weakref.WeakValueDictionary[str, StoragePair] = weakref.WeakValueDictionary()


def discover() -> Iterator[Found[StoragePair] | Broken]:
    """Yield every queued storage of this project once with its place, and the entries of STORAGES that are broken."""
    return discovery.discover(StoragePair)


def configured() -> Iterator[StoragePair]:
    """Yield every queued storage of this project that can be built."""
    return (found.storage for found in discover() if isinstance(found, Found))


def aliases() -> list[str]:
    """Return the aliases of all queued storages that the settings name, sorted, broken ones included."""
    return sorted({found.entry if isinstance(found, Broken) else found.storage.alias for found in discover()})


def pair_for(alias: str) -> StoragePair:
    """Return the storage of a record from this process's own settings.

    Raises ``UnknownStorageError`` if none has the alias, or its entry in STORAGES cannot be built.
    """
    entry = django_settings.STORAGES.get(alias)
    try:
        if entry is not None and discovery.names(entry.get("BACKEND"), StoragePair):
            storage = storages[alias]
            if isinstance(storage, StoragePair) and storage.alias == alias:
                return storage
    except Exception as error:
        text = f"STORAGES[{alias!r}] cannot be built: {describe(error)}; run manage.py check, here and on every worker"
        raise UnknownStorageError(text) from error
    if alias not in _by_alias:
        _by_alias.update({storage.alias: storage for storage in reversed(list(configured()))})
    found = _by_alias.get(alias) or _instances.get(alias)
    if found is None:
        raise UnknownStorageError(
            f"no queued storage has the alias {alias!r}: put it back into STORAGES or onto its field, here and on "
            "every worker"
        )
    return found


# What is configured under which alias, collected at the first question: fields do not change afterwards.
_by_alias: dict[str, StoragePair] = {}


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("STORAGES", "INSTALLED_APPS"):
        _by_alias.clear()
