"""A middleware that notes how long each answer took, and its queries, until it is ready to be sent.

What is done after an answer was sent keeps nobody waiting, and is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test.utils import CaptureQueriesContext

#: Milliseconds and queries of each answer.
ANSWERS: list[tuple[float, int]] = []


def timed(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Note each answer; queries are counted where the request asks for it, for that takes time as well."""

    def respond(request: HttpRequest) -> HttpResponse:
        if "HTTP_X_COUNT" in request.META:
            with CaptureQueriesContext(connection) as queries:
                response = get_response(request)
            ANSWERS.append((0.0, len(queries)))
            return response
        started = time.perf_counter()
        response = get_response(request)
        ANSWERS.append(((time.perf_counter() - started) * 1000, 0))
        return response

    return respond
