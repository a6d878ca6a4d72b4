"""Runs the gates of one version and ends: ``python -m gateway.registry.gates.process``, as ``running`` asks for it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from gateway.errors import IntegrityError, TurnoutError
from gateway.registry.answering import Answering
from gateway.registry.canonical import DIGEST_PREFIX
from gateway.registry.examples import from_canonical
from gateway.registry.gates import budgets, checks
from gateway.registry.gates.custom import custom
from gateway.registry.gates.datasets import DataFile, DataSet
from gateway.registry.gates.evaluation import Asked, Evaluation, evaluate
from gateway.registry.gates.gate import Gate
from gateway.registry.gates.golden import golden
from gateway.registry.gates.kinds import (
    AuthorGate,
    ChampionGate,
    EnvironmentGate,
    FairnessGate,
    GoldenGate,
    LatencyGate,
    MemoryGate,
    MetricGate,
    PythonGate,
    SignatureGate,
)
from gateway.registry.gates.report import Finding, State
from gateway.registry.gates.request import GateRequest, Side
from gateway.registry.gates.rows import rows_of
from gateway.registry.inspection import TrialFailed
from runtimes.answering import peak_bytes
from runtimes.example import synthetic_inputs
from runtimes.process import be_nice, die_with

__all__ = ["main"]

TELL_EVERY_S = 0.2

Tell = Callable[[Mapping[str, Any]], None]


def main() -> int:
    told = json.load(sys.stdin)
    die_with(told["parent"])
    be_nice()
    out = sys.stdout

    def tell(line: Mapping[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-gates-")))
        files = _Files(folder, {digest: int(handle) for digest, handle in told["files"].items()})
        run = _Run(GateRequest.from_json(told["request"]), files, tell, stack)
        run.through()
        tell({"end": {"peak_bytes": peak_bytes(), "largest_child_bytes": run.largest_child_bytes()}})
    return 0


class _Files:
    """Stored files by digest, proved once each by their bytes, under names that readers know the kind by."""

    def __init__(self, folder: Path, handles: Mapping[str, int]) -> None:
        self._folder = folder
        self._handles = handles
        self._proved: set[str] = set()

    def path(self, file: DataFile) -> Path:
        self._prove(file.digest)
        link = self._folder / file.digest.removeprefix(DIGEST_PREFIX) / Path(file.name).name
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            # By number of this process, so that a check of somebody's own can read it too.
            link.symlink_to(f"/proc/{os.getpid()}/fd/{self._handles[file.digest]}")
        return link

    def read(self, digest: str) -> bytes:
        self._prove(digest)
        return Path(f"/proc/self/fd/{self._handle(digest)}").read_bytes()

    def _handle(self, digest: str) -> int:
        if digest not in self._handles:
            raise IntegrityError(f"{digest}, which the gates need, is not in the store; offer it again")
        return self._handles[digest]

    def _prove(self, digest: str) -> None:
        if digest in self._proved:
            return
        with Path(f"/proc/self/fd/{self._handle(digest)}").open("rb") as file:
            found = DIGEST_PREFIX + hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise IntegrityError(f"a stored file was altered: its bytes have digest {found}, expected {digest}")
        self._proved.add(digest)


class _Run:
    """``stack`` ends the versions' processes."""

    def __init__(self, request: GateRequest, files: _Files, tell: Tell, stack: ExitStack) -> None:
        self._request = request
        self._files = files
        self._tell = tell
        self._stack = stack
        self._asked: dict[str, Asked] = {}
        self._told_at = 0.0

    def through(self) -> None:
        """Every gate, cheap ones first, so that what is clearly wrong is known soon."""
        for gates in _in_turn(self._request.declaration.gates):
            began = time.monotonic()
            self._tell({"stage": gates[0].name, "done": 0, "total": None})
            try:
                findings = self._findings(gates)
            except TurnoutError as fault:
                findings = [Finding(gate.name, gate.kind, State.ERROR, str(fault)) for gate in gates]
            took = (time.monotonic() - began) / len(gates)
            for finding in findings:
                self._tell({"finding": {**finding.to_json(), "took_s": round(took, 3)}})

    def largest_child_bytes(self) -> int:
        """Of the versions that were asked."""
        held = [0]
        for asked in self._asked.values():
            with suppress(TurnoutError):  # one that broke off tells nothing, and has been told of
                held.append(asked.answering.measure(synthetic_inputs(asked.signature), 0).peak_bytes or 0)
        return max(held)

    def _findings(self, gates: list[Gate]) -> list[Finding]:
        gate = gates[0]
        if isinstance(gate, MetricGate | ChampionGate | FairnessGate):
            return self._evaluated(gate.data, gates)
        return [self._finding(gate)]

    def _finding(self, gate: Gate) -> Finding:
        request = self._request
        if isinstance(gate, SignatureGate):
            wanted = [one for one in request.routes if not gate.routes or one["route"] in gate.routes]
            return checks.signature(gate, wanted)
        if isinstance(gate, AuthorGate):
            return checks.author(gate, request.signed.get(gate.name, {}))
        if isinstance(gate, EnvironmentGate):
            return checks.environment(gate, request.environment)
        if isinstance(gate, GoldenGate):
            return self._golden(gate)
        if isinstance(gate, PythonGate):
            data = None if gate.data is None else self._files.path(request.declaration.data[gate.data].file)
            code = self._files.read(gate.file.digest)
            return custom(gate, code, self._ask(request.version), self._champion(), data)
        return self._budget(gate)

    def _golden(self, gate: GoldenGate) -> Finding:
        version, champion = self._request.version, self._request.champion
        if gate.of == "champion" and champion is None:
            return Finding(gate.name, gate.kind, State.SKIPPED, "there is no champion yet")
        held = champion.golden if gate.of == "champion" and champion is not None else version.golden
        digest = held if gate.file is None else gate.file.digest
        data = None if digest is None else self._files.read(digest)
        return golden(gate, data, version.signature, self._ask(version).answering)

    def _budget(self, gate: Gate) -> Finding:
        version, champion = self._request.version, self._request.champion
        if isinstance(gate, LatencyGate):
            other = self._champion() if gate.at_most_ratio is not None else None
            own = self._ask(version)
            beside = None if other is None else other.answering
            return budgets.latency(gate, own.answering, beside, version.signature, self._batches(gate.data))
        if not isinstance(gate, MemoryGate):
            raise TypeError(f"no way to run a gate of kind {gate.kind}")
        against = champion if gate.at_most_ratio is not None else None
        return budgets.memory(
            gate,
            lambda: self._answering(version),
            None if against is None else lambda: self._answering(against),
            version.signature,
            self._batches(gate.data),
        )

    def _batches(self, data: str | None) -> budgets.Batches:
        version = self._request.version
        if data is not None:
            held = self._request.declaration.data[data]
            rows = next(rows_of(self._files.path(held.file), held, version.signature), None)
            return budgets.tiled(None if rows is None else rows.inputs)
        return budgets.tiled(None if version.example is None else from_canonical(self._files.read(version.example)))

    def _evaluated(self, name: str, gates: list[Gate]) -> list[Finding]:
        data: DataSet = self._request.declaration.data[name]
        compares = any(isinstance(gate, ChampionGate) for gate in gates)

        def tell(done: int) -> None:
            now = time.monotonic()
            if now - self._told_at >= TELL_EVERY_S:
                self._told_at = now
                self._tell({"stage": name, "done": done, "total": data.rows})

        own, other = self._ask(self._request.version), self._champion() if compares else None
        return evaluate(Evaluation(self._files.path(data.file), data, own, other), gates, tell)

    def _champion(self) -> Asked | None:
        champion = self._request.champion
        return None if champion is None else self._ask(champion)

    def _ask(self, side: Side) -> Asked:
        """Each version is loaded once for all gates that ask it."""
        if side.ref not in self._asked:
            answering = self._stack.enter_context(self._answering(side))
            self._asked[side.ref] = Asked(side.ref, side.signature, answering)
        return self._asked[side.ref]

    def _answering(self, side: Side) -> Answering:
        if side.spec is None:
            raise TrialFailed(side.problem, "load-failed")
        what = f"what {side.ref} was asked"
        return Answering(side.spec, side.signature, side.interpreter, self._request.load_timeout_s, what=what)


_CHEAP_FIRST = (SignatureGate, AuthorGate, EnvironmentGate, GoldenGate)


def _in_turn(gates: tuple[Gate, ...]) -> Iterator[list[Gate]]:
    """Those of one set of data together: it is gone through once."""
    rest = [gate for gate in gates if not isinstance(gate, _CHEAP_FIRST)]
    together: dict[str, list[Gate]] = {}
    for kind in _CHEAP_FIRST:
        for gate in gates:
            if isinstance(gate, kind):
                yield [gate]
    for gate in rest:
        if isinstance(gate, MetricGate | ChampionGate | FairnessGate):
            together.setdefault(gate.data, []).append(gate)
    yield from together.values()
    for gate in rest:
        if not isinstance(gate, MetricGate | ChampionGate | FairnessGate):
            yield [gate]


if __name__ == "__main__":
    sys.exit(main())
