"""From the settings of each class of 0.8 to those of today: carried out on a real server, and in the documentation."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from django.core.files.storage import storages
from django.test import override_settings

from tests.fixtures import facts, moved, read, transfer
from tests.remotes.conftest import Served
from tests.servers.roots import fresh

PAGE = Path(__file__).parents[2] / "docs/remotes/upgrade.md"
Settings = dict[str, Any]


@dataclass(frozen=True)
class Migration:
    """A class of 0.8: its settings there, as they were for the server of the tests, and today's ``remote_options``.

    ``kept`` are settings that today's remote reads under their old names.
    """

    before: Callable[[Settings], Settings]
    today: Callable[[Settings], Settings]
    kept: tuple[str, ...] = ()


def _gridfs(options: Settings) -> Settings:
    address = urlsplit(options["uri"])
    login = {"USER": address.username, "PASSWORD": address.password}
    server = {"NAME": options["database"], "HOST": address.hostname, "PORT": address.port, **login}
    return {"GRIDFS_DATABASE": "files", "DATABASES": {"files": server}}


def _uri(server: Settings) -> str:
    return f"mongodb://{server['USER']}:{server['PASSWORD']}@{server['HOST']}:{server['PORT']}/?authSource=admin"


def _s3(options: Settings) -> Settings:
    login = {"AWS_ACCESS_KEY_ID": options["access_key"], "AWS_SECRET_ACCESS_KEY": options["secret_key"]}
    return {"AWS_STORAGE_BUCKET_NAME": options["bucket_name"], **login}


MIGRATIONS = {
    ("QueuedS3BotoStorage", "s3"): Migration(
        _s3, lambda old: {}, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_STORAGE_BUCKET_NAME")
    ),
    ("QueuedCouchDBStorage", "couchdb"): Migration(
        lambda options: {
            "COUCHDB_DEFAULT_SERVER": options["server"].replace(
                "//", f"//{options['username']}:{options['password']}@"
            ),
            "COUCHDB_STORAGE_OPTIONS": {"database": options["database"]},
        },
        lambda old: {
            "server": old["COUCHDB_DEFAULT_SERVER"],
            "database": old["COUCHDB_STORAGE_OPTIONS"]["database"],
        },
    ),
    ("QueuedDatabaseStorage", "database"): Migration(
        lambda options: {"DB_FILES": {"db_table": "FILES", "base_url": options["base_url"]}},
        lambda old: {"base_url": old["DB_FILES"]["base_url"]},
    ),
    ("QueuedFTPStorage", "ftp"): Migration(
        lambda options: {
            "FTP_STORAGE_LOCATION": f"ftp://{options['user']}:{quote(options['password'])}@{options['host']}"
            f":{options['port']}"
        },
        lambda old: {"location": old["FTP_STORAGE_LOCATION"]},
    ),
    ("QueuedMogileFSStorage", "mogilefs"): Migration(
        lambda options: {
            "MOGILEFS_TRACKERS": options["trackers"],
            "MOGILEFS_DOMAIN": options["domain"],
            "MOGILEFS_MEDIA_URL": options["base_url"],
        },
        lambda old: {
            "trackers": old["MOGILEFS_TRACKERS"],
            "domain": old["MOGILEFS_DOMAIN"],
            "base_url": old["MOGILEFS_MEDIA_URL"],
        },
    ),
    ("QueuedGridFSStorage", "gridfs"): Migration(
        _gridfs,
        lambda old: {
            "uri": _uri(old["DATABASES"][old["GRIDFS_DATABASE"]]),
            "database": old["DATABASES"][old["GRIDFS_DATABASE"]]["NAME"],
        },
    ),
    ("QueuedCloudFilesStorage", "swift"): Migration(
        lambda options: {
            "CLOUDFILES_USERNAME": options["username"],
            "CLOUDFILES_API_KEY": options["password"],
            "CLOUDFILES_CONTAINER": options["container"],
        },
        lambda old: {
            "username": old["CLOUDFILES_USERNAME"],
            "password": old["CLOUDFILES_API_KEY"],
            "container": old["CLOUDFILES_CONTAINER"],
        },
    ),
    ("QueuedSFTPStorage", "sftp"): Migration(
        lambda options: {"SFTP_STORAGE_HOST": options["host"], "SFTP_STORAGE_PARAMS": options["params"]},
        lambda old: {},
        ("SFTP_STORAGE_HOST", "SFTP_STORAGE_PARAMS"),
    ),
}
# What 0.8 did not need: where the test's server is, in place of the one everybody used.
NEW = {
    "s3": ("endpoint_url", "region_name", "addressing_style"),
    "swift": ("auth_url",),
    "sftp": ("known_host_file",),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("name", "served"), list(MIGRATIONS), indirect=["served"], ids=[name for name, _ in MIGRATIONS], scope="session"
)
def test_the_settings_of_each_class(name: str, served: Served, settings: Any) -> None:
    """With its settings of 0.8 taken over as the page says, each class moves a file and reads it back."""
    migration = MIGRATIONS[name, served.name]
    old = migration.before(served.options)
    more = {option: served.options[option] for option in NEW.get(served.name, ())}
    entry = {
        "BACKEND": f"queued_storage.backends.{name}",
        "OPTIONS": {"remote_options": migration.today(old) | more, "local_options": {"location": str(fresh("local"))}},
    }
    with override_settings(**{setting: old[setting] for setting in migration.kept}):
        settings.STORAGES = settings.STORAGES | {"default": entry}
        storage = storages["default"]
        wanted = f"{uuid.uuid4().hex}/a b.txt"
        record = transfer(storage, wanted, b"of 0.8")
        assert facts(record, b"of 0.8") == moved(wanted, b"of 0.8")
        assert read(storage.remote, wanted) == b"of 0.8"
        if hasattr(storage.remote, "close"):
            storage.remote.close()


@pytest.mark.django_db(transaction=True)
def test_the_file_system(settings: Any) -> None:
    """The ninth class needed both folders, and still does."""
    options = {
        "remote": "django.core.files.storage.FileSystemStorage",
        "local_options": {"location": str(fresh("local"))},
        "remote_options": {"location": str(fresh("remote"))},
    }
    entry = {"BACKEND": "queued_storage.backends.QueuedFileSystemStorage", "OPTIONS": options}
    settings.STORAGES = settings.STORAGES | {"default": entry}
    record = transfer(storages["default"], "a b.txt", b"of 0.8")
    assert facts(record, b"of 0.8") == moved("a b.txt", b"of 0.8")
    assert read(storages["default"].remote, "a b.txt") == b"of 0.8"


def test_the_page_has_them_all() -> None:
    """Each class, and each of its settings of 0.8, stands in the documentation."""
    page = PAGE.read_text()
    options = {
        **dict.fromkeys(["server", "username", "password", "base_url", "user", "host", "port", "trackers"], "x"),
        **dict.fromkeys(["domain", "container", "params", "bucket_name", "access_key", "secret_key", "database"], "x"),
        "uri": "mongodb://u:p@h:1/",
    }
    wanted = {name for name, _ in MIGRATIONS} | {"QueuedFileSystemStorage"}
    for migration in MIGRATIONS.values():
        wanted |= {setting for setting in migration.before(options) if setting != "DATABASES"}
    assert sorted(word for word in wanted if f"`{word}`" not in page) == []
