"""What MLflow refuses, by meaning: what is not there, what does not answer, and where it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import mlflow
from mlflow.exceptions import MlflowException

_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND", "NOT_FOUND")


@contextmanager
def in_words() -> Iterator[None]:
    """MLflow's errors by meaning: what is not there, and what does not answer."""
    try:
        yield
    except MlflowException as error:
        if error.error_code in _GONE:
            raise LookupError(f"MLflow has none of it: {error.message}") from error
        if is_away(error):
            raise ConnectionError(
                f"MLflow at {server(mlflow.get_tracking_uri())} does not answer: {error.message}"
            ) from error
        raise ValueError(f"MLflow says: {error.message}") from error


def is_gone(error: MlflowException) -> bool:
    """There is none of it, and MLflow does answer."""
    return error.error_code in _GONE and not is_away(error)


def is_away(error: MlflowException) -> bool:
    return "API request to" in error.message or error.get_http_status_code() in (429, 502, 503, 504)


def server(uri: str) -> str:
    """The address without the password that may stand in it."""
    parts = urlsplit(uri)
    if not parts.hostname:
        return uri.rstrip("/")
    host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
