"""How long to wait: pure functions of numbers and settings."""

from __future__ import annotations

import random
from datetime import timedelta

from queued_storage.conf import settings


def retry_delay(retries: int) -> timedelta:
    """Return the delay before the next attempt after ``retries`` counted ones.

    It doubles from QUEUED_STORAGE_RETRY_DELAY to QUEUED_STORAGE_BACKOFF_CAP; up to a fifth is taken off at random, so
    that files which failed together do not return together.
    """
    cap, delay = settings.QUEUED_STORAGE_BACKOFF_CAP, settings.QUEUED_STORAGE_RETRY_DELAY
    # Doubled no further than the cap: a timedelta overflows after some thirty doublings of a day.
    doublings = min(max(retries - 1, 0), int(cap / delay).bit_length())
    full: timedelta = min(cap, delay * 2**doublings)
    return full * random.uniform(0.8, 1.0)


def stalled(retries: int) -> bool:
    """Tell whether a record has used up the retries of QUEUED_STORAGE_RETRIES."""
    return retries > settings.QUEUED_STORAGE_RETRIES


def resend_delay(age: timedelta) -> timedelta:
    """Return when to send another message for a queued record of this age.

    It grows with the age in powers of two, so that workers that are away for a day never find millions of messages.
    """
    delay, cap = settings.QUEUED_STORAGE_RESEND_DELAY, settings.QUEUED_STORAGE_RESEND_CAP
    while delay < cap and delay * 2 <= age:
        delay *= 2
    return min(delay, cap)
