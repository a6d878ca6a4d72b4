"""A report as JUnit XML, which every CI system shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from gateway.registry.gates.report import State

__all__ = ["junit"]


def junit(report: Mapping[str, Any]) -> bytes:
    """A report's JSON as JUnit XML: a test suite with a test case for each gate, which CI systems show."""
    gates: Sequence[Mapping[str, Any]] = report["gates"]
    counts = {state: sum(gate["state"] == state for gate in gates) for state in State}
    took = sum(float(gate["took_s"]) for gate in gates)
    name = f"{report['model']}/{report['version']}"
    suite = ET.Element(
        "testsuite",
        name=_clean(name),
        tests=str(len(gates)),
        failures=str(counts[State.FAILED]),
        errors=str(counts[State.ERROR]),
        skipped=str(counts[State.SKIPPED]),
        time=f"{took:.3f}",
    )
    for gate in gates:
        case = ET.SubElement(
            suite, "testcase", classname=_clean(name), name=_clean(gate["name"]), time=f"{float(gate['took_s']):.3f}"
        )
        word = {State.FAILED: "failure", State.ERROR: "error", State.SKIPPED: "skipped"}.get(State(gate["state"]))
        if word is not None:
            ET.SubElement(case, word, message=_clean(gate["said"]), type=str(gate["kind"]))
        ET.SubElement(case, "system-out").text = _clean(f"{gate['said']}\n{dict(gate['numbers'])}")
    suites = ET.Element("testsuites", name="turnout gates", tests=str(len(gates)))
    suites.append(suite)
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True))


def _clean(text: str) -> str:
    """XML 1.0 has no place for control characters, however they are written."""
    kept = (one if one in "\t\n\r" or " " <= one <= "\ud7ff" or one > "\udfff" else "?" for one in str(text))
    return "".join(kept).replace("\ufffe", "?").replace("\uffff", "?")
