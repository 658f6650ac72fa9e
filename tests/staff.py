"""Staff who use the admin: with these permissions and no others.

Test modules import from here and name it in ``pytest_plugins``; to be imported first, hence: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from queued_storage.models import TransferRecord

LIST = "/admin/queued_storage/transferrecord/"
LogIn = Callable[..., Client]


@pytest.fixture
def log_in() -> LogIn:
    """Log a staff user in who has these permissions and no others."""

    def make(*codenames: str, **options: Any) -> Client:
        user = User.objects.create_user("-".join(("user", *codenames)), is_staff=True)
        permissions = Permission.objects.filter(codename__in=codenames)
        assert len(permissions) == len(codenames)
        user.user_permissions.set(permissions)
        client = Client(**options)
        client.force_login(user)
        return client

    return make


@pytest.fixture
def viewer(log_in: LogIn) -> Client:
    """A user who may look."""
    return log_in("view_transferrecord")


def act(client: Client, name: str, *records: TransferRecord, path: str = "", **more: str) -> Any:
    """Post an action for these records, confirmed unless ``more`` says otherwise."""
    chosen = {"action": f"{name}_selected", "_selected_action": [record.pk for record in records], "confirmed": name}
    return client.post(LIST + path, {**chosen, **more}, follow=True)


def told(response: Any) -> list[tuple[str, str]]:
    """Return the messages that the user sees."""
    return [(message.level_tag, str(message)) for message in response.context["messages"]]
