"""The admin of the tests' models: one of them has pages, the other has none."""

from __future__ import annotations

from django.contrib import admin

from tests.app.models import Document

admin.site.register(Document)
