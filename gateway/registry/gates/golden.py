"""Golden requests: inputs with the answers they must get, as close as the gate asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.errors import InvalidRegistration, RegistryError, TurnoutError
from gateway.messages import Array, Arrays, Signature
from gateway.registry.answering import Answering
from gateway.registry.examples import Example
from gateway.registry.gates.kinds import GoldenGate
from gateway.registry.gates.report import Finding, State
from gateway.registry.gates.speaking import figure, finite
from gateway.registry.offered import parse_offered

__all__ = ["golden"]

SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Miss:
    """Where an answer is furthest from what was expected. ``excess``: by how much it passes what may be."""

    case: int
    output: str
    place: tuple[int, ...]
    expected: Any
    got: Any
    off: float
    excess: float

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "output": self.output,
            "at": list(self.place),
            "expected": self.expected,
            "got": self.got,
            "off_by": finite(self.off),
        }

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.place))}]" if self.place else ""
        off = f", off by {figure(self.off)}" if np.isfinite(self.off) else ""
        return f"case {self.case}, {self.output}{place}: expected {self.expected!r}, got {self.got!r}{off}"


def golden(gate: GoldenGate, data: bytes | None, signature: Signature, answering: Answering) -> Finding:
    """``data``: the golden file's bytes, JSON or YAML; None: there is none."""
    if data is None:
        whose = "the champion" if gate.of == "champion" else "the version"
        said = f"{whose} has no golden requests; register it with --golden FILE, or name a file in the gate"
        return Finding(gate.name, gate.kind, State.FAILED, said)
    try:
        cases = _cases(data)
        misses = [_missed(gate, index, case, signature, answering) for index, case in enumerate(cases)]
    except TurnoutError as fault:
        return Finding(gate.name, gate.kind, State.ERROR, str(fault))
    wrong = sorted((miss for miss in misses if miss is not None and miss.excess > 0), key=lambda miss: -miss.excess)
    off = [miss.off for miss in misses if miss is not None and np.isfinite(miss.off)]
    numbers: dict[str, Any] = {"cases": len(cases), "failed": len(wrong), "largest_difference": max(off, default=None)}
    numbers |= {"tolerance": gate.tolerance, "relative": gate.relative}
    numbers["worst"] = [miss.to_json() for miss in wrong[:SHOWN]]
    allowed = f"{figure(gate.tolerance)} is allowed" + (f" and {figure(gate.relative)} of it" if gate.relative else "")
    if wrong:
        said = f"{len(wrong)} of {len(cases)} golden requests are answered otherwise; {allowed}. {wrong[0]}"
        return Finding(gate.name, gate.kind, State.FAILED, said, numbers)
    largest = f", the largest difference {figure(max(off))}" if off else ""
    return Finding(gate.name, gate.kind, State.PASSED, f"{len(cases)} golden requests{largest}; {allowed}", numbers)


def _cases(data: bytes) -> Sequence[Mapping[str, Any]]:
    body = parse_offered(data, "the golden file")
    cases = body.get("cases") if isinstance(body, Mapping) else None
    if (
        not isinstance(cases, list)
        or not cases
        or not all(isinstance(c, Mapping) and {"inputs", "outputs"} <= c.keys() for c in cases)
    ):
        raise InvalidRegistration(
            'the golden file is none, or has no case: expected {"cases": [{"inputs": …, "outputs": …}]}'
        )
    return cases


def _missed(
    gate: GoldenGate, index: int, case: Mapping[str, Any], signature: Signature, answering: Answering
) -> _Miss | None:
    """The worst place of a case; None where every number is as expected."""
    inputs = Example.of_body({"inputs": case["inputs"]}, f"golden case {index}").inputs(signature)
    expected = _expected(case["outputs"], index, signature)
    outputs = answering.once(inputs)
    worst: _Miss | None = None
    for name, wanted in expected.items():
        found = _compare(gate, index, name, wanted, outputs)
        if found is not None and (worst is None or found.excess > worst.excess):
            worst = found
    return worst


def _expected(outputs: Any, index: int, signature: Signature) -> Arrays:
    """Of the outputs that the case names, in the signature's types."""
    named = set(outputs) if isinstance(outputs, Mapping) else None
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], Mapping):
        named = {str(one.get("name")) for one in outputs}
    specs = tuple(spec for spec in signature.outputs if named is None or spec.name in named)
    strange = sorted(set(named or ()) - {spec.name for spec in specs})
    if strange or not specs:
        known = ", ".join(spec.name for spec in signature.outputs)
        raise InvalidRegistration(f"golden case {index} expects an output {strange[:1]}; the version has {known}")
    try:
        return Example.of_body({"inputs": outputs}, f"golden case {index}, outputs").inputs(
            Signature(specs, specs, signature.batched)
        )
    except RegistryError as error:
        raise InvalidRegistration(str(error)) from error


def _compare(gate: GoldenGate, index: int, name: str, wanted: Array, outputs: Arrays) -> _Miss | None:
    got = outputs[name]
    if got.shape != wanted.shape:
        return _Miss(index, name, (), f"shape {list(wanted.shape)}", f"shape {list(got.shape)}", np.inf, np.inf)
    if not wanted.size:
        return None
    if wanted.dtype.kind not in "iuf":
        differs = np.asarray(wanted != got)
        off = excess = np.where(differs, np.inf, 0.0)
    else:
        with np.errstate(invalid="ignore"):
            one, other = wanted.astype(np.float64), got.astype(np.float64)
            off = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(other - one))
            off = np.where(np.isnan(off), np.inf, off)
            excess = off - gate.tolerance - gate.relative * np.abs(np.nan_to_num(one))
    place = tuple(int(axis) for axis in np.unravel_index(int(np.argmax(excess)), excess.shape))
    return _Miss(index, name, place, _shown(wanted[place]), _shown(got[place]), float(off[place]), float(excess[place]))


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")[:80]
    plain = value.item() if isinstance(value, np.generic) else value
    return str(plain) if isinstance(plain, float) and not np.isfinite(plain) else plain
