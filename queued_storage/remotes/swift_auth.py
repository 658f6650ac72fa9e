"""Logging in to OpenStack: from options or the environment to a storage URL and a token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from queued_storage.exceptions import ErrorKind, StorageConfigurationError, TransferError
from queued_storage.remotes.extras import missing_extra
from queued_storage.remotes.hiding import Hidden, hidden
from queued_storage.remotes.plain_http import AnswerError, Endpoint, UnreachableError, kind_of_status

OS_OPTIONS = (
    *("project_name", "project_id", "project_domain_name", "project_domain_id", "tenant_name", "tenant_id"),
    *("user_id", "user_domain_name", "user_domain_id", "region_name", "endpoint_type", "service_type", "auth_type"),
    *("application_credential_id", "application_credential_secret"),
)

OLD_VERSIONS = {"1", "1.0"}


@dataclass(frozen=True)
class Session:
    """Where the account is, and the token that opens it."""

    url: str
    endpoint: Endpoint
    token: str


class Login:
    """Logs in with python-swiftclient when first asked to, and remembers the session until ``renew()``."""

    def __init__(
        self,
        auth_url: str | None,
        username: str | None,
        password: str | None,
        auth_version: str | None,
        os_options: Mapping[str, str],
        storage_url: str | None,
        *,
        connect_timeout: float,
        read_timeout: float,
        ca_file: str | None,
    ) -> None:
        if find_spec("swiftclient") is None:
            raise missing_extra("SwiftStorage", "swift")
        self._auth_url = auth_url or _environment("OS_AUTH_URL", "ST_AUTH")
        if not self._auth_url:
            raise StorageConfigurationError("SwiftStorage needs 'auth_url', or OS_AUTH_URL in the environment.")
        self._username = username or _environment("OS_USERNAME", "ST_USER")
        self._password = Hidden(password or _environment("OS_PASSWORD", "ST_KEY"))
        version = auth_version or _environment("OS_IDENTITY_API_VERSION", "ST_AUTH_VERSION") or _guess()
        self._version = str(version)
        if self._version not in OLD_VERSIONS and find_spec("keystoneclient") is None:
            raise missing_extra("Logging in to Keystone", "swift")
        named = {name: _environment(f"OS_{name.upper()}") for name in OS_OPTIONS}
        self._os_options: dict[str, str] = hidden({**{k: v for k, v in named.items() if v}, **os_options})
        self._storage_url = storage_url
        self._timeouts = connect_timeout, read_timeout
        self._ca_file = ca_file
        self.known: Session | None = None

    def session(self) -> Session:
        """Return the session, logging in first if there is none.

        Raises ``AnswerError`` if the login is refused and ``UnreachableError`` if there is no answer.
        """
        # No lock: two threads that log in at once do no harm, and a lock held at a fork stays shut in the child.
        return self.known or self.renew()

    def renew(self) -> Session:
        """Log in again and return the new session."""
        try:
            url, token = self._log_in()
        except Exception as error:
            # Without its cause: the frames and messages below hold the password.
            raise _sorted(error) from None
        if not url or not token:
            raise AnswerError("The login gave no storage URL or no token: is 'auth_url' right?", ErrorKind.DENIED)
        url = str(self._storage_url or url).rstrip("/")
        connect, read = self._timeouts
        endpoint = Endpoint(url, connect_timeout=connect, read_timeout=read, ca_file=self._ca_file)
        self.known = Session(url, endpoint, Hidden(token))
        return self.known

    def _log_in(self) -> tuple[str, str]:
        from swiftclient import client

        # By default swiftclient logs up to half of a password or token.
        client.logger_settings["reveal_sensitive_prefix"] = 0
        found: tuple[str, str] = client.get_auth(
            self._auth_url,
            self._username,
            str(self._password),
            auth_version=self._version,
            os_options=dict(self._os_options),
            cacert=self._ca_file,
            # Keystone's client takes one number.
            timeout=self._timeouts if self._version in OLD_VERSIONS else self._timeouts[1],
        )
        return found


def _sorted(error: Exception) -> TransferError:
    status = getattr(error, "http_status", None) or 0
    name = type(error).__name__
    if 200 <= status < 300:
        return AnswerError("The answer to the login has no storage URL: is 'auth_url' right?", ErrorKind.DENIED)
    if status:
        return AnswerError(f"The login was answered with status {status}", kind_of_status(status), status)
    if name == "ClientException":
        # Keystone's refusals and its complaints about the options have no status.
        return AnswerError(f"The login was refused: {str(error).strip()[:200]}", ErrorKind.DENIED)
    return UnreachableError(f"{name} while logging in")


def _guess() -> str:
    return "3" if os.environ.get("OS_AUTH_URL") else "1"


def _environment(*names: str) -> Any:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
