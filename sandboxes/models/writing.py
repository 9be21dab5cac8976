from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db import connection, models


def write_if(
    model: type[models.Model],
    pk: int,
    changed: Mapping[str, object],
    condition: str,
    values: Sequence[object] = (),
) -> bool:
    """
    Save fields to a row, by its key, if an SQL condition on it holds; return whether it did.

    Written out, for what every claim and first call waits for: the ORM takes longer to write such
    a question down than a database to do it. Names are those of fields, or of their columns.
    """
    meta = model._meta
    fields = [meta.get_field(name) for name in changed]
    given = zip(fields, changed.values(), strict=True)
    prepared = [field.get_db_prep_save(value, connection) for field, value in given]
    columns = ", ".join(f"{field.column} = %s" for field in fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {meta.db_table} SET {columns} WHERE id = %s AND {condition}",  # noqa: S608
            [*prepared, pk, *values],
        )
        return cursor.rowcount == 1
