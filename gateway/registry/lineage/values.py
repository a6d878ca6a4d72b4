"""Data in memory, as a training has it: a table with named columns, or arrays; rows, columns, and a digest."""

from __future__ import annotations

from typing import Any

from gateway.registry.lineage import files, fitted

__all__ = ["in_memory"]


def in_memory(source: Any) -> dict[str, Any]:
    """A table with named columns, or arrays: rows, columns and a digest of what is in them."""
    columns = getattr(source, "columns", None)
    if columns is not None and hasattr(source, "__getitem__"):
        parts = {str(name): source[name] for name in columns}
        kinds = {name: str(getattr(part, "dtype", type(part).__name__)) for name, part in parts.items()}
        values = {name: getattr(part, "to_numpy", lambda part=part: part)() for name, part in parts.items()}
        return {"digest": fitted.fitted_digest(values), "rows": len(source), "schema": files.schema(kinds)}
    first = source[0] if isinstance(source, tuple) and source else source
    shape = getattr(first, "shape", None)
    rows = int(shape[0]) if shape else len(first) if hasattr(first, "__len__") else None
    found = {"digest": fitted.fitted_digest(source), "of": "values"}
    return found if rows is None else found | {"rows": rows}
