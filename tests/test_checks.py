"""The system checks: each message once where it belongs, and not where it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, run_checks
from django.core.files.storage import FileSystemStorage, Storage, default_storage

from queued_storage import schedule
from queued_storage.backends import QueuedStorage
from queued_storage.conf import BEAT_SCHEDULE, Settings
from tests.app.models import Document, Photo
from tests.celeryapp import app
from tests.factories import RecordFactory
from tests.servers import databases
from tests.servers.brokers import changed, configure
from tests.servers.roots import fresh

ELSEWHERE = Celery("elsewhere", set_as_current=False)
SECRET = "hunter2-is-no-password"
GOOD = deepcopy(django_settings.STORAGES["default"]["OPTIONS"])


@ELSEWHERE.task(shared=False)
def foreign() -> None:
    """Belong to another Celery app."""


class NoTask:
    """Have no ``delay``."""


class Delayable:
    """Have nothing but ``delay``, as tasks of other queues do."""

    def delay(self, *args: Any) -> None:
        """Do nothing."""


delayable = Delayable()


class Fragile(FileSystemStorage):
    """A storage that fails to build and says its password, as some do."""

    def __init__(self, location: str, password: str) -> None:
        raise RuntimeError(f"cannot log in with {password}")


class Network(Storage):
    """A storage that is asked anything: a check must not."""

    def __getattr__(self, name: str) -> Any:
        if name == "connection":
            raise AssertionError("a check opened a connection")
        raise AttributeError(name)

    def exists(self, name: str) -> bool:
        raise AssertionError("a check asked the server")

    listdir = size = url = delete = exists  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def celery_configuration() -> Iterator[Callable[..., None]]:
    """Change the Celery app's configuration for the time of a test; the sweep is scheduled."""
    with changed(app, beat_schedule=BEAT_SCHEDULE):
        yield partial(configure, app)


def queued(**options: Any) -> dict[str, Any]:
    """Return an entry of STORAGES for a good queued storage but for ``options``."""
    return {"BACKEND": "queued_storage.backends.QueuedStorage", "OPTIONS": {**deepcopy(GOOD), **options}}


def s3(**options: Any) -> dict[str, Any]:
    """Return the options of a queued storage with an S3 remote."""
    remote_options = {"bucket_name": "b", "file_overwrite": False, "querystring_auth": False, **options}
    return {"remote": "storages.backends.s3.S3Storage", "remote_options": remote_options}


def storage(**options: Any) -> QueuedStorage:
    """Return the storage of such an entry."""
    return QueuedStorage(**queued(**options)["OPTIONS"])


def found(deploy: bool = False, databases: list[str] | None = None) -> list[CheckMessage]:
    """Return what the package's checks find, as ``manage.py check`` runs them."""
    tags = ["queued_storage", "database"] if databases else ["queued_storage"]
    messages = run_checks(tags=tags, include_deployment_checks=deploy, databases=databases)
    return [message for message in messages if str(message.id).startswith("queued_storage.")]


def texts(messages: list[CheckMessage]) -> list[str]:
    """Return messages as they are printed, without ``queued_storage.``."""
    return [str(message).replace("(queued_storage.", "(").replace("\n\tHINT: ", " -> ") for message in messages]


def ids(messages: list[CheckMessage]) -> list[str]:
    """Return the short ids of messages."""
    return [str(message.id).removeprefix("queued_storage.") for message in messages]


