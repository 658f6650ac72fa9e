"""Moments in the form that Django's storages give them."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.utils.timezone import make_naive


def django_time(moment: datetime) -> datetime:
    """Return an aware ``moment`` as it is with ``USE_TZ``, otherwise naive in Django's time zone."""
    return moment if settings.USE_TZ else make_naive(moment)
