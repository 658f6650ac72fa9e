"""The ledger in Django's admin: to look at, and to act from. Nobody writes records by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied, SuspiciousFileOperation
from django.core.paginator import Paginator
from django.db import connections, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.utils.functional import cached_property
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext_lazy as _

from queued_storage import ledger, selecting, showing
from queued_storage.actions import ACTIONS, Action, bound, groups, outcome, told
from queued_storage.models import State, TransferRecord
from queued_storage.names import clean_directory, clean_name
from queued_storage.pairs import aliases

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[TransferRecord]
else:
    # Without django-stubs the class takes no type arguments.
    _Admin = admin.ModelAdmin

# Characters of a name in the list.
SHORT = 60


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages of the first hundred thousand rows: counting ten millions, or skipping them, takes seconds."""

    CAP = 100_000

    @cached_property
    def count(self) -> int:
        """How many rows there are, at most ``CAP``."""
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[: self.CAP].count())


class CountingResponse(TemplateResponse):
    """The dashboard: counts, once it has been sent, what nobody should wait for."""

    owed: Sequence[Callable[[], None]] = ()

    def close(self) -> None:
        """Count, for nobody waits by now; then end the request, and with it the connection that was counted by."""
        for count in self.owed:
            count()
        super().close()


class StorageFilter(admin.SimpleListFilter):
    """Filter by alias; offers those that are configured, without asking ten million rows for theirs."""

    title = _("storage")
    parameter_name = "storage"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the aliases to choose from."""
        chosen = request.GET.get(self.parameter_name)
        return [(alias, alias) for alias in sorted({*aliases(), *([chosen] if chosen else [])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of the chosen storage."""
        return queryset.filter(storage=self.value()) if self.value() else queryset


