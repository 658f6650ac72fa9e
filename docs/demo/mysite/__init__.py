from __future__ import annotations

from mysite.celery import app as celery_app

# So that tasks find their app in every process, the web server included.
__all__ = ["celery_app"]
