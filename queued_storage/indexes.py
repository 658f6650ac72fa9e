"""Indexes that Django's own ``Index`` cannot make on every database, and the conditions that use them."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import connections, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement, Table
from django.db.models import Q, QuerySet
from django.db.models.functions import Left

# Characters of a name that MySQL and MariaDB index: at four bytes each they stay below the 3,072 that InnoDB takes,
# which a column of 1,024 does not. PostgreSQL takes 2,704 bytes of what is there; no name has more than 1,024.
INDEXED = 255
LONGEST = 1024


M = TypeVar("M", bound=models.Model)


class PartialIndex(models.Index):
    """An index over the rows that match ``where``, and over all rows where the database has no partial indexes.

    Django's own ``Index(condition=...)`` creates nothing there (MySQL, MariaDB) and only warns.
    """

    def __init__(self, *, where: Q, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.where = where

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Statement:
        """Return the statement that this database can carry out."""
        partial = schema_editor.connection.features.supports_partial_indexes
        index = models.Index(fields=self.fields, name=self.name, condition=self.where if partial else None)
        return index.create_sql(model, schema_editor, using=using, **kwargs)

    def deconstruct(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Describe the index for a migration."""
        path, args, kwargs = super().deconstruct()
        return path, tuple(args), {**kwargs, "where": self.where}


class PrefixIndex(models.Index):
    """An index over one column of text that serves ``beginning_with`` on every database."""

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Statement:
        """Return the statement for this database."""
        quote = schema_editor.connection.ops.quote_name
        (field,) = (field for field in model._meta.concrete_fields if field.name == self.fields[0])
        # The order of a collation serves no LIKE; and what is longer than an index takes is indexed by its beginning.
        ending = {"postgresql": " varchar_pattern_ops", "mysql": f"({INDEXED})"}
        return Statement(
            "CREATE INDEX %(name)s ON %(table)s (%(column)s%(ending)s)",
            table=Table(model._meta.db_table, quote),
            name=quote(self.name),
            column=quote(str(field.column)),
            ending=ending.get(schema_editor.connection.vendor, ""),
        )


def beginning_with(rows: QuerySet[M], field: str, prefix: str) -> QuerySet[M]:
    """Narrow ``rows`` down to those whose ``field`` begins with ``prefix``, cases told apart, through a PrefixIndex."""
    # LIKE folds cases on SQLite, a comparison does so on MySQL; together they are exact everywhere.
    rows = rows.alias(**{f"{field}_start": Left(field, len(prefix))})
    wanted = {f"{field}__startswith": prefix, f"{field}_start": prefix}
    # These say nothing new, but in the one form for which the database uses the index.
    vendor = connections[rows.db].vendor
    if vendor == "mysql":
        wanted[f"{field}__istartswith"] = prefix
    elif vendor == "sqlite":
        wanted[f"{field}__gte"] = prefix
        wanted[f"{field}__lte"] = prefix + chr(0x10FFFF) * max(LONGEST - len(prefix), 0)
    return rows.filter(**wanted)
