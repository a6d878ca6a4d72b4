"""The file of the first admin token, in a home: written once by its gateway, read by commands on the same machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway.errors import SettingsError

__all__ = ["ADMIN_TOKEN_FILE", "kept_secret", "secret_in"]

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name


def secret_in(home: Path) -> str | None:
    """What a gateway left there; None: nothing that this user may read."""
    try:
        return (home / ADMIN_TOKEN_FILE).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def kept_secret(home: Path, make: Callable[[], str]) -> str:
    """The secret in the file, made if it is missing: mode 0600, whole or not at all, never a second one. Raises
    SettingsError."""
    path = home / ADMIN_TOKEN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        if not path.exists():
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(make() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(partial, path)
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the admin token {path} cannot be written or read: {error}; check the owner and free space of its folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    if len(secret) < 32:
        raise SettingsError(f"{path} holds no admin token; remove the file, and the next start makes one")
    return secret
