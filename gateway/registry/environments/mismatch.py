"""What differs between an environment and the lock file that it was built from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mismatch"]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """``what`` is a package, ``python``, or ``environment`` as a whole; ``found`` None: it is not there."""

    what: str
    wanted: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.what}: the lock file says {self.wanted}, here is {self.found or 'none'}"

    def to_json(self) -> dict[str, str | None]:
        return {"what": self.what, "wanted": self.wanted, "found": self.found}
