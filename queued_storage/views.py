"""Give out a file wherever it is now: its bytes while it is local, a redirect once it is on the remote."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.core.exceptions import PermissionDenied, SuspiciousFileOperation
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_safe

from queued_storage import copying, ledger, links, nodes
from queued_storage.conf import settings
from queued_storage.exceptions import TemporarilyUnavailableError
from queued_storage.locations import Location
from queued_storage.models import Side
from queued_storage.names import clean_name, record_key
from queued_storage.pairs import UnknownStorageError, pair_for

# Marks a request that was redirected to the host that has the file.
_SENT_HOME = "sent_home"
# What a browser shows without running anything of it; all else is offered for download.
_HARMLESS = ("image/", "audio/", "video/", "text/plain", "application/pdf")


@require_safe
def file(request: HttpRequest, alias: str, name: str) -> HttpResponseBase:
    """Answer with the file, or with a redirect to the remote's own URL.

    403 for a private file without a good link, 404 for one that is not there, 503 while it cannot be read. A file on
    the disk of another host is redirected to that host, where QUEUED_STORAGE_NODE_URL is set.
    """
    try:
        storage: Any = pair_for(alias)
        name = clean_name(name)
    except (UnknownStorageError, SuspiciousFileOperation) as error:
        raise Http404 from error
    age = _age(request, alias, name) if links.private(storage) else None
    location = None
    try:
        location = storage.find(name)
        if location.side == Side.REMOTE:
            response: HttpResponseBase = HttpResponseRedirect(storage.remote.url(location.remote_name))
            response["Cache-Control"] = "no-store"
            return response
        response = _local(storage, name, location)
    except FileNotFoundError as error:
        raise Http404 from error
    except TemporarilyUnavailableError:
        if (home := _home(request, location)) is not None:
            return home
        return HttpResponse(status=503, headers={"Retry-After": "5", "Cache-Control": "no-store"})
    response["Cache-Control"] = "no-cache" if age is None else f"private, max-age={age}"
    return response


def _home(request: HttpRequest, location: Location | None) -> HttpResponse | None:
    # Asked to go there once, the host that was meant has answered, or the address leads somewhere else.
    if location is None or not location.is_elsewhere or _SENT_HOME in request.GET:
        return None
    if not settings.QUEUED_STORAGE_NODE_URL:
        return None
    address = settings.QUEUED_STORAGE_NODE_URL.replace(nodes.PLACEHOLDER, quote(location.node, safe=""))
    path = request.get_full_path()
    mark = f"{'&' if '?' in path else '?'}{_SENT_HOME}=1"
    return HttpResponseRedirect(f"{address.rstrip('/')}{path}{mark}", headers={"Cache-Control": "no-store"})


def _age(request: HttpRequest, alias: str, name: str) -> int:
    left = links.seconds_left(alias, name, request.GET.get("expires", ""), request.GET.get("signature", ""))
    if not left:
        raise PermissionDenied("This link has ended." if left == 0 else "This link was not made by this site.")
    return left


def _local(storage: Any, name: str, location: Location) -> HttpResponseBase:
    record = ledger.lookup(record_key(storage.alias, name))
    content_type = (record.content_type if record else "") or copying.content_type_of(None, name)
    # What lies here under the name of another host's file may be another file.
    handed_over = None if location.is_elsewhere else _hand_over(storage, location.local_name)
    response: HttpResponseBase = FileResponse(storage.open(name)) if handed_over is None else handed_over
    response["Content-Type"] = content_type or "application/octet-stream"
    shown = content_type.startswith(_HARMLESS) and "svg" not in content_type
    header = content_disposition_header(not shown, name.rpartition("/")[2])
    response["Content-Disposition"] = header or "attachment"
    response["X-Content-Type-Options"] = "nosniff"
    # What users upload must not run in the name of this site, in whatever browser.
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


def _hand_over(storage: Any, place: str) -> HttpResponse | None:
    """Return an answer without bytes that has the web server send the file, where one is set up for that."""
    header, _, prefix = settings.QUEUED_STORAGE_SENDFILE.partition(":")
    if not header:
        return None
    return HttpResponse(headers={header: quote(prefix + place) if prefix else quote(storage.local.path(place))})
