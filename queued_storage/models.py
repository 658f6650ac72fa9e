"""The ledger's tables: what is true of every file. The workflow is in ``queued_storage.ledger``."""

from __future__ import annotations

from django.db import models
from django.db.models import Case, Q, Value, When
from django.utils.translation import gettext_lazy as _

from queued_storage.exceptions import ErrorKind
from queued_storage.indexes import PartialIndex, PrefixIndex
from queued_storage.names import printable


class State(models.TextChoices):
    """Where a record stands; beside each state, who moves it on.

    ``delayed``: held, local; ``transfer()``, the operator, or the sweep when the delay has ended.
    ``queued``: owed, local; a worker claims it, the sweep sends another message when due.
    ``transferring``: a worker holds the lease; it completes, retries or fails, the sweep rescues after the lease.
    ``transferred``: verified on the remote; delete or supersede, the sweep evicts the local copy when due.
    ``failed``: refused for good, local; a person: retry or delete.
    ``deleted``: gone for readers; the sweep has the copies removed and prunes the record.
    """

    DELAYED = "delayed", _("delayed")
    QUEUED = "queued", _("queued")
    TRANSFERRING = "transferring", _("transferring")
    TRANSFERRED = "transferred", _("transferred")
    FAILED = "failed", _("failed")
    DELETED = "deleted", _("deleted")


class Side(models.TextChoices):
    """The side that serves a file."""

    LOCAL = "local", _("local")
    REMOTE = "remote", _("remote")


def _check(name: str, condition: Q) -> models.CheckConstraint:
    return models.CheckConstraint(name=f"queued_storage_{name}_check", condition=condition)


class TransferRecord(models.Model):
    """One immutable body under one name: where it is and what is still owed.

    Rows are written by ``queued_storage.ledger`` alone. All times come from the database's clock.
    """

    storage = models.CharField(_("storage"), max_length=100)
    name = models.CharField(_("name"), max_length=1024)
    # 128-bit digest of alias and name: independent of collation and index width; NULL once superseded.
    key = models.UUIDField(_("key"), unique=True, null=True, editable=False)
    generation = models.PositiveIntegerField(_("generation"), default=1)
    state = models.CharField(_("state"), max_length=12, choices=State.choices)
    location = models.GeneratedField(
        expression=Case(When(state="transferred", then=Value("remote")), default=Value("local")),
        output_field=models.CharField(_("location"), max_length=6, choices=Side.choices),
        db_persist=True,
    )
    local_name = models.CharField(_("local name"), max_length=1024)
    remote_name = models.CharField(_("remote name"), max_length=1024)
    size = models.BigIntegerField(_("size"), null=True, help_text=_("bytes"))
    digest = models.CharField(_("digest"), max_length=128, blank=True)
    content_type = models.CharField(_("content type"), max_length=255, blank=True)
    retries = models.PositiveIntegerField(_("retries"), default=0)
    lease = models.UUIDField(_("lease"), null=True, editable=False)
    worker = models.CharField(_("worker"), max_length=255, blank=True)
    # The one timer: when the sweep must look at this row. NULL: nothing is owed.
    due_at = models.DateTimeField(_("due at"), null=True)
    node = models.CharField(_("node"), max_length=255, blank=True)
    local_copy = models.BooleanField(_("local copy"), default=True)
    error_kind = models.CharField(_("error kind"), max_length=12, choices=ErrorKind.choices, blank=True)
    error = models.TextField(_("error"), blank=True)
    created_at = models.DateTimeField(_("created at"))
    transferred_at = models.DateTimeField(_("transferred at"), null=True)
    # When the remote copy was last looked at after its transfer; read by the next round of verification.
    checked_at = models.DateTimeField(_("checked at"), null=True)
    deleted_at = models.DateTimeField(_("deleted at"), null=True)
    updated_at = models.DateTimeField(_("updated at"))

    class Meta:
        verbose_name = _("transfer record")
        verbose_name_plural = _("transfer records")
        permissions = [
            ("transfer_transferrecord", _("Can have files transferred now")),
            ("retry_transferrecord", _("Can retry transfers")),
            ("hold_transferrecord", _("Can hold transfers")),
            ("release_transferrecord", _("Can release transfers")),
            ("remove_transferrecord", _("Can delete files")),
            ("verify_transferrecord", _("Can verify remote copies")),
            ("evict_transferrecord", _("Can evict local copies")),
            ("restore_transferrecord", _("Can restore local copies")),
            ("open_transferrecord", _("Can open private files")),
        ]
        indexes = [
            PartialIndex(fields=["due_at", "id"], name="queued_storage_due", where=Q(due_at__isnull=False)),
            PartialIndex(fields=["state", "created_at"], name="queued_storage_open", where=~Q(state="transferred")),
            PrefixIndex(fields=["name"], name="queued_storage_name"),
        ]
        constraints = [
            _check("state", Q(state__in=["delayed", "queued", "transferring", "transferred", "failed", "deleted"])),
            _check(
                "lease",
                Q(state="transferring", lease__isnull=False, due_at__isnull=False)
                | (~Q(state="transferring") & Q(lease__isnull=True)),
            ),
            _check("due", ~Q(state__in=["queued", "deleted"]) | Q(due_at__isnull=False)),
            _check("rest", ~Q(state="failed") | Q(due_at__isnull=True)),
            _check("transferred", ~Q(state="transferred") | Q(transferred_at__isnull=False, size__isnull=False)),
            _check(
                "deleted",
                Q(state="deleted", deleted_at__isnull=False) | (~Q(state="deleted") & Q(deleted_at__isnull=True)),
            ),
            _check("key", Q(state="deleted") | Q(key__isnull=False)),
            _check("copy", Q(local_copy=True) | Q(state__in=["transferred", "deleted"])),
        ]

    def __str__(self) -> str:
        return f"{self.storage}: {printable(self.name)}"