@pytest.fixture
def on_field(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put storages on the fields of the test app's models."""

    def put(document: Storage, photo: Storage | None = None) -> None:
        monkeypatch.setattr(Document._meta.get_field("file"), "storage", document)
        if photo is not None:
            monkeypatch.setattr(Photo._meta.get_field("image"), "storage", photo)

    return put


@pytest.fixture
def only(settings: Any) -> Any:
    """Make a queued storage with these options the only one of the project."""

    def set_default(**options: Any) -> None:
        settings.STORAGES = {**settings.STORAGES, "default": queued(**options)}

    return set_default


def test_a_sound_project_hears_nothing() -> None:
    """The checks are silent where there is nothing to say."""
    assert texts(found()) == []


def test_a_check_asks_no_server(only: Any) -> None:
    """Neither the remote nor its client is used."""
    only(remote="tests.test_checks.Network", remote_options={})
    assert ids(found()) == []
    found(deploy=True)
    only(**s3(endpoint_url="http://192.0.2.1:9", access_key="a", secret_key="b"))
    assert ids(found()) == []


@pytest.mark.parametrize("side", ["local", "remote"])
def test_e001_a_path_that_cannot_be_imported(only: Any, side: str) -> None:
    """A slip in a path is an error that names the side and the path."""
    only(**{side: "myproject.storages.Missing", f"{side}_options": {}})
    assert texts(found()) == [
        f"STORAGES[\"default\"]: (E001) The {side} storage 'myproject.storages.Missing' cannot be imported: "
        f"No module named 'myproject'. -> Write a dotted path, such as {side}=\"myproject.storages.MyStorage\", "
        "or an alias of STORAGES."
    ]


@pytest.mark.parametrize(
    ("remote", "library", "extra"),
    [
        ("storages.backends.dropbox.DropboxStorage", "dropbox", "dropbox"),
        ("queued_storage.remotes.gridfs.GridFSStorage", "gridfs", "gridfs"),
    ],
)
def test_e001_names_the_extra_of_a_remote(
    only: Any, monkeypatch: pytest.MonkeyPatch, remote: str, library: str, extra: str
) -> None:
    """A missing library comes with the command that installs it."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, remote.rpartition(".")[0], raising=False)
    only(remote=remote, remote_options={})
    (text,) = texts(found())
    assert text.startswith(f"STORAGES[\"default\"]: (E001) The remote storage '{remote}' cannot be imported: ")
    assert text.endswith(f" -> Run: pip install 'django-queued-storage[{extra}]'")


def test_e002_an_instance_in_place_of_a_path(only: Any) -> None:
    """A configuration that is refused when the storage is built becomes a message, not a crash."""
    only(remote=FileSystemStorage())
    assert texts(found()) == [
        'STORAGES["default"]: (E002) The storage cannot be built: QueuedStorage takes its remote storage by dotted '
        "path or by alias of STORAGES, not as an instance: workers build it for themselves. Write "
        'QueuedStorage(remote="myproject.storages.MyStorage", remote_options={...}). '
        '-> Correct its options in STORAGES["default"].'
    ]


def test_e002_a_limit_that_is_none(only: Any) -> None:
    """So does a limit on what is owed that cannot be read."""
    only(max_owed_bytes="much")
    assert texts(found()) == [
        "STORAGES[\"default\"]: (E002) The storage cannot be built: max_owed_bytes='much': write a size such as 500M, "
        '20G or 1T. -> Correct its options in STORAGES["default"].'
    ]


def test_e002_an_option_that_the_storage_does_not_know(only: Any) -> None:
    """A wrong option of a side names the side."""
    only(remote_options={"bucket": "b"})
    (text,) = texts(found())
    assert text.startswith(
        "STORAGES[\"default\"]: (E002) The remote storage 'django.core.files.storage.FileSystemStorage' cannot be "
        "built: TypeError: "
    )


@pytest.mark.parametrize("backend", ["queued_storage.backends.QueuedStorge", "queued_storage.backends.missing.X"])
def test_e002_a_class_of_ours_that_is_not_there(settings: Any, backend: str) -> None:
    """A slip in the path of the storage itself is found, too."""
    settings.STORAGES = {**settings.STORAGES, "typo": {"BACKEND": backend}}
    assert ids(found()) == ["E002"]


def test_e002_leaves_other_storages_to_others(settings: Any) -> None:
    """An entry of STORAGES that nobody can import, and that is not ours, is not ours to report."""
    settings.STORAGES = {**settings.STORAGES, "typo": {"BACKEND": "myproject.storages.Missing"}}
    assert ids(found()) == []


def test_e002_keeps_secrets(only: Any) -> None:
    """The text of an error loses the passwords that stand in the options."""
    only(remote="tests.test_checks.Fragile", remote_options={"location": "/x", "password": SECRET})
    (text,) = texts(found())
    assert SECRET not in text
    assert "RuntimeError: cannot log in with ********" in text


def test_e002_does_not_hide_other_storages(settings: Any) -> None:
    """One storage that cannot be built keeps no other from being checked, whichever comes first."""
    broken, overwriting = queued(remote=5), queued(remote_options={"location": "/r", "allow_overwrite": True})
    for entries in ({"a": broken, "b": overwriting}, {"a": overwriting, "b": broken}):
        settings.STORAGES = {**entries, "staticfiles": settings.STORAGES["staticfiles"]}
        assert sorted(ids(found())) == ["E002", "W003"]


@pytest.mark.parametrize(
    "task", ["myproject.tasks.Missing", "queued_storage.tasks.Trasnfer", "tests.test_checks.NoTask"]
)
def test_e003_a_task_that_is_none(only: Any, task: str) -> None:
    """A task that cannot be imported, or has no delay, is an error that names it."""
    only(task=task)
    (text,) = texts(found())
    assert text.startswith(f'STORAGES["default"]: (E003) task={task!r} ')
    assert text.endswith('-> Write a path such as task="queued_storage.tasks.TransferAndDelete".')


def test_e004_a_task_of_another_celery_app(only: Any) -> None:
    """A task that the current Celery app does not know is an error."""
    only(task="tests.test_checks.foreign")
    assert texts(found()) == [
        "STORAGES[\"default\"]: (E004) The Celery app 'tests' does not know the task 'tests.test_checks.foreign'. "
        "-> Define it with @celery.shared_task, or as a subclass of queued_storage.tasks.Transfer."
    ]


def test_e004_allows_a_task_of_another_kind(only: Any) -> None:
    """What is no task of Celery's need not be known to it."""
    only(task="tests.test_checks.delayable")
    assert ids(found()) == []


BAD_VALUES = {
    "QUEUED_STORAGE_CACHE_PREFIX": 5,
    "QUEUED_STORAGE_CACHE": 5,
    "QUEUED_STORAGE_CACHE_TIMEOUT": 0,
    "QUEUED_STORAGE_UNRECORDED_TIMEOUT": "300",
    "QUEUED_STORAGE_RETRIES": -1,
    "QUEUED_STORAGE_RETRY_DELAY": timedelta(0),
    "QUEUED_STORAGE_BACKOFF_CAP": True,
    "QUEUED_STORAGE_STRIKES": 0,
    "QUEUED_STORAGE_DOWN_AFTER": 0,
    "QUEUED_STORAGE_PROBE_DELAY": -60,
    "QUEUED_STORAGE_LEASE": None,
    "QUEUED_STORAGE_RESEND_DELAY": float("nan"),
    "QUEUED_STORAGE_RESEND_CAP": float("inf"),
    "QUEUED_STORAGE_RELEASE_AFTER": "never",
    "QUEUED_STORAGE_LATE_AFTER": 0,
    "QUEUED_STORAGE_SWEEP_BATCH": 1.5,
    "QUEUED_STORAGE_THREADS": 0,
    "QUEUED_STORAGE_PRUNE_AFTER": -1,
    "QUEUED_STORAGE_ATTEMPTS_AGE": [],
    "QUEUED_STORAGE_STAGING_AGE": {},
    "QUEUED_STORAGE_OWED_AGE": 0,
    "QUEUED_STORAGE_PUBLISH_TIMEOUT": "1",
    "QUEUED_STORAGE_PUBLISH_PAUSE": -5,
    "QUEUED_STORAGE_QUEUE": 7,
    "QUEUED_STORAGE_VERIFY": "yes",
    "QUEUED_STORAGE_LINK_AGE": 0,
    "QUEUED_STORAGE_SENDFILE": None,
    "QUEUED_STORAGE_NODE": None,
    "QUEUED_STORAGE_NODE_URL": "https://files.example.com",
}


def test_every_setting_has_a_bad_value_here() -> None:
    """A new setting must be added to the test below."""
    from queued_storage.conf import settings as ours

    assert sorted(BAD_VALUES) == sorted(setting.name for setting in ours)


@pytest.mark.parametrize("name", BAD_VALUES)
def test_e005_a_value_that_cannot_be_used(settings: Any, name: str) -> None:
    """A bad value is one message that shows it and says what to write, with what the setting does as its hint."""
    setattr(settings, name, BAD_VALUES[name])
    (text,) = texts(found())
    assert text.startswith(f"settings: (E005) {name} = {BAD_VALUES[name]!r}: ")
    assert text.endswith(f" -> {vars(Settings)[name].__doc__}")
    assert "E005" in ids(found(deploy=True))


def test_e006_a_cache_that_is_not_there(settings: Any) -> None:
    """The cache alias must be one of CACHES; None is none."""
    settings.QUEUED_STORAGE_CACHE = "files"
    assert texts(found()) == [
        "settings: (E006) QUEUED_STORAGE_CACHE names the cache 'files', which is not in CACHES. "
        "-> Write one of 'default', or None for no cache."
    ]
    settings.QUEUED_STORAGE_CACHE = None
    assert ids(found()) == []


def test_e007_a_cache_that_outlives_deleted_records(settings: Any) -> None:
    """The cache must forget a name before it can be handed out again."""
    settings.QUEUED_STORAGE_CACHE_TIMEOUT = settings.QUEUED_STORAGE_PRUNE_AFTER = 60
    assert ids(found()) == ["E007"]
    settings.QUEUED_STORAGE_PRUNE_AFTER = 61
    assert ids(found()) == []


def test_e008_two_storages_under_one_alias(settings: Any, on_field: Any) -> None:
    """An alias belongs to one configuration; the message says what differs, not how."""
    on_field(storage(alias="default", remote_options={"location": "/other", "base_url": SECRET}))
    assert texts(found()) == [
        "testapp.Document.file: (E008) The alias 'default' is also that of STORAGES[\"default\"], with another "
        'remote_options. -> Give each storage an alias of its own, such as alias="documents".'
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("task", "queued_storage.tasks.TransferAndDelete"),
        ("keep_local", False),
        ("overwrite", True),
        ("max_owed_files", 5),
    ],
)
def test_e008_one_alias_with_two_rules(on_field: Any, option: str, value: Any) -> None:
    """What a worker does with a file must not depend on which of two storages it finds first."""
    on_field(storage(alias="default", **{option: value}))
    assert ids(found()) == ["E008"]


