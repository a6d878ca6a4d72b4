"""What differs between an environment and the lock file that it was built from."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import InvalidRegistration

__all__ = ["EnvironmentRefused", "Mismatch"]


class EnvironmentRefused(InvalidRegistration):
    """The environment of a version cannot be built here, or is not what its lock file says."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """``what`` is a package, one of its files, ``python``, or the ``environment``; ``found`` None: it is not there."""

    what: str
    wanted: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.what}: {self.wanted} was expected, {self.found or 'none'} is here"

    def to_json(self) -> dict[str, str | None]:
        return {"what": self.what, "wanted": self.wanted, "found": self.found}
