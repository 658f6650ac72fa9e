from __future__ import annotations

from django.contrib import admin

from gallery.models import Exhibit


@admin.register(Exhibit)
class ExhibitAdmin(admin.ModelAdmin):
    """The exhibits; where their files are is told by the transfer records."""

    list_display = ["title", "picture", "document", "added_at"]
    search_fields = ["title", "picture", "document"]
    date_hierarchy = "added_at"
