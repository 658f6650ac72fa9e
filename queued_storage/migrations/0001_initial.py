import django.db.models.deletion
import queued_storage.indexes
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="DiskSample",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("storage", models.CharField(max_length=100, verbose_name="storage")),
                ("node", models.CharField(blank=True, max_length=255, verbose_name="node")),
                ("taken_at", models.DateTimeField(verbose_name="taken at")),
                ("free", models.BigIntegerField(help_text="bytes", verbose_name="free")),
            ],
            options={"verbose_name": "disk sample", "verbose_name_plural": "disk samples"},
        ),
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("duty", models.CharField(max_length=100, unique=True, verbose_name="duty")),
                ("seen_at", models.DateTimeField(verbose_name="seen at")),
            ],
            options={
                "verbose_name": "heartbeat",
                "verbose_name_plural": "heartbeats",
            },
        ),
        migrations.CreateModel(
            name="StorageHealth",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("storage", models.CharField(max_length=100, unique=True, verbose_name="storage")),
                (
                    "failures",
                    models.PositiveIntegerField(help_text="files in a row that met an error", verbose_name="failures"),
                ),
                ("last_record", models.BigIntegerField(verbose_name="last record")),
                ("down_since", models.DateTimeField(null=True, verbose_name="down since")),
                ("probe_at", models.DateTimeField(null=True, verbose_name="next probe")),
                ("probe", models.BigIntegerField(null=True, verbose_name="record that probes")),
                ("paused_at", models.DateTimeField(null=True, verbose_name="paused at")),
                (
                    "error_kind",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("missing", "local file missing"),
                            ("throttled", "throttled by the remote"),
                            ("passing", "temporary error"),
                            ("denied", "access denied by the remote"),
                            ("refused", "refused by the remote"),
                            ("mismatch", "bytes differ"),
                            ("lost", "worker lost"),
                            ("settings", "storage not configured"),
                            ("elsewhere", "on another host"),
                        ],
                        max_length=12,
                        verbose_name="error kind",
                    ),
                ),
                ("error", models.TextField(blank=True, verbose_name="error")),
                ("updated_at", models.DateTimeField(verbose_name="updated at")),
            ],
            options={
                "verbose_name": "storage health",
                "verbose_name_plural": "storage health",
            },
        ),
        migrations.CreateModel(
            name="TransferRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("storage", models.CharField(max_length=100, verbose_name="storage")),
                ("name", models.CharField(max_length=1024, verbose_name="name")),
                ("key", models.UUIDField(editable=False, null=True, unique=True, verbose_name="key")),
                ("generation", models.PositiveIntegerField(default=1, verbose_name="generation")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("delayed", "delayed"),
                            ("queued", "queued"),
                            ("transferring", "transferring"),
                            ("transferred", "transferred"),
                            ("failed", "failed"),
                            ("deleted", "deleted"),
                        ],
                        max_length=12,
                        verbose_name="state",
                    ),
                ),
                (
                    "location",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(state="transferred", then=models.Value("remote")), default=models.Value("local")
                        ),
                        output_field=models.CharField(
                            choices=[("local", "local"), ("remote", "remote")], max_length=6, verbose_name="location"
                        ),
                    ),
                ),
                ("local_name", models.CharField(max_length=1024, verbose_name="local name")),
                ("remote_name", models.CharField(max_length=1024, verbose_name="remote name")),
                ("size", models.BigIntegerField(help_text="bytes", null=True, verbose_name="size")),
                ("digest", models.CharField(blank=True, max_length=128, verbose_name="digest")),
                ("content_type", models.CharField(blank=True, max_length=255, verbose_name="content type")),
                ("retries", models.PositiveIntegerField(default=0, verbose_name="retries")),
                ("lease", models.UUIDField(editable=False, null=True, verbose_name="lease")),
                ("worker", models.CharField(blank=True, max_length=255, verbose_name="worker")),
                ("due_at", models.DateTimeField(null=True, verbose_name="due at")),
                ("node", models.CharField(blank=True, max_length=255, verbose_name="node")),
                ("local_copy", models.BooleanField(default=True, verbose_name="local copy")),
                (
                    "error_kind",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("missing", "local file missing"),
                            ("throttled", "throttled by the remote"),
                            ("passing", "temporary error"),
                            ("denied", "access denied by the remote"),
                            ("refused", "refused by the remote"),
                            ("mismatch", "bytes differ"),
                            ("lost", "worker lost"),
                            ("settings", "storage not configured"),
                            ("elsewhere", "on another host"),
                        ],
                        max_length=12,
                        verbose_name="error kind",
                    ),
                ),
                ("error", models.TextField(blank=True, verbose_name="error")),
                ("created_at", models.DateTimeField(verbose_name="created at")),
                ("transferred_at", models.DateTimeField(null=True, verbose_name="transferred at")),
                ("checked_at", models.DateTimeField(null=True, verbose_name="checked at")),
                ("deleted_at", models.DateTimeField(null=True, verbose_name="deleted at")),
                ("updated_at", models.DateTimeField(verbose_name="updated at")),
            ],
            options={
                "verbose_name": "transfer record",
                "verbose_name_plural": "transfer records",
                "permissions": [
                    ("transfer_transferrecord", "Can have files transferred now"),
                    ("retry_transferrecord", "Can retry transfers"),
                    ("hold_transferrecord", "Can hold transfers"),
                    ("release_transferrecord", "Can release transfers"),
                    ("remove_transferrecord", "Can delete files"),
                    ("verify_transferrecord", "Can verify remote copies"),
                    ("evict_transferrecord", "Can evict local copies"),
                    ("restore_transferrecord", "Can restore local copies"),
                    ("open_transferrecord", "Can open private files"),
                ],
                "indexes": [
                    queued_storage.indexes.PartialIndex(
                        fields=["due_at", "id"], name="queued_storage_due", where=models.Q(("due_at__isnull", False))
                    ),
                    queued_storage.indexes.PartialIndex(
                        fields=["state", "created_at"],
                        name="queued_storage_open",
                        where=models.Q(("state", "transferred"), _negated=True),
                    ),
                    queued_storage.indexes.PrefixIndex(fields=["name"], name="queued_storage_name"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["delayed", "queued", "transferring", "transferred", "failed", "deleted"])
                        ),
                        name="queued_storage_state_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("due_at__isnull", False), ("lease__isnull", False), ("state", "transferring")),
                            models.Q(models.Q(("state", "transferring"), _negated=True), ("lease__isnull", True)),
                            _connector="OR",
                        ),
                        name="queued_storage_lease_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state__in", ["queued", "deleted"]), _negated=True),
                            ("due_at__isnull", False),
                            _connector="OR",
                        ),
                        name="queued_storage_due_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "failed"), _negated=True), ("due_at__isnull", True), _connector="OR"
                        ),
                        name="queued_storage_rest_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "transferred"), _negated=True),
                            models.Q(("size__isnull", False), ("transferred_at__isnull", False)),
                            _connector="OR",
                        ),
                        name="queued_storage_transferred_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("deleted_at__isnull", False), ("state", "deleted")),
                            models.Q(models.Q(("state", "deleted"), _negated=True), ("deleted_at__isnull", True)),
                            _connector="OR",
                        ),
                        name="queued_storage_deleted_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("state", "deleted"), ("key__isnull", False), _connector="OR"),
                        name="queued_storage_key_check",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("local_copy", True), ("state__in", ["transferred", "deleted"]), _connector="OR"
                        ),
                        name="queued_storage_copy_check",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="TransferAttempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("started_at", models.DateTimeField(verbose_name="started at")),
                ("finished_at", models.DateTimeField(db_index=True, verbose_name="finished at")),
                ("worker", models.CharField(blank=True, max_length=255, verbose_name="worker")),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("transferred", "transferred"),
                            ("retry", "to be retried"),
                            ("failed", "failed"),
                            ("stopped", "stopped"),
                            ("lost", "worker lost"),
                        ],
                        max_length=12,
                        verbose_name="outcome",
                    ),
                ),
                (
                    "error_kind",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("missing", "local file missing"),
                            ("throttled", "throttled by the remote"),
                            ("passing", "temporary error"),
                            ("denied", "access denied by the remote"),
                            ("refused", "refused by the remote"),
                            ("mismatch", "bytes differ"),
                            ("lost", "worker lost"),
                            ("settings", "storage not configured"),
                            ("elsewhere", "on another host"),
                        ],
                        max_length=12,
                        verbose_name="error kind",
                    ),
                ),
                ("error", models.TextField(blank=True, verbose_name="error")),
                ("bytes", models.BigIntegerField(default=0, verbose_name="bytes")),
                (
                    "record",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="queued_storage.transferrecord",
                        verbose_name="record",
                    ),
                ),
            ],
            options={
                "verbose_name": "transfer attempt",
                "verbose_name_plural": "transfer attempts",
            },
        ),
    ]