def test_e008_allows_what_only_a_save_reads(on_field: Any) -> None:
    """Two fields may share a storage although one of them holds its files."""
    on_field(storage(alias="default"), storage(delayed=True))
    assert ids(found()) == []


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ({}, {"remote_options": {"location": None, "base_url": "https://other.example/"}}),
        (s3(location="a"), s3(location="a/", custom_domain="cdn.example")),
        ({"remote": "tests.test_checks.Network", "remote_options": {}}, {"alias": "b", "keep_local": True}),
    ],
    ids=["directory", "bucket", "the same options"],
)
def test_e009_two_storages_that_write_to_one_place(settings: Any, mine: Any, other: Any) -> None:
    """Two aliases may not share a directory, a bucket's prefix, or whatever else the same options mean."""
    other = {**mine, **deepcopy(other)}
    if "location" in other.get("remote_options", {}) and other["remote_options"]["location"] is None:
        other["remote_options"]["location"] = (
            settings.STORAGES["default"]["OPTIONS"]["remote_options"]["location"] + "/."
        )
    settings.STORAGES = {**settings.STORAGES, "default": queued(**mine), "second": queued(**other)}
    assert ids(found()) == ["E009"]
    assert found()[0].obj == 'STORAGES["second"]'


def test_e009_allows_neighbours(settings: Any) -> None:
    """Two prefixes of one bucket, and one name of a bucket on two servers, are two places."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": queued(**s3(location="a")),
        "b": queued(**s3(location="b")),
        "c": queued(**s3(location="a", endpoint_url="http://192.0.2.1")),
        "d": queued(remote="django.core.files.storage.InMemoryStorage", remote_options={}),
        "e": queued(remote="django.core.files.storage.InMemoryStorage", remote_options={}),
    }
    assert ids(found()) == []


@pytest.mark.parametrize("inside", ["", "/below"])
def test_e010_local_and_remote_in_one_place(only: Any, inside: str) -> None:
    """Neither side may lie in the other one, by whatever path."""
    root = fresh("place")
    (root / "link").symlink_to(root / "here", target_is_directory=True)
    local = {"location": str(root / "here"), "base_url": "/media/"}
    only(local_options=local, remote_options={"location": f"{root}/link{inside}"})
    assert texts(found()) == [
        f'STORAGES["default"]: (E010) The local storage ({root}/here) and the remote one ({root}/here{inside}) share a '
        'place. -> Set different directories, such as local_options={"location": "/srv/incoming"}.'
    ]
    only(local_options={**local, "location": f"{root}/link{inside}"}, remote_options={"location": f"{root}/here"})
    assert ids(found()) == ["E010"]
    only(local_options=local, remote_options={"location": f"{root}/here-too"})
    assert ids(found()) == []


def test_e011_a_public_local_url_beside_a_signing_remote(only: Any) -> None:
    """A file whose remote URL is signed must not be public while it is local."""
    only(**s3(querystring_auth=True))
    (text,) = texts(found())
    assert text.startswith(
        'STORAGES["default"]: (E011) The remote signs its URLs, but until a file is transferred everybody can read it '
        'under /media/. -> For public files set "querystring_auth": False in remote_options.'
    )


def test_e011_is_silent_where_links_give_the_files_out(only: Any, settings: Any) -> None:
    """Outside of MEDIA_ROOT, with the URLs of this package, a local file is as private as a remote one."""
    settings.ROOT_URLCONF = "tests.app.urls_with_files"
    settings.MEDIA_ROOT = "/srv/media"
    only(**s3(querystring_auth=True))
    assert ids(found()) == []
    settings.MEDIA_ROOT = GOOD["local_options"]["location"]
    assert ids(found()) == ["E011"]


@pytest.mark.parametrize(
    "options",
    [
        {"querystring_auth": True, "default_acl": "public-read"},
        {"querystring_auth": True, "custom_domain": "cdn.example"},
        {"querystring_auth": False},
    ],
)
def test_e011_is_silent_where_nothing_is_signed(only: Any, options: dict[str, Any]) -> None:
    """Public files, and a custom domain without a key to sign with, are public on both sides."""
    only(**s3(**options))
    assert ids(found()) == []


@pytest.mark.parametrize("side", ["local", "remote"])
def test_e012_a_queued_storage_in_a_queued_storage(only: Any, side: str) -> None:
    """A storage that names itself is an error in place of an endless recursion."""
    only(**{side: "default", f"{side}_options": {}})
    assert ids(found()) == ["E012"]


def test_w001_a_setting_that_does_not_exist(settings: Any) -> None:
    """A slip in the name of a setting is shown with the name that was meant."""
    settings.QUEUED_STORAGE_RETRYS = 3
    settings.QUEUED_STORAGE_ZZZZ_YYYY_XXXX = 3
    assert texts(found()) == [
        "settings: (W001) There is no setting QUEUED_STORAGE_RETRYS. -> Did you mean QUEUED_STORAGE_RETRIES?",
        "settings: (W001) There is no setting QUEUED_STORAGE_ZZZZ_YYYY_XXXX. -> Remove QUEUED_STORAGE_ZZZZ_YYYY_XXXX.",
    ]


def test_w002_a_storage_without_a_name(on_field: Any) -> None:
    """An alias that is made from the options is shown, so that it can be written down."""
    unnamed = storage(remote_options={"location": "/elsewhere"})
    on_field(unnamed)
    assert texts(found()) == [
        "testapp.Document.file: (W002) This storage has no name of its own; its records are kept under "
        f"'{unnamed.alias}', which changes with its options. -> Write alias=\"{unnamed.alias}\", or move the storage "
        'to STORAGES and use storages["..."].'
    ]
    on_field(unnamed, unnamed)
    assert ids(found()) == ["W002"]
    named = storage(remote_options={"location": "/elsewhere"}, alias=unnamed.alias)
    on_field(named, named)
    assert ids(found()) == []


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (s3(file_overwrite=True), "file_overwrite"),
        ({"remote_options": {"location": "/r", "allow_overwrite": True}}, "allow_overwrite"),
    ],
)
def test_w003_a_remote_that_overwrites(only: Any, options: Any, option: str) -> None:
    """The option that makes a remote overwrite is named."""
    only(**options)
    assert texts(found()) == [
        'STORAGES["default"]: (W003) The remote storage overwrites files of the same name. '
        f'-> Set "{option}": False in remote_options.'
    ]


@pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_w004_a_cache_of_one_process(settings: Any, backend: str) -> None:
    """A cache that other processes do not share is a matter of production only."""
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}"}}
    assert ids(found()) == []
    assert ids(found(deploy=True)).count("W004") == 1
    settings.QUEUED_STORAGE_CACHE = None
    assert "W004" not in ids(found(deploy=True))


@pytest.mark.parametrize("backend", ["redis.RedisCache", "db.DatabaseCache", "misspelt.Cache"])
def test_w004_is_silent_about_other_caches(settings: Any, backend: str) -> None:
    """A cache that processes share is fine, and one that cannot be imported is for Django to report."""
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "x"}}
    assert "W004" not in ids(found(deploy=True))


def test_w005_celery_accepts_pickle(celery_configuration: Callable[..., None]) -> None:
    """Pickled messages are code of whoever writes to the broker."""
    celery_configuration(accept_content=["json", "pickle"])
    assert texts(found()) == [
        "settings: (W005) Celery accepts pickled messages: whoever can write to the broker can run code in the "
        'workers. -> Set CELERY_ACCEPT_CONTENT = ["json"].'
    ]


@pytest.mark.parametrize(
    ("url", "text"),
    [("memory://", "keeps its messages in the memory of one process (memory://)"), (None, "has no broker")],
)
def test_w006_no_broker(celery_configuration: Callable[..., None], url: str | None, text: str) -> None:
    """No broker, or one in memory, is a matter of production only."""
    celery_configuration(broker_url=url)
    assert "W006" not in ids(found())
    assert any(
        f"(W006) The Celery app 'tests' {text}: only the sweep moves files." in each
        for each in texts(found(deploy=True))
    )
    celery_configuration(broker_url="redis://127.0.0.1:1")
    assert "W006" not in ids(found(deploy=True))


def test_w007_no_sweep(settings: Any, celery_configuration: Callable[..., None]) -> None:
    """The sweep must stand in Celery's schedule, unless django-celery-beat may have it in its tables."""
    celery_configuration(beat_schedule={})
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django_celery_beat"]
    assert ids(found()) == ["W007"]
    celery_configuration(beat_schedule={"mine": {"task": schedule.TASK, "schedule": 5}})
    assert ids(found()) == []


