"""Are the stored bytes of a version still those that its manifest names?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.errors import RegistryError
from gateway.registry.blobs import BlobCheck, BlobState, BlobStore, Progress
from gateway.registry.manifest import Manifest

__all__ = ["Finding", "VerifyReport", "verify"]

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


def verify(manifest_digest: str, blobs: BlobStore, progress: Progress | None = None) -> VerifyReport:
    """Reads and hashes everything the version needs. Raises only for a malformed digest."""
    check = blobs.verify(manifest_digest)
    first = _finding("(manifest)", check, None)
    if not first.ok:
        return VerifyReport(manifest_digest, (first,))
    try:
        parts = Manifest.from_bytes(blobs.read(manifest_digest)).blobs()
    except RegistryError as error:  # sound bytes that are no manifest: somebody stored them by hand
        return VerifyReport(manifest_digest, (_unreadable(check, str(error)),))
    findings, done, total = [first], 0, sum(size for _, _, size in parts)
    for name, digest, size in parts:
        findings.append(_finding(name, blobs.verify(digest, size), size))
        done += size
        if progress is not None:
            progress(done, total)
    return VerifyReport(manifest_digest, tuple(findings))


def _finding(name: str, check: BlobCheck, size: int | None) -> Finding:
    advice = _ADVICE.get(check.state, "")
    problem = f"{check.problem}; {advice}" if check.problem else advice
    return Finding(name, check.state, check.digest, check.found, size, check.size_bytes, problem)


def _unreadable(check: BlobCheck, problem: str) -> Finding:
    return Finding("(manifest)", BlobState.UNREADABLE, check.digest, check.found, None, check.size_bytes, problem)
