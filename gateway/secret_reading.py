"""Secrets, and addresses that are secrets, from where the settings say that they are. Nothing of them is ever shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gateway.environment import variable
from gateway.errors import SettingsError
from gateway.secret_command import MAX_SECRET_BYTES, printed_by
from gateway.settings_groups import SecretSource
from gateway.settings_notifications import NotificationTarget, check_address

__all__ = ["Fits", "SecretReader", "any_secret", "notification_address", "secret_of"]

Fits = Callable[[bytes, str], object]


def any_secret(value: bytes, place: str) -> None:
    """Fits."""


class SecretReader(Protocol):
    """``secret_of``, or what has the secret already. ``fits`` raises SettingsError for what its user cannot use; it
    gets the place, and shows nothing of the secret."""

    def __call__(self, source: SecretSource, place: str, *, fits: Fits) -> bytes: ...


def secret_of(
    source: SecretSource, place: str, *, fits: Fits = any_secret, stopped: Callable[[], bool] = lambda: False
) -> bytes:
    """The secret itself, as it is now; ``place`` is its key in the settings. Blocks while a command runs, which is
    ended when ``stopped`` says so. Raises SettingsError when it is not there, empty, or does not fit."""
    if source.command is not None:
        value, where = printed_by(source.command, place, timeout_s=source.timeout_s, stopped=stopped), f": {source}"
    elif source.env is not None:
        value, where = variable(source.env).encode(), f": {source}"
    else:
        value, where = _secret_file(source.file or Path(), place), ""
    if not value:
        raise SettingsError(f"{place}{where} is empty or not there; put the secret there, or leave the name out")
    fits(value, place)
    return value


def _secret_file(path: Path, place: str) -> bytes:
    try:
        with path.open("rb") as file:
            value = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{place}: {path} cannot be read: {error.strerror}") from None
    if len(value) > MAX_SECRET_BYTES:
        raise SettingsError(f"{place}: {path} has more than {MAX_SECRET_BYTES} bytes, which is no secret")
    return value.rstrip(b"\r\n")


def notification_address(target: NotificationTarget, kept: bytes | None = None) -> str:
    """Where the target is told; ``kept`` is what its secret says, where the address is one. Raises SettingsError when
    that is none."""
    if isinstance(target.url, str):
        return target.url
    place = f"notifications.targets.{target.name}.url"
    try:
        return check_address((secret_of(target.url, place) if kept is None else kept).decode())
    except ValueError:  # what it says is not shown: the address is a secret
        raise SettingsError(f"{place}: what is kept there is no address of HTTP; expected https://host/path") from None
