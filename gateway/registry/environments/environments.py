"""The virtual environments of versions: one for each lock file, built once, under the digest of its bytes.

FOLDER/<sha256>/              a whole environment, with ``environment.json`` that says what was put into it
FOLDER/.building-<sha256>-*   one that is being built, or was when its builder died
FOLDER/.lock-<sha256>         held while it is built or removed; the kernel lets go when its holder dies
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.registry.environments.mismatch import Mismatch

__all__ = ["Environments", "Told"]

Told = Callable[[str], None]
"""Called with what is being done, in a line of words."""


class Environments:
    """Safe from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"<Environments {self._folder}>"

    def interpreter(self, lock_digest: str) -> Path | None:
        """The Python of the environment; None where it is not built here, or is no longer whole."""
        raise NotImplementedError

    def build(self, lock: Path | bytes, *, progress: Told | None = None) -> Path:
        """Builds the environment, unless it is here, and gives its Python. Blocks, for minutes perhaps.

        InvalidRegistration when the lock file is none or cannot be met here; RegistryError, StorageFull when there is
        no room.
        """
        raise NotImplementedError

    def check(self, lock_digest: str) -> tuple[Mismatch, ...]:
        """What is not as the lock file says: nothing, if the environment is sound. Reads the disk, runs nothing."""
        raise NotImplementedError
