"""Links to this site's own view of a file: signed ones with an end for private files, lasting ones for public files.

A private file is one whose remote signs its URLs. Such a link names the storage and the file, ends after
QUEUED_STORAGE_LINK_AGE, and is signed with the site's SECRET_KEY.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

from django.core.signing import Signer
from django.urls import NoReverseMatch, reverse
from django.utils.crypto import constant_time_compare

from queued_storage.conf import settings
from queued_storage.pairs import StoragePair
from queued_storage.remotes.registry import adapter_for

VIEW = "queued_storage:file"
_SALT = "queued_storage.links"
_PUBLIC_ACLS = {"public-read", "public-read-write", "publicRead"}


def signs_urls(storage: Any) -> bool:
    """Tell whether the URLs of a storage let only those in who were given them; ``signs_urls`` on it decides.

    So does that of its adapter, where the class is not ours; else the attributes of django-storages do.
    """
    own = getattr(storage, "signs_urls", getattr(adapter_for(storage), "signs_urls", None))
    if own is not None:
        return bool(own)
    if getattr(storage, "expiration_secs", None):
        # Azure's, which signs for a custom domain as well.
        return True
    if not getattr(storage, "querystring_auth", None) or getattr(storage, "default_acl", None) in _PUBLIC_ACLS:
        return False
    # S3's signs for a custom domain only with a CloudFront key.
    return not getattr(storage, "custom_domain", None) or bool(getattr(storage, "cloudfront_signer", None))


def private(storage: StoragePair) -> bool:
    """Tell whether nobody may read the files of ``storage`` without a signed URL; a remote that is broken counts."""
    try:
        return signs_urls(storage.remote)
    except Exception:
        return True


def installed() -> bool:
    """Tell whether the project has included ``queued_storage.urls``."""
    try:
        reverse(VIEW, args=["alias", "name"])
    except (NoReverseMatch, AttributeError):
        # A project of workers and commands alone may have no ROOT_URLCONF.
        return False
    return True


def wanted(storage: StoragePair) -> bool:
    """Tell whether the local files of ``storage`` are given out by links: as it says, else if they are private."""
    return storage.links if storage.links is not None else private(storage) and installed()


def make(storage: StoragePair, name: str) -> str:
    """Return the link to ``name``; raises ``NoReverseMatch`` unless ``queued_storage.urls`` is included."""
    url = reverse(VIEW, args=[storage.alias, name])
    if not private(storage):
        return url
    expires = str(int(time.time() + settings.QUEUED_STORAGE_LINK_AGE.total_seconds()))
    return f"{url}?{urlencode({'expires': expires, 'signature': _signature(storage.alias, name, expires)})}"


def seconds_left(alias: str, name: str, expires: str, signature: str) -> int | None:
    """Return how long a signed link is still good for, 0 if it has ended; ``None`` if it was not made here."""
    if not constant_time_compare(signature, _signature(alias, name, expires)):
        return None
    return max(int(expires) - int(time.time()), 0)


def _signature(alias: str, name: str, expires: str) -> str:
    # Lengths, so that no two triples make one text.
    return Signer(salt=_SALT).signature(f"{len(alias)}:{alias}{len(name)}:{name}{expires}")