@pytest.mark.django_db
def test_w008_records_of_a_storage_that_is_gone() -> None:
    """Records that no storage answers for are counted by state, and only when the database is asked."""
    RecordFactory.create_batch(2, storage="gone")
    RecordFactory(storage="gone", transferred=True)
    RecordFactory()
    assert ids(found()) == []
    assert texts(found(databases=["default"])) == [
        "ledger: (W008) The ledger has records of the storage 'gone', which is not configured: 2 queued, 1 "
        'transferred. -> Put "gone" back into STORAGES, or alias="gone" onto its field.'
    ]


@pytest.mark.django_db
def test_w008_knows_a_storage_that_cannot_be_built(settings: Any) -> None:
    """A storage that is only configured wrongly is not gone."""
    RecordFactory(storage="broken")
    settings.STORAGES = {**settings.STORAGES, "broken": queued(remote=5)}
    assert ids(found(databases=["default"])) == ["E002"]


def test_w009_naive_times(settings: Any) -> None:
    """Without time zones an hour comes twice a year."""
    settings.USE_TZ = False
    assert ids(found()) == ["W009"]


def test_w010_a_plain_file_system_as_local_storage(only: Any) -> None:
    """Django's own file system storage is good enough for development only."""
    only(local="django.core.files.storage.FileSystemStorage")
    assert "W010" not in ids(found())
    assert "W010" in ids(found(deploy=True))
    only()
    assert "W010" not in ids(found(deploy=True))