def non_atomic(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Keep ATOMIC_REQUESTS, of whatever database, away from a view."""
    for alias in connections:
        view = transaction.non_atomic_requests(alias)(view)
    return view


def _admin_action(name: str) -> Callable[..., HttpResponse | None]:
    action = ACTIONS[name]

    @admin.action(description=action.label, permissions=[name])
    def act(
        modeladmin: TransferRecordAdmin, request: HttpRequest, queryset: QuerySet[TransferRecord]
    ) -> HttpResponse | None:
        return modeladmin._act(request, queryset, action)

    act.__name__ = f"{name}_selected"
    return act


@admin.register(TransferRecord)
class TransferRecordAdmin(_Admin):
    """The records: read-only for everybody, with actions for those who have the permission of each."""

    list_display = ("short_name", "storage", "state", "bytes", "retries", "error_kind", "age", "due")
    list_filter = ("state", StorageFilter, "error_kind")
    search_fields = ("name",)
    search_help_text = _("The name of a file, or how it begins")
    ordering = ("-pk",)
    # Every other order would sort the whole table.
    sortable_by = ("age",)
    list_per_page = 50
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = tuple(_admin_action(name) for name in ACTIONS)
    fieldsets = (
        (None, {"fields": ("full_name", "storage", "state", "error_kind", "full_error")}),
        (_("Progress"), {"fields": ("retries", "due", "worker")}),
        (_("Times"), {"fields": ("created_at", "transferred_at", "deleted_at", "updated_at")}),
        (_("Content"), {"fields": ("bytes", "content_type", "digests")}),
        (_("Copies"), {"fields": ("location", "local_place", "local_copy", "node", "remote_place", "generation")}),
    )
    readonly_fields = (
        *("full_name", "storage", "state", "error_kind", "full_error", "retries", "due", "worker", "created_at"),
        *("transferred_at", "deleted_at", "updated_at", "bytes", "content_type", "digests", "location", "local_place"),
        *("local_copy", "node", "remote_place", "generation"),
    )

    change_list_template = "admin/queued_storage/transferrecord/change_list.html"

    # The dashboard

    def get_urls(self) -> list[URLPattern]:
        """Add the dashboard to the pages of the records."""
        view = self.admin_site.admin_view(self.dashboard_view)
        return [path("dashboard/", view, name="queued_storage_dashboard"), *super().get_urls()]

    def dashboard_view(self, request: HttpRequest) -> HttpResponse:
        """Show how the transfers go, to whoever may view records."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        # Every process of the project imports this module; few of them ever show a page.
        from queued_storage import charts, dashboard

        found = dashboard.collect()
        context = {
            **self.admin_site.each_context(request),
            "title": _("Transfers"),
            "opts": self.opts,
            "dashboard": found,
            "states": list(State),
            "charts": [
                ("hours", _("Last 24 hours"), _("hour"), "H:i", charts.draw(found.hours), True),
                ("days", _("Last 30 days"), _("day"), "j M", charts.draw(found.days), found.figures.is_whole),
            ],
        }
        response = CountingResponse(request, "admin/queued_storage/dashboard.html", context)
        response.owed = found.figures.owed
        patch_cache_control(response, no_store=True)
        return response

    # Who may do what

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: a record without its file would be a lie."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: TransferRecord | None = None) -> bool:
        """Refuse: records change by transitions of the ledger only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: TransferRecord | None = None) -> bool:
        """Refuse: the copies of the file would be nobody's."""
        return False

    # The list

    def get_queryset(self, request: HttpRequest) -> QuerySet[TransferRecord]:
        """Return the records from the database that is written to: a replica may show yesterday's state."""
        rows = ledger.records()
        # The list needs neither the errors nor the digests of ten million rows.
        return rows if self._is_detail(request) else rows.defer("error", "digest", "content_type")

    def _is_detail(self, request: HttpRequest) -> bool:
        match = request.resolver_match
        return match is not None and "object_id" in match.kwargs

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find the names that begin so, in any spelling, through the index."""
        if not search_term:
            return queryset, False
        try:
            prefix = f"{clean_directory(search_term)}/" if search_term.endswith("/") else clean_name(search_term)
        except SuspiciousFileOperation:
            return queryset.none(), False
        return selecting.select(queryset, prefix=prefix), False

    @admin.display(description=_("name"))
    def short_name(self, record: TransferRecord) -> str:
        """Return the name, the middle of a long one left out."""
        return showing.text(record.name, SHORT)

    @admin.display(description=_("size"))
    def bytes(self, record: TransferRecord) -> str:
        """Return the size for people."""
        return "-" if record.size is None else str(filesizeformat(record.size))

    @admin.display(description=_("age"), ordering="-pk")
    def age(self, record: TransferRecord) -> str:
        """Return how long ago the file was saved."""
        return showing.moment(timesince(record.created_at, depth=1), record.created_at)

    @admin.display(description=_("due"))
    def due(self, record: TransferRecord) -> str:
        """Return when the sweep looks at the record."""
        if record.due_at is None:
            return "-"
        if record.due_at <= timezone.now():
            return showing.moment(_("now"), record.due_at)
        return showing.moment(_("in %(time)s") % {"time": timeuntil(record.due_at, depth=1)}, record.due_at)

    # Actions

    @non_atomic
    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the list, or act: outside of a transaction of the request, for none may be open while bytes move."""
        return super().changelist_view(request, *args, **kwargs)

    def _act(self, request: HttpRequest, queryset: QuerySet[TransferRecord], action: Action) -> HttpResponse | None:
        if request.POST.get("confirmed") != action.name:
            return self._confirm(request, queryset, action)
        # No more than the page has offered to select.
        result = action.run(queryset, limit=CappedPaginator.CAP)
        for level, text in told(result, action):
            self.message_user(request, text, level)
        if result.changed or action.command:
            _log(request, self.opts, outcome(result, action))
        return None

    def _confirm(self, request: HttpRequest, queryset: QuerySet[TransferRecord], action: Action) -> HttpResponse:
        found = groups(queryset, action)
        context = {
            **self.admin_site.each_context(request),
            "title": action.label,
            "opts": self.opts,
            "action": action,
            "bound": bound(action),
            "chosen": request.POST["action"],
            "groups": found,
            "capped": sum(group.files for group in found) > CappedPaginator.CAP,
            "cap": CappedPaginator.CAP,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "back": request.get_full_path(),
        }
        return TemplateResponse(request, "admin/queued_storage/transferrecord/confirm.html", context)

    # The page of one record

    @admin.display(description=_("name"))
    def full_name(self, record: TransferRecord) -> str:
        """Return the whole name."""
        return showing.text(record.name)

    @admin.display(description=_("local name"))
    def local_place(self, record: TransferRecord) -> str:
        """Return the name on the local storage."""
        return showing.text(record.local_name)

    @admin.display(description=_("remote name"))
    def remote_place(self, record: TransferRecord) -> str:
        """Return the name on the remote storage."""
        return showing.text(record.remote_name)

    @admin.display(description=_("error"))
    def full_error(self, record: TransferRecord) -> str:
        """Return the error in full; it was redacted before it was written."""
        return showing.text(record.error) if record.error else "-"

    @admin.display(description=_("digests"))
    def digests(self, record: TransferRecord) -> str:
        """Return the digests, one a line."""
        return showing.text(record.digest.replace(" ", "\n")) if record.digest else "-"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the history of attempts, both copies, and who uses the file."""
        from queued_storage import record_page

        context |= record_page.context(context["original"], request, self.admin_site)
        return super().render_change_form(request, context, *args, **kwargs)


def _permission(name: str) -> Callable[[Any, HttpRequest], bool]:
    def has_permission(modeladmin: Any, request: HttpRequest) -> bool:
        return request.user.has_perm(f"queued_storage.{name}_transferrecord")

    return has_permission


for _name in ACTIONS:
    # Django asks for each action's permission by the name of a method.
    setattr(TransferRecordAdmin, f"has_{_name}_permission", _permission(_name))


def _log(request: HttpRequest, opts: Any, text: str) -> None:
    # One line for all of them: a million files are one decision of one person.
    LogEntry.objects.create(
        user_id=str(request.user.pk),
        content_type=ContentType.objects.get_for_model(opts.model),
        object_repr=str(opts.verbose_name_plural),
        action_flag=CHANGE,
        change_message=text,
    )
