"""Each attempt is a span of OpenTelemetry, and needs none of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from queued_storage import lanes, sweeping, tracing
from queued_storage.exceptions import ErrorKind, TransferError
from tests.fixtures import Pair, put

pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytest_plugins = ["tests.fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The spans that end in this test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_a_transfer_is_a_span(pair: Pair, spans: Any) -> None:
    """It says which file it was and how it ended."""
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "transferred"
    (span,) = spans.get_finished_spans()
    assert span.name == "queued_storage.transfer"
    assert span.status.is_ok or span.status.is_unset
    assert dict(span.attributes) == {
        "queued_storage.record_id": record.pk,
        "queued_storage.storage": "default",
        "queued_storage.file": "a.txt",
        "queued_storage.state": "transferring",
        "queued_storage.retries": 1,
        "queued_storage.outcome": "transferred",
        "queued_storage.bytes": 7,
        "queued_storage.kind": "",
        "queued_storage.error": "",
    }


def test_an_error_is_its_status(pair: Pair, spans: Any) -> None:
    """It is redacted like everywhere else."""

    def fault(name: str) -> None:
        raise TransferError("403 for password=hunter2", ErrorKind.DENIED)

    pair.remote.faults["save"] = fault
    record = put(pair, "a.txt")
    assert sweeping.process(record.pk) == "retry"
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok
    assert span.status.description == "TransferError: 403 for password=********"
    assert span.attributes["queued_storage.kind"] == "denied"
    assert sweeping.process(record.pk + 1) is None
    assert len(spans.get_finished_spans()) == 1


def test_spans_of_other_threads_belong_to_the_same(spans: Any) -> None:
    """What is done in several threads is part of the trace of the task that it is done for."""

    def work(item: int) -> None:
        with tracing.span("child"):
            pass

    made = lanes.Lanes(work)
    with tracing.span("task"):
        for number in range(4):
            made.put(number, 2)
        assert all(made.get(20) for _ in range(4))
    assert made.close() == []
    *children, task = spans.get_finished_spans()
    assert [(span.name, span.parent.span_id) for span in children] == [("child", task.context.span_id)] * 4
    assert task.parent is None


def test_without_opentelemetry(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missed."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    tracing._api.cache_clear()
    try:
        assert sweeping.process(put(pair, "a.txt").pk) == "transferred"
        assert tracing._api() is None
    finally:
        tracing._api.cache_clear()
