"""Headers that an export goes out with, out of the secrets of the settings."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import SettingsError
from gateway.secret_reading import SecretReader
from gateway.settings import SecretSource

__all__ = ["headers_of"]

_TAB, _FIRST_VISIBLE, _DELETE = 9, 32, 127


def headers_of(sources: Mapping[str, SecretSource], place: str, read: SecretReader) -> dict[str, str]:
    """Raises SettingsError for a secret that is not there, or that no header can hold. Spaces around it are no part of
    a header's value, and a client that refuses them would show the value in its error."""
    return {
        name: read(source, f"{place}.{name}", fits=_check_header).decode("latin-1").strip(" \t")
        for name, source in sources.items()
    }


def _check_header(value: bytes, place: str) -> None:
    if not value.strip(b" \t"):
        raise SettingsError(f"{place}: what is kept there is nothing but spaces; expected the value of a header")
    if any(byte == _DELETE or (byte < _FIRST_VISIBLE and byte != _TAB) for byte in value):
        raise SettingsError(
            f"{place}: what is kept there has a line break, or another control character, within; expected the value "
            "of a header and nothing else"
        )
