"""``turnout decisions`` on a home without a gateway: one, many by SQL, and the proof."""

from __future__ import annotations

from pathlib import Path

from gateway.checkpoints import DECISIONS, SigningKey
from gateway.clock import ManualClock
from gateway.telemetry.decisions.log import DecisionLog, LogOptions
from gateway.telemetry.decisions.part import DecisionPart
from gateway.telemetry.decisions.scribe import Scribe
from gateway.telemetry.decisions.secret import KeyedHash
from gateway.telemetry.decisions.segments import FOLDER, listed
from loadtests.live_gateway import LiveGateway, wait_until
from tests.cli.conftest import Turnout
from tests.telemetry.decisions.scene import TABLE, VERSION, answers, compact_closed, decision_id


def home_with_log(home: Path, count: int = 1000) -> Path:
    """Signed by the home's own key; all but the last segment compacted."""
    key, options = SigningKey.of(home, DECISIONS), LogOptions(segment_bytes=60_000)
    log = DecisionLog(home / FOLDER, key, clock=ManualClock(), options=options)
    part = DecisionPart(log, Scribe(KeyedHash.of(home)))
    part.told("table", TABLE)
    part.told("version", VERSION)
    for burst in answers(count):
        part.take(burst)
    part.close()
    compact_closed(home / FOLDER)
    return home / FOLDER


def test_one_decision_many_by_sql_and_a_whole_query(local: Turnout) -> None:
    """By its id or its request's; a condition; a query of one's own; what is no SQL is told of."""
    home_with_log(local.folder / "home")
    assert "sha256:ab" in local.done("decisions", decision_id(7)).out
    assert local.done("decisions", "request-7", "--json").json["decision"] == decision_id(7)
    rows = local.done("decisions", "--where", "answered = 4", "--limit", "3", "--json").json
    assert [row["decision"] for row in rows] == [decision_id(number) for number in (980, 960, 940)]
    table = local.done("decisions", "--sql", "SELECT answered, count(*) AS n FROM decisions GROUP BY 1 ORDER BY 1").out
    assert table.split() == ["ANSWERED", "N", "3", "950", "4", "50"]
    wrong = local("decisions", "--where", "no_such_field = 1")
    assert wrong.status == 1
    assert "no_such_field" in wrong.err
    assert local("decisions", "nobody").status == 1
    assert local("decisions", "--since", "yesterday").status == 2


def test_the_newest_are_listed_without_sql_on_a_home_and_over_http(
    local: Turnout, remote: Turnout, live: LiveGateway
) -> None:
    """Whoever has only an address and a token sees what was decided last: as much as asked for, of several pages."""
    home_with_log(local.folder / "home")
    rows = local.done("decisions", "--limit", "1200", "--json").json
    assert [row["decision"] for row in rows] == [decision_id(number) for number in reversed(range(1000))]
    live.register_echo("listed", "listed", {})
    live.put_route("listed", {"model": "listed", "split": [{"version": 1, "weight": 1}]})
    made = [live.predict("listed", [[0, 0, 0, 0]]).json()["decision"] for _ in range(3)]

    def listed_newest() -> bool:
        rows = remote.done("decisions", "--limit", "2", "--since", "1h", "--json").json
        return [row["decision"] for row in rows] == made[:0:-1]

    wait_until(listed_newest, what="the newest two decisions")
    assert "DURATION_US" in remote.done("decisions").out
    assert len(remote.done("decisions", "--since", "40000d", "--json").json) >= 3  # from before there was such a time


def test_the_proof_takes_checkpoints_from_elsewhere_and_names_what_is_wrong(local: Turnout, tmp_path: Path) -> None:
    """On the home, and on a copy with the public key; a segment that is gone, and a forged checkpoint, are told of."""
    folder = home_with_log(local.folder / "home")
    (tmp_path / "kept").write_text(local.done("decisions", "checkpoint").out)
    (tmp_path / "key").write_text(local.done("decisions", "key").out)
    given = ("--checkpoint", tmp_path / "kept", "--key", tmp_path / "key")
    report = local.done("decisions", "verify", *given, "--json").json
    assert (report["ok"], report["records"], report["agreed"] >= 1) == (True, 1000, True)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert "All 1000 records" in local.done("decisions", "verify", "--folder", copy, *given).out
    listed(copy)[1].parquet.unlink()
    broken = local("decisions", "verify", "--folder", copy, *given)
    assert broken.status == 1
    assert "segment 2 is missing" in broken.out
    text = (tmp_path / "kept").read_text()
    (tmp_path / "kept").write_text(text.replace(text.splitlines()[1], "7"))
    forged = local("decisions", "verify", *given)
    assert forged.status == 1
    assert "not signed by the key" in forged.err


def test_the_help_says_how_one_decision_is_asked_for(local: Turnout) -> None:
    """The form that everybody wants is no command's, so no list of commands shows it."""
    assert "turnout decisions ID" in " ".join(local.done("decisions", "--help").out.split())