def test_w011_a_task_in_a_module_that_workers_do_not_import(
    only: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, celery_configuration: Callable[..., None]
) -> None:
    """A task must be where workers look, or they would throw its messages away."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("found_late", "found_early"):
        source = "from queued_storage.tasks import Transfer\n\nclass Notify(Transfer):\n    pass\n"
        (tmp_path / f"{name}.py").write_text(source)
    only(task="found_late.Notify")
    assert texts(found()) == [
        "STORAGES[\"default\"]: (W011) Workers do not import 'found_late' by themselves and may not know the task "
        "'found_late.Notify'. -> Move it to the tasks.py of an installed app, or set CELERY_IMPORTS = [\"found_late\"]."
    ]
    monkeypatch.setitem(app.loader.__dict__, "default_modules", ("found_early",))
    only(task="found_early.Notify")
    assert ids(found()) == []


@pytest.mark.skipif(
    databases.settings_for("sqlite")["ENGINE"] != django_settings.DATABASES["default"]["ENGINE"], reason="about SQLite"
)
def test_w012_sqlite_with_deferred_transactions(settings: Any) -> None:
    """Writers of SQLite must wait for their turn."""
    from django.db import connection

    options = connection.settings_dict["OPTIONS"]
    assert ids(found()) == []
    mode = options.pop("transaction_mode")
    try:
        assert ids(found()) == ["W012"]
    finally:
        options["transaction_mode"] = mode


def test_w013_missing_tables_do_not_keep_migrate_from_making_them(tmp_path: Path) -> None:
    """Before ``migrate`` the checks say what to type, ``migrate`` runs through, and afterwards they are silent."""

    def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TEST_DATABASE": f"sqlite:///{tmp_path}/new.sqlite3"}
        command = [sys.executable, "-m", "django", *arguments, "--settings", "tests.settings"]
        root = Path(__file__).parents[1]
        return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)

    before = manage("check", "--database", "default", "--tag", "database")
    assert before.returncode == 0
    assert "queued_storage.W013) The database 'default' lacks the tables of the ledger." in before.stderr
    assert "HINT: Run: manage.py migrate queued_storage --database default" in before.stderr
    migrated = manage("migrate", "--verbosity", "0")
    assert migrated.returncode == 0, migrated.stderr
    assert "W013" not in manage("check", "--database", "default", "--tag", "database").stderr


@pytest.mark.django_db
@pytest.mark.skipif(not schedule.available(), reason="django-celery-beat has no release for this Django")
def test_w014_django_celery_beat_without_the_sweep(celery_configuration: Callable[..., None]) -> None:
    """With django-celery-beat the database is asked for an enabled task."""
    celery_configuration(beat_schedule={})
    assert texts(found(databases=["default"])) == [
        "ledger: (W014) django-celery-beat has no enabled periodic task for the sweep. "
        "-> Run: manage.py queued_storage_schedule"
    ]
    task, _ = schedule.install()
    assert ids(found(databases=["default"])) == []
    type(task).objects.filter(pk=task.pk).update(enabled=False)
    assert ids(found(databases=["default"])) == ["W014"]


def test_a_broken_default_storage_is_reported_once(only: Any) -> None:
    """The fields that use the default storage do not break the check, or repeat the message."""
    only(remote=5)
    assert ids(found()) == ["E002"]
    assert Document._meta.get_field("file").storage is default_storage


def test_w015_a_queue_that_does_not_follow_the_host(settings: Any) -> None:
    """A host with a name needs a queue that follows it; one written out for this host leads the sweep astray."""
    settings.QUEUED_STORAGE_NODE, settings.QUEUED_STORAGE_QUEUE = "one", "files-one"
    assert texts(found()) == [
        "STORAGES[\"default\"]: (W015) QUEUED_STORAGE_NODE is 'one', so only this host can transfer its files, but the "
        "queue 'files-one' does not follow the host. -> Set QUEUED_STORAGE_QUEUE = \"transfers-{node}\", as it stands, "
        "and run a worker for that queue on each host. Where hosts share the local disk, remove QUEUED_STORAGE_NODE."
    ]
    del settings.QUEUED_STORAGE_QUEUE
    assert ids(found()) == ["W015"]
    settings.QUEUED_STORAGE_QUEUE = "files-{node}"
    assert ids(found()) == []


def test_w016_a_queue_for_each_host_and_no_name(settings: Any) -> None:
    """A queue that follows the host needs the host's name."""
    settings.QUEUED_STORAGE_QUEUE = "files-{node}"
    (text,) = texts(found())
    assert text.startswith(
        "STORAGES[\"default\"]: (W016) The queue 'files-{node}' follows the host, and this host has no name. -> Set "
    )


def test_every_message_has_its_test() -> None:
    """Each id has a test named after it."""
    from queued_storage.checking import messages

    names = {name for name in vars(messages) if name[1:].isdigit()}
    tested = {name.split("_")[1] for name in globals() if name.startswith("test_")}
    assert names
    assert names - tested == set()
