"""The cache: a copy of final answers. Without it, with a broken or a poisoned one, no answer changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.core.files.base import ContentFile
from django.db import transaction

from queued_storage import ledger, locations, sweeping
from queued_storage.locations import Location
from queued_storage.models import Side
from tests.conftest import Media
from tests.factories import RecordFactory
from tests.fixtures import MakePair, Pair, committing, finish, make_due, put, read, record_of, transfer

pytest_plugins = ["tests.fixtures"]
pytestmark = committing


class FailingCache(LocMemCache):
    """A cache whose every operation fails, slowly if told to."""

    wait = 0.0
    calls = 0

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        type(self).calls += 1
        time.sleep(self.wait)
        raise ConnectionError("the cache is away")

    add = get = set = delete = get_many = set_many = _fail


@pytest.fixture
def failing(settings: Any) -> Iterator[type[FailingCache]]:
    """Use a cache that fails."""
    caches_before = settings.CACHES
    settings.CACHES = {"default": {"BACKEND": "tests.test_locations.FailingCache"}}
    FailingCache.calls, FailingCache.wait = 0, 0.0
    yield FailingCache
    settings.CACHES = caches_before
    locations.breaker.succeeded()


def cached(pair: Pair, name: str) -> Any:
    """Return what the cache holds of a file."""
    return cache.get(pair.get_cache_key(name))


def answers(pair: Pair, names: list[str]) -> list[Any]:
    """Return every answer about each name."""
    found: list[Any] = []
    for name in names:
        exists = pair.exists(name)
        found.append((name, exists, pair.using_remote(name), pair.url(name)))
        if exists:
            found.append((pair.size(name), read(pair, name)))
    return found


def story(make_pair: MakePair, flush: Callable[[], None], options: dict[str, Any]) -> list[Any]:
    """Live through everything that can happen to a file; return every answer after every step."""
    pair, seen, named = make_pair(**options), [], {}
    names = ["a.txt", "b.txt", "c.txt", "unknown.txt", "foreign.txt"]

    def step(do: Callable[[], Any]) -> None:
        do()
        for _ in range(2):
            flush()
            seen.append(answers(pair, [named.get(name, name) for name in names]))

    def save(name: str, content: bytes) -> None:
        named[name] = pair.save(name, ContentFile(content))

    def process(name: str) -> None:
        sweeping.process(record_of(pair, name).pk)

    step(lambda: save("a.txt", b"first"))
    step(lambda: pair.remote.save("foreign.txt", ContentFile(b"foreign")))
    step(lambda: process("a.txt"))
    step(lambda: save("b.txt", b"second"))
    step(lambda: pair.delete("b.txt"))
    step(lambda: process("b.txt"))
    step(lambda: save("c.txt", b"third"))
    step(lambda: process("c.txt"))
    step(lambda: pair.delete("c.txt"))
    step(lambda: process("c.txt"))
    step(lambda: pair.delete("foreign.txt"))
    step(lambda: _undone(lambda: pair.delete("a.txt")))
    step(lambda: _undone(lambda: pair.save("d.txt", ContentFile(b"undone"))))
    step(lambda: pair.delete("a.txt"))
    step(finish)
    return seen


def _undone(do: Callable[[], Any]) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        do()
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "options", [{}, {"keep_local": False}, {"overwrite": True}], ids=["", "evicting", "overwriting"]
)
def test_no_answer_changes_without_the_cache(
    make_pair: MakePair, options: dict[str, Any], settings: Any, media: Media
) -> None:
    """At every step of a file's life all answers are the same with the cache, flushed, and without a cache."""
    stories = []
    for flush, alias in ((lambda: None, "default"), (cache.clear, "default"), (lambda: None, None)):
        settings.QUEUED_STORAGE_CACHE = alias
        cache.clear()
        stories.append(story(make_pair, flush, options))
        ledger.records().delete()
        for path in [*media.local.glob("*.txt"), *media.remote.glob("*.txt")]:
            path.unlink()
    assert len(stories[0]) == 30
    assert stories[0] == stories[1] == stories[2]


