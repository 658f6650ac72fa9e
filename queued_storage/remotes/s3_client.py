"""One client for all threads that use an S3 storage."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from botocore.utils import determine_content_length

#: A body up to this size is sent at once; before a larger one the server is asked whether it would take it.
SENT_AT_ONCE = 1024 * 1024

_clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
# Those that may have connections, which a forked child must not use.
_known: WeakSet[Any] = WeakSet()
# Lanes begin together, and would each make a client.
_making = threading.Lock()


def client_of(storage: Any) -> Any:
    """Return botocore's client of ``storage``.

    django-storages makes a session, a resource and a client for each thread, which takes a quarter of a second and
    shares no connection. botocore's client may be shared by threads, but not with a forked child.
    """
    client = _clients.get(storage)
    if client is not None:
        return client
    with _making:
        client = _clients.get(storage)
        if client is None:
            know(storage)
            client = storage.connection.meta.client
            client.meta.events.register("before-sign.s3.PutObject", _send_at_once, "queued_storage-at-once")
            _clients[storage] = client
    return client


def know(storage: Any) -> None:
    """Let forked children have connections of their own for ``storage``, those that django-storages makes included."""
    _known.add(storage)


def _forget_parent() -> None:
    # The thread that forks finds its thread-local values in the child: parent and child would read each other's
    # answers from one socket.
    global _making
    _making = threading.Lock()
    _clients.clear()
    for storage in _known:
        storage._connections, storage._unsigned_connections = threading.local(), threading.local()
        storage._bucket = None


os.register_at_fork(after_in_child=_forget_parent)


def _send_at_once(request: Any, **kwargs: Any) -> None:
    # botocore would wait for "100 Continue": one more round trip for each file, however small.
    if (determine_content_length(request.data) or 0) <= SENT_AT_ONCE:
        del request.headers["Expect"]
