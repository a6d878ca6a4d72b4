"""``turnout truth``: a table for people, the whole report for machines, out of the home's file."""

from __future__ import annotations

from pathlib import Path

from gateway.clock import SystemClock
from gateway.telemetry.feedback.asks import ASK_JOIN
from gateway.telemetry.feedback.part import TruthPart
from gateway.telemetry.feedback.tables import LABELS_FILE
from tests.cli.conftest import Turnout
from tests.telemetry.feedback.stream import FUTURE_MS, OLD, cases, plainly, record, told


def test_the_table_shows_what_is_right_for_whom_and_how_sure_that_is(local: Turnout, tmp_path: Path) -> None:
    """Measures with intervals and estimates, slices with their gap, how many labels have come; and why there is
    nothing."""
    home = tmp_path / "home"
    home.mkdir()
    nothing = local("truth", "digits")
    assert (nothing.status, "no label has come" in nothing.err) == (1, True)
    part = TruthPart(home / LABELS_FILE, SystemClock())
    part.told("table", told())
    stream = cases(400, at_ms=FUTURE_MS)
    part.take([record(case) for case in stream])
    part.ask(ASK_JOIN, {"labels": [(case.id, case.label) for case in stream[:300]], "routes": None})
    part.close()
    mine = [case for case in stream[:300] if case.version == OLD]
    accuracy = plainly(mine)["accuracy"]
    shown = local("truth", "digits", "--days", "0")
    assert shown.status == 0, shown.err
    [row] = [line.split() for line in shown.out.splitlines() if line.split()[:3] == ["1", "all", "accuracy"]]
    assert row[3] == f"{accuracy:.4g}"
    assert row[-1].startswith("~")
    assert f"{len(mine)} of {sum(case.version == OLD for case in stream)} rows have their label" in shown.out
    assert "country=at" in shown.out
    assert "above that of" in shown.out
    whole = local("truth", "digits", "--days", "0", "--json").json
    assert whole["versions"]["1"]["measures"]["accuracy"]["value"] == accuracy
    other = local("truth", "letters")
    assert (other.status, "letters" in other.err) == (1, True)


def test_groups_that_say_nothing_are_one_row(local: Turnout, tmp_path: Path) -> None:
    """A slice by a field that has a value of its own for nearly everybody must not bury what the table has to say; a
    machine is given all of it."""
    home = tmp_path / "home"
    home.mkdir()
    part = TruthPart(home / LABELS_FILE, SystemClock())
    part.told("table", told())
    stream = [case._replace(version=OLD) for case in cases(100, at_ms=FUTURE_MS)]
    rare = [case._replace(country=f"c{place}") for place, case in enumerate(stream[:30])]
    stream = [*rare, *(case._replace(country="at") for case in stream[30:])]
    part.take([record(case) for case in stream])
    part.ask(ASK_JOIN, {"labels": [(case.id, case.label) for case in stream], "routes": None})
    part.close()
    shown = local("truth", "digits", "--days", "0")
    assert [line.split()[1] for line in shown.out.splitlines() if " country=" in line] == ["country=at"]
    [row] = [line for line in shown.out.splitlines() if " country: " in line]
    assert row.split()[1:8] == ["country:", "30", "of", "fewer", "than", "10", "rows"]
    whole = local("truth", "digits", "--days", "0", "--json").json
    assert len(whole["versions"]["1"]["slices"]["country"]["groups"]) == 31