def test_only_final_answers_are_cached(pair: Pair) -> None:
    """While a file is local nothing is cached; the transfer puts its place there, the delete "gone"."""
    record = put(pair, "a.txt")
    assert pair.exists("a.txt")
    assert cached(pair, "a.txt") is None
    sweeping.process(record.pk)
    place = Location.load(cached(pair, "a.txt"))
    assert place == Location(Side.REMOTE, "a.txt", "a.txt", 7, record.digest, final=True)
    pair.delete("a.txt")
    assert cached(pair, "a.txt") == locations.GONE


def test_a_slow_reader(pair: Pair) -> None:
    """A reader that is slower than a transfer or a delete cannot bring an old answer back."""
    record = transfer(pair, "a.txt")
    late = locations.Location.of(record_of(pair, "a.txt"))
    pair.delete("a.txt")
    locations._remember(pair.get_cache_key("a.txt"), late, timedelta(days=1))
    assert not pair.exists("a.txt")
    assert record.pk


def test_an_uncommitted_delete_is_not_told(pair: Pair) -> None:
    """Before the commit the cache knows nothing of a delete; only the transaction itself sees it."""
    transfer(pair, "a.txt")
    before = cached(pair, "a.txt")
    with transaction.atomic():
        pair.delete("a.txt")
        assert not pair.exists("a.txt")
        assert cached(pair, "a.txt") == before
    assert cached(pair, "a.txt") == locations.GONE


def test_changes_of_a_former_transaction_are_forgotten(pair: Pair, django_assert_num_queries: Any) -> None:
    """What a transaction changed keeps later transactions of that connection from the cache no longer."""
    transfer(pair, "a.txt")
    _undone(lambda: pair.delete("a.txt"))
    with transaction.atomic(), django_assert_num_queries(0):
        assert pair.exists("a.txt")


def test_the_remote_name_in_the_cache(make_pair: MakePair) -> None:
    """Readers that only ask the cache find a file under the name that the remote chose."""
    pair = make_pair(remote="tests.storages.RenamingStorage", keep_local=False)
    transfer(pair, "a.txt")
    assert (pair.url("a.txt"), read(pair, "a.txt")) == ("https://remote.example/renamed/a.txt", b"content")


