"""Model fields whose files know how to be transferred."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from django.db.models import Model
from django.db.models.fields.files import (
    FieldFile,
    FileDescriptor,
    FileField,
    ImageField,
    ImageFieldFile,
    ImageFileDescriptor,
)


class QueuedFieldFile(FieldFile):
    """The file of a ``QueuedFileField``."""

    def transfer(self) -> Any:
        """Queue the file of a ``delayed`` storage, or ask again for one that is owed; returns the task's result.

        Raises ``ValueError`` if the field has no file.
        """
        self._require_file()  # type: ignore[attr-defined]
        return self.storage.transfer(self.name)  # type: ignore[attr-defined]


class QueuedFileField(FileField):
    """A ``FileField`` for a queued storage: its files have ``transfer()``."""

    attr_class = QueuedFieldFile

    if TYPE_CHECKING:
        # Django's stubs give every field's file the plain class.
        @overload  # type: ignore[override]
        def __get__(self, instance: None, owner: object) -> FileDescriptor: ...
        @overload
        def __get__(self, instance: Model, owner: object) -> QueuedFieldFile: ...
        def __get__(self, instance: Model | None, owner: object) -> FileDescriptor | QueuedFieldFile: ...


class QueuedImageFieldFile(QueuedFieldFile, ImageFieldFile):
    """The file of a ``QueuedImageField``."""


class QueuedImageField(ImageField):
    """An ``ImageField`` for a queued storage: its files have ``transfer()``."""

    attr_class = QueuedImageFieldFile

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def __get__(self, instance: None, owner: object) -> ImageFileDescriptor: ...
        @overload
        def __get__(self, instance: Model, owner: object) -> QueuedImageFieldFile: ...
        def __get__(self, instance: Model | None, owner: object) -> ImageFileDescriptor | QueuedImageFieldFile: ...
