"""Tasks as users write them: subclasses of ``Transfer``, a Celery task of their own, and an object with ``delay``."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from queued_storage.tasks import Transfer, TransferAndDelete

NOTIFIED: list[tuple[str, Any, Any]] = []
DELAYED: list[tuple[Any, ...]] = []


class TransferAndNotify(TransferAndDelete):
    """The example of the documentation: does more when the file has arrived."""

    def transfer(self, name: str, local: Any, remote: Any, **kwargs: Any) -> bool:
        """Transfer and remember it."""
        result = super().transfer(name, local, remote, **kwargs)
        if result:
            NOTIFIED.append((name, local, remote))
        return result


class Named(Transfer):
    """A subclass with a name of its own."""

    name = "tests.a_name_of_its_own"


class Answering(Transfer):
    """Returns ``answer`` after it has transferred, or has not."""

    answer: Any = True
    copies = True

    def transfer(self, name: str, local: Any, remote: Any, **kwargs: Any) -> Any:
        """Transfer if told to, and answer what was chosen."""
        if self.copies:
            super().transfer(name, local, remote, **kwargs)
        return self.answer


class Patient(Transfer):
    """Tries twice by itself before it gives up."""

    def transfer(self, name: str, local: Any, remote: Any, **kwargs: Any) -> bool:
        """Transfer, and once more after a failure."""
        return super().transfer(name, local, remote, **kwargs) or super().transfer(name, local, remote, **kwargs)


class OwnCopy(Transfer):
    """Copies with Django's own methods and never calls ours."""

    def transfer(self, name: str, local: Any, remote: Any, **kwargs: Any) -> bool:
        """Copy as the documentation of the two storages says."""
        with local.open(name) as file:
            remote.save(name, file)
        return bool(remote.exists(name))


class OwnRun(Transfer):
    """Overrides ``run`` as subclasses of 0.8 did."""

    seen: list[tuple[Any, ...]] = []

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Remember the arguments and go on."""
        self.seen.append(args)
        return super().run(*args, **kwargs)


@shared_task(name="tests.usertasks.plain")
def plain(*args: Any) -> None:
    """A Celery task that knows nothing of ours: copies by the six arguments."""
    copy(*args)


def copy(name: str, cache_key: str, local_path: str, remote_path: str, local_options: Any, remote_options: Any) -> None:
    """Copy a file between the default storage's sides as somebody else's task would."""
    from django.core.files.storage import default_storage

    with default_storage.local.open(name) as file:
        default_storage.remote.save(name, file)


class Delaying:
    """Something with ``delay`` that is no Celery task."""

    def delay(self, *args: Any) -> str:
        """Remember the arguments."""
        DELAYED.append(args)
        return "a result of its own"


delaying = Delaying()


class Failing:
    """Something whose ``delay`` raises."""

    def delay(self, *args: Any) -> None:
        """Raise."""
        raise RuntimeError("a bug in somebody's task")


failing = Failing()
