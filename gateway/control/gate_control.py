"""Gates in control: what a model asks, whether a version has shown it, and what it takes to pass without.

A result counts while the same question would be asked (``gate_asking.Question.basis``), if this home signed it. How
gates are run is ``gate_runs``'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.gate_asking import Question, model_of, question
from gateway.control.gate_run import GateRunner
from gateway.control.gate_runs import GateRuns
from gateway.control.gatekeeping import GateOutcome, Override, declaration_digest
from gateway.control.jobs import Jobs
from gateway.control.store import AuditEntry, DocumentKey, Snapshot, Store
from gateway.errors import Conflict, GateRefused, InvalidRegistration, LoadError
from gateway.registry import canonical
from gateway.registry.blobs import BlobStore
from gateway.registry.gates.declaration import Declaration
from gateway.registry.gates.gate import Gate
from gateway.registry.gates.purposes import targets_in

__all__ = ["GateControl", "GateStatistics"]

View = dict[str, Any]
_HOUR_S = 3600.0
_CLOCKS_DIFFER_S = 300.0
_MAX_REASON = 1000


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """Runs of this process by model and outcome (``passed``, ``failed``), and overrides by model."""

    runs: Mapping[tuple[str, str], int]
    overrides: Mapping[str, int]


class GateControl:
    """``home`` and ``jobs``: as for ``runs``. ``targets``: names of the settings' targets; None where they are not
    known."""

    def __init__(
        self,
        store: Store,
        runner: GateRunner,
        *,
        home: Path,
        clock: Clock,
        jobs: Jobs | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        self._store = store
        self._blobs = runner.blobs
        self._clock = clock
        self._changes = Changes(store)
        self._targets = targets
        self._overrides: Counter[str] = Counter()
        self.runs = GateRuns(self._changes, runner, home=home, jobs=jobs)

    def __repr__(self) -> str:
        return f"<GateControl {self.runs!r}>"

    def statistics(self) -> GateStatistics:
        return GateStatistics(dict(self.runs.ended), dict(self._overrides))

    async def close(self) -> None:
        """Ends runs that go on in the foreground; the jobs end theirs."""
        await self.runs.close()

    # What is asked

    async def declared(self, model: str) -> View:
        """``{"model", "revision", "gates", "digest"}``; ``gates`` None where nothing is asked. Raises UnknownModel."""
        snapshot = await self._store.snapshot()
        found = model_of(snapshot, model)
        return {
            "model": model,
            "revision": snapshot.documents[_key(model)].revision,
            "gates": canonical.thaw(found.gates),
            "digest": declaration_digest(found) or None,
        }

    async def declare(self, model: str, body: Any, *, actor: str, expected: int | None = None) -> View:
        """``body``: a declaration whose files are stored; None: nothing is asked from now on.

        Raises InvalidRegistration naming the key that is wrong, UnknownModel, StaleRevision.
        """
        declaration = None if body is None else Declaration.from_json(body)
        for file in () if declaration is None else declaration.blobs():
            entry = await asyncio.to_thread(self._blobs.entry, file.digest)
            if entry is None or entry.size_bytes != file.size_bytes:
                raise InvalidRegistration(
                    f"{file.name} ({file.digest}) is not stored here; send the file with the gates"
                )
        self._check_targets(() if declaration is None else declaration.gates)
        asked = None if declaration is None else declaration.to_json()

        def decide(snapshot: Snapshot) -> Decision:
            changed = model_of(snapshot, model).with_gates(asked)
            detail = {"digest": declaration_digest(changed) or None, "gates": asked}
            return Decision(changed.to_json(), AuditEntry(actor, "gates-declare", str(_key(model)), "", detail))

        await self._changes.write(_key(model), decide, expected=expected)
        return await self.declared(model)

    def _check_targets(self, gates: Sequence[Gate]) -> None:
        """A gate for a target that is misspelt would never be asked."""
        for gate in gates if self._targets is not None else ():
            for target in targets_in(gate.purposes):
                if target not in (self._targets or ()):
                    known = ", ".join(self._targets or ()) or "none"
                    raise InvalidRegistration(
                        f"gate {gate.name!r} is for target {target!r}, and the settings have {known}"
                    )

    @contextmanager
    def storing(self) -> Iterator[BlobStore]:
        """Where files of a declaration go. Held until ``declare`` has returned, it keeps gc away."""
        with self._blobs.registering():
            yield self._blobs

    # What was shown

    async def results(self, model: str, selector: str) -> View:
        """Runs of a version, newest last, with the newest report that this home signed; ``passes``: whether one counts
        now. Raises UnknownModel, UnknownVersion."""
        snapshot = await self._store.snapshot()
        entry = model_of(snapshot, model).resolve(selector)
        asked = question(snapshot, model, entry.number)
        newest = next((one["record"] for one in reversed(entry.gates) if one.get("record")), None)
        report, problem = None, ""
        if newest is not None:
            try:
                report = await asyncio.to_thread(self.runs.read, str(newest))
            except LoadError as fault:
                problem = str(fault)
        counts = None if asked is None else await self._fresh(asked)
        return {
            "model": model,
            "version": entry.number,
            "results": canonical.thaw(entry.gates),
            "report": report,
            "problem": problem,
            "asked": asked is not None,
            "passes": asked is None or counts is not None,
        }

    async def start(
        self, model: str, selector: str, *, against: str | None = None, actor: str, purpose: str = "asked"
    ) -> View:
        """Begins to run the gates as a job and gives it. Conflict where the model asks for nothing."""
        asked = await self._question(model, selector, against)
        return self.runs.job(asked, purpose, actor).to_json()

    async def run(
        self,
        model: str,
        selector: str,
        *,
        against: str | None = None,
        actor: str,
        purpose: str = "asked",
        purposes: Collection[str] | None = None,
    ) -> View:
        """Runs the gates, whatever was shown before, and returns the view of the run at its end; it may be one that did
        not pass. ``purposes``: those that are for one of these changes; None: all. Conflict where there are none."""
        return await self.runs.outcome(await self._question(model, selector, against, purposes), purpose, actor)

    async def require(
        self,
        model: str,
        version: int,
        *,
        purpose: str,
        against: int | None = None,
        override: Override | None = None,
        actor: str,
    ) -> GateOutcome:
        """See ``Gatekeeper``. With ``override`` nothing is run: what was shown last is passed over and written down."""
        asked = question(await self._store.snapshot(), model, version, against, purposes=(purpose,))
        if asked is None:
            return GateOutcome()
        if not asked.declaration.gates:
            return GateOutcome(asked.digest)
        beside = None if against is not None else _beside(asked)
        fresh = await self._fresh(asked)
        if fresh is not None:
            return GateOutcome(asked.digest, str(fresh["record"]), beside=beside)
        if override is not None:
            return await self._overridden(asked, override, purpose, actor)
        view = await self.runs.outcome(asked, purpose, actor)
        if not view["passed"]:
            report = view["report"]
            raise GateRefused(f"{asked.ref} does not pass the gates of its model: {view['why']}", report)
        return GateOutcome(asked.digest, str(view["record"]), report=view["report"], beside=beside)

    # How

    async def _question(
        self, model: str, selector: str, against: str | None, purposes: Collection[str] | None = None
    ) -> Question:
        snapshot = await self._store.snapshot()
        document = model_of(snapshot, model)
        entry = document.resolve(selector)
        beside = None if against is None else document.resolve(_selector(against)).number
        asked = question(snapshot, model, entry.number, beside, purposes=purposes)
        if asked is None or not asked.declaration.gates:
            raise Conflict(
                f"model {model} declares no gates, so there is nothing to run; declare some: "
                f"turnout gates {model} -f gates.yaml"
            )
        return asked

    async def _fresh(self, asked: Question) -> Mapping[str, Any] | None:
        """The newest result that counts: of this question, passed, young enough, and signed by this home."""
        for result in reversed(asked.entry.gates):
            if result.get("basis") not in asked.bases or not result.get("passed") or not result.get("record"):
                continue
            if not self._young(asked, float(result["at"])):
                continue
            try:
                report = await asyncio.to_thread(self.runs.read, str(result["record"]))
            except LoadError:
                continue
            said = (report.get("basis"), report.get("digest"), report.get("passed"))
            if said == (result["basis"], asked.entry.digest, True) and self._young(asked, float(report["ended_at"])):
                return dict(result)
        return None

    def _young(self, asked: Question, at: float) -> bool:
        """Of the future, it is of a clock that was wrong."""
        age_s = self._clock.wall() - at
        most = asked.declaration.fresh_h
        return age_s >= -_CLOCKS_DIFFER_S and (most is None or age_s <= most * _HOUR_S)

    async def _overridden(self, asked: Question, override: Override, purpose: str, actor: str) -> GateOutcome:
        reason = override.reason.strip()
        if not reason:
            raise InvalidRegistration("an override needs a reason: say why the version may pass gates that it did not")
        last = next((one for one in reversed(asked.entry.gates) if one.get("basis") == asked.basis), None)
        failed = tuple(str(name) for name in (last or {}).get("failed", ()))
        result = {
            "overridden": reason[:_MAX_REASON],
            "passed": False,
            "failed": list(failed),
            "at": self._clock.wall(),
            "basis": asked.basis,
            "declaration": asked.digest,
            "purpose": purpose,
            "by": actor,
        }
        await self.runs.note(
            asked,
            result,
            AuditEntry(
                actor,
                "gates-override",
                str(_key(asked.model.name)),
                reason,
                {
                    "version": asked.entry.number,
                    "purpose": purpose,
                    "failed": list(failed),
                    "run": last is not None,
                },
            ),
        )
        self._overrides[asked.model.name] += 1
        return GateOutcome(asked.digest, None, overridden=reason, failed=failed)


def _beside(asked: Question) -> tuple[str, int | None]:
    alias = asked.whole.champion
    return alias, asked.model.aliases.get(alias)


def _key(model: str) -> DocumentKey:
    return DocumentKey("model", model)


def _selector(text: str) -> str:
    """``3``, ``@champion``, ``champion`` for short, ``@sha256:…``."""
    return text if text.startswith("@") or text.isdigit() else f"@{text}"
