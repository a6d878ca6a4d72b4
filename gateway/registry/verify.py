"""Are the stored bytes of a version still those that its manifest names?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.errors import RegistryError
from gateway.registry.blob_records import BlobCheck, BlobState, Progress
from gateway.registry.manifest import Manifest

__all__ = ["Finding", "Provable", "VerifyReport", "verify"]

_ADVICE = {
    BlobState.MISSING: "restore it from a backup, or register the version again from its source",
    BlobState.TRUNCATED: "the disk may be failing: restore it from a backup, or register the version again",
    BlobState.ALTERED: "restore it from a backup, or register the version again; find out who wrote there",
    BlobState.UNREADABLE: "check the disk and the rights of the file",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One file of a version. ``found`` is the digest of the bytes there, None if none could be read."""

    name: str
    state: BlobState
    expected: str
    found: str | None
    expected_bytes: int | None
    found_bytes: int
    advice: str = ""

    @property
    def ok(self) -> bool:
        return self.state is BlobState.OK

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: ok"
        of = f" of {self.expected_bytes}" if self.expected_bytes is not None else ""
        found = f", found {self.found} ({self.found_bytes}{of} bytes)" if self.found else ""
        return f"{self.name}: {self.state}: expected {self.expected}{found}; {self.advice}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": str(self.state),
            "expected": self.expected,
            "found": self.found,
            "expected_bytes": self.expected_bytes,
            "found_bytes": self.found_bytes,
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The manifest first, then every file; of a damaged manifest nothing else can be said."""

    digest: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {"digest": self.digest, "ok": self.ok, "files": [finding.to_json() for finding in self.findings]}


class Provable(Protocol):
    """Where blobs can be read to their end: a BlobStore, or one at a URL."""

    def verify(self, digest: str, size_bytes: int | None = None) -> BlobCheck: ...

    def read(self, digest: str) -> bytes: ...


def verify(
    manifest_digest: str,
    blobs: Provable,
    progress: Progress | None = None,
    *,
    known: dict[str, BlobCheck] | None = None,
    files: bool = True,
    beside: Iterable[str] = (),
) -> VerifyReport:
    """Reads and hashes everything the version needs, and what its catalogue names ``beside``. Raises for a malformed
    digest, and RegistryError when a store at a URL cannot be asked.

    ``known``: what was hashed already; it is added to. ``files`` False: they were given up, and are not asked for.
    """
    seen = {} if known is None else known

    def checked(digest: str, size: int | None = None) -> BlobCheck:
        if digest not in seen:
            seen[digest] = blobs.verify(digest, size)
        return seen[digest]

    check = checked(manifest_digest)
    first = _finding("(manifest)", check, None)
    if not first.ok:
        return VerifyReport(manifest_digest, (first,))
    try:
        parts = Manifest.from_bytes(blobs.read(manifest_digest)).blobs() if files else ()
    except RegistryError as error:  # sound bytes that are no manifest: somebody stored them by hand
        return VerifyReport(manifest_digest, (_unreadable(check, str(error)),))
    findings, done, total = [first], 0, sum(size for _, _, size in parts)
    for name, digest, size in parts:
        findings.append(_finding(name, checked(digest, size), size))
        done += size
        if progress is not None:
            progress(done, total)
    findings += [_finding(f"(beside: {digest[:19]}…)", checked(digest), None) for digest in beside]
    return VerifyReport(manifest_digest, tuple(findings))


def _finding(name: str, check: BlobCheck, size: int | None) -> Finding:
    advice = _ADVICE.get(check.state, "")
    problem = f"{check.problem}; {advice}" if check.problem else advice
    return Finding(name, check.state, check.digest, check.found, size, check.size_bytes, problem)


def _unreadable(check: BlobCheck, problem: str) -> Finding:
    return Finding("(manifest)", BlobState.UNREADABLE, check.digest, check.found, None, check.size_bytes, problem)