class StorageHealth(models.Model):
    """A storage whose remote has failed lately, or that is paused; no row means that all is well.

    Written by ``queued_storage.health``.
    """

    storage = models.CharField(_("storage"), max_length=100, unique=True)
    failures = models.PositiveIntegerField(_("failures"), help_text=_("files in a row that met an error"))
    last_record = models.BigIntegerField(_("last record"))
    down_since = models.DateTimeField(_("down since"), null=True)
    probe_at = models.DateTimeField(_("next probe"), null=True)
    probe = models.BigIntegerField(_("record that probes"), null=True)
    # An operator's word: nothing is transferred until it is taken back.
    paused_at = models.DateTimeField(_("paused at"), null=True)
    error_kind = models.CharField(_("error kind"), max_length=12, choices=ErrorKind.choices, blank=True)
    error = models.TextField(_("error"), blank=True)
    updated_at = models.DateTimeField(_("updated at"))

    class Meta:
        verbose_name = _("storage health")
        verbose_name_plural = _("storage health")

    def __str__(self) -> str:
        return self.storage


class Heartbeat(models.Model):
    """When a periodic duty was last begun; written by ``queued_storage.heartbeat``."""

    duty = models.CharField(_("duty"), max_length=100, unique=True)
    seen_at = models.DateTimeField(_("seen at"))

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")

    def __str__(self) -> str:
        return self.duty


class DiskSample(models.Model):
    """How many bytes were free on the disk of a local storage; written by ``queued_storage.disks``, kept for a day."""

    storage = models.CharField(_("storage"), max_length=100)
    node = models.CharField(_("node"), max_length=255, blank=True)
    taken_at = models.DateTimeField(_("taken at"))
    free = models.BigIntegerField(_("free"), help_text=_("bytes"))

    class Meta:
        verbose_name = _("disk sample")
        verbose_name_plural = _("disk samples")

    def __str__(self) -> str:
        return f"{self.storage}: {self.free}"


class Outcome(models.TextChoices):
    """How an attempt ended."""

    TRANSFERRED = "transferred", _("transferred")
    RETRY = "retry", _("to be retried")
    FAILED = "failed", _("failed")
    STOPPED = "stopped", _("stopped")
    LOST = "lost", _("worker lost")


class TransferAttempt(models.Model):
    """One try at one record, written when it ended; pruned by age."""

    record = models.ForeignKey(
        TransferRecord, on_delete=models.CASCADE, related_name="attempts", verbose_name=_("record")
    )
    started_at = models.DateTimeField(_("started at"))
    finished_at = models.DateTimeField(_("finished at"), db_index=True)
    worker = models.CharField(_("worker"), max_length=255, blank=True)
    outcome = models.CharField(_("outcome"), max_length=12, choices=Outcome.choices)
    error_kind = models.CharField(_("error kind"), max_length=12, choices=ErrorKind.choices, blank=True)
    error = models.TextField(_("error"), blank=True)
    bytes = models.BigIntegerField(_("bytes"), default=0)

    class Meta:
        verbose_name = _("transfer attempt")
        verbose_name_plural = _("transfer attempts")

    def __str__(self) -> str:
        return f"{self.record_id}: {self.outcome}"