@pytest.mark.parametrize(
    "poison",
    ["", "x" * 100_000, 42, b"\x80", [], {}, object, "null", "[]", '["a",1,2]', '["a","b","c"]', '["a","b",1]', True],
    ids=lambda value: repr(value)[:12],
)
def test_a_poisoned_value(pair: Pair, poison: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A value in the cache that is not ours is a miss, and is told."""
    transfer(pair, "a.txt")
    cache.set(pair.get_cache_key("a.txt"), poison)
    with caplog.at_level(logging.WARNING, "queued_storage"):
        assert (pair.exists("a.txt"), read(pair, "a.txt"), pair.size("a.txt")) == (True, b"content", 7)
        assert pair.locate(["a.txt"])["a.txt"].side == Side.REMOTE
    assert "Ignored a foreign cache value" in caplog.text


@pytest.mark.parametrize("poison", ["nonsense", 42, b"\x80", [], {"a": 1}, "local"])
def test_a_poisoned_side(pair: Pair, media: Media, poison: Any) -> None:
    """A remembered side that is not one is a miss as well."""
    (media.remote / "a.txt").write_bytes(b"foreign")
    cache.set(f"{pair.get_cache_key('a.txt')}_side", poison)
    assert (pair.exists("a.txt"), read(pair, "a.txt")) == (True, b"foreign")


def test_a_failing_cache(make_pair: MakePair, failing: type[FailingCache]) -> None:
    """With the cache away everything works, and after the first failure it is left alone."""
    pair = make_pair()
    record = transfer(pair, "a.txt")
    assert (pair.exists("a.txt"), read(pair, "a.txt"), pair.locate(["a.txt"])["a.txt"].size) == (True, b"content", 7)
    pair.delete("a.txt")
    assert not pair.exists("a.txt")
    finish()
    assert failing.calls == 1
    assert ledger.records().get().pk == record.pk


def test_a_slow_cache(make_pair: MakePair, failing: type[FailingCache]) -> None:
    """A cache that answers late and wrong costs its time-out once."""
    pair = make_pair()
    record = RecordFactory(transferred=True, name="a.txt")
    failing.wait = 0.3
    began = time.perf_counter()
    assert [pair.exists("a.txt") for _ in range(20)] == [True] * 20
    assert time.perf_counter() - began < 3
    assert (failing.calls, record.pk) == (1, record.pk)


def test_no_cache_at_all(make_pair: MakePair, settings: Any) -> None:
    """With QUEUED_STORAGE_CACHE = None nothing is ever cached."""
    settings.QUEUED_STORAGE_CACHE = None
    pair = make_pair()
    transfer(pair, "a.txt")
    assert (pair.exists("a.txt"), cached(pair, "a.txt")) == (True, None)


def test_a_cache_alias_that_is_gone(make_pair: MakePair, settings: Any) -> None:
    """A cache that is not configured is a miss, not an error."""
    settings.QUEUED_STORAGE_CACHE = "nowhere"
    pair = make_pair()
    try:
        transfer(pair, "a.txt")
        assert pair.exists("a.txt")
    finally:
        locations.breaker.succeeded()


def test_keys(make_pair: MakePair, settings: Any) -> None:
    """A cache key is prefix and digest: of any name, short, and another one for each storage and prefix."""
    pair, other = make_pair(), make_pair("other", cache_prefix="theirs")
    key = pair.get_cache_key("a.txt")
    assert key.startswith("queued_storage_")
    assert len(pair.get_cache_key("ü" * 100 + "/" + "日" * 80)) == len(key) == len("queued_storage_") + 32
    assert other.get_cache_key("a.txt").startswith("theirs_")
    assert other.get_cache_key("a.txt")[-32:] != key[-32:]
    assert pair.get_cache_key("docs//a.txt") == pair.get_cache_key("docs/a.txt")
    settings.QUEUED_STORAGE_CACHE_PREFIX = "mine"
    assert pair.get_cache_key("a.txt") == f"mine_{key[-32:]}"


def test_many_names(pair: Pair, media: Media) -> None:
    """``locate`` answers for many names at once: moved, waiting, deleted and unknown."""
    transfer(pair, "moved.txt")
    put(pair, "waiting.txt")
    put(pair, "deleted.txt")
    pair.delete("deleted.txt")
    names = ["moved.txt", "waiting.txt", "deleted.txt", "unknown.txt"]
    for _ in range(2):
        found = pair.locate(names)
        sides = {name: location and location.side for name, location in found.items()}
        assert sides == {"moved.txt": "remote", "waiting.txt": "local", "deleted.txt": None, "unknown.txt": None}
        assert (found["unknown.txt"], found["deleted.txt"].final) == (None, True)
        cache.clear()


def test_a_remembered_side_is_forgotten(pair: Pair, media: Media, settings: Any) -> None:
    """Where a foreign file was found is remembered for as long as the setting says, and no longer than it is there."""
    settings.QUEUED_STORAGE_UNRECORDED_TIMEOUT = 60
    (media.remote / "a.txt").write_bytes(b"foreign")
    assert pair.exists("a.txt")
    (media.remote / "a.txt").unlink()
    with pytest.raises(FileNotFoundError):
        read(pair, "a.txt")
    cache.clear()
    assert not pair.exists("a.txt")


def test_a_cached_place_whose_file_was_deleted(pair: Pair) -> None:
    """A place that is still cached after a delete gives no bytes, and never another file's."""
    record = transfer(pair, "a.txt")
    stale = cached(pair, "a.txt")
    pair.delete("a.txt")
    finish()
    put(pair, "a.txt", b"another")
    cache.set(pair.get_cache_key("a.txt"), stale)
    with pytest.raises(FileNotFoundError):
        read(pair, "a.txt")
    make_due(record, by=timedelta(days=8))
    sweeping.sweep(sweeping.process_all)
    with pytest.raises(FileNotFoundError):
        read(pair, "a.txt")
