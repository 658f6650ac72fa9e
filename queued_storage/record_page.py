"""What the page of a record shows below its columns: attempts, both copies, and who uses the file."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext, gettext_lazy as _

from queued_storage import copies, ledger, showing, uses
from queued_storage.examining import Found
from queued_storage.models import TransferRecord

# Attempts on the page; a stalled record has many.
TIMELINE = 100
#: The parameter of the request that has both sides asked.
LOOK = "look"
FOUND = {
    Found.SAME: _("there, as saved"),
    Found.ABSENT: _("absent"),
    Found.DIFFERENT: _("other bytes than were saved"),
    Found.UNKNOWN: _("no answer"),
}


def context(record: TransferRecord, request: HttpRequest, site: AdminSite) -> dict[str, Any]:
    """Return what the template needs; the storages are asked only if the request says so."""
    wanted = LOOK in request.GET
    private_links = request.user.has_perm("queued_storage.open_transferrecord")
    asked = request.GET.copy()
    asked[LOOK] = "1"
    found = uses.find(record, everywhere=wanted)
    return {
        "attempts": _attempts(record),
        "copies": _copies(record, private_links) if wanted else None,
        "look": f"?{asked.urlencode()}#queued-storage-copies",
        "seconds": copies.SECONDS,
        "uses": [_use(each, instance, request, site) for each, instance in found.found],
        "more": found.more,
        "unasked": found.unasked,
        "is_superseded": record.key is None,
    }


def _attempts(record: TransferRecord) -> list[tuple[Any, ...]]:
    attempts = ledger.attempts().filter(record=record).order_by("-pk")[:TIMELINE]
    return [
        (each, showing.text(each.worker), showing.text(each.error), each.finished_at - each.started_at)
        for each in attempts
    ]


def _copies(record: TransferRecord, private_links: bool) -> list[dict[str, Any]]:
    return [
        {
            "side": capfirst(each.side.label),
            "found": FOUND[each.found],
            "mark": str(each.found),
            "reason": showing.text(each.reason) if each.reason else "",
            "size": each.size,
            "digests": showing.text(each.digests.replace(" ", "\n")) if each.digests else "-",
            "url": each.url,
        }
        for each in copies.look_at_both(record, private_links)
    ]


def _use(each: Any, instance: Model, request: HttpRequest, site: AdminSite) -> dict[str, Any]:
    meta = instance._meta
    place = f"{capfirst(str(meta.verbose_name))}, {each.verbose_name}"
    allowed, url = request.user.has_perm(f"{meta.app_label}.view_{meta.model_name}"), ""
    if site.is_registered(type(instance)):
        allowed = site.get_model_admin(type(instance)).has_view_or_change_permission(request, instance)
        url = _change_page(instance, site) if allowed else ""
    # What an object calls itself is for those who may see it.
    words = _name_of(instance) if allowed else gettext("number %(pk)s") % {"pk": instance.pk}
    return {"place": place, "text": showing.text(words), "url": url}


def _change_page(instance: Model, site: AdminSite) -> str:
    name = f"admin:{instance._meta.app_label}_{instance._meta.model_name}_change"
    try:
        return reverse(name, args=[quote(instance.pk)], current_app=site.name)
    except NoReverseMatch:
        return ""


def _name_of(instance: Model) -> str:
    try:
        return str(instance) or str(instance.pk)
    except Exception:
        # A project's own method; the page is of the file.
        return str(instance.pk)
