"""``turnout audit``: proofs and checkpoints, from a home, through a gateway, and on a file with neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Turnout
from tests.cli.test_commands import two_versions


@pytest.fixture
def kept(local: Turnout, tmp_path: Path) -> Path:
    """A folder as an auditor has it: checkpoint, public key, export; of a log of some records."""
    local.done("apply", "-f", two_versions(local, "digits"))
    for weight in (20, 30):
        local.done("weights", "digits", f"1={100 - weight}", f"2={weight}")
    (tmp_path / "checkpoint").write_text(local.done("audit", "checkpoint").out)
    (tmp_path / "audit.pub").write_text(local.done("audit", "key").out)
    local.done("audit", "export", tmp_path / "log.jsonl")
    return tmp_path


def proof(kept: Path, log: str = "log.jsonl", checkpoint: str = "checkpoint") -> tuple[str | Path, ...]:
    return ("--export", kept / log, "--checkpoint", kept / checkpoint, "--key", kept / "audit.pub")


def test_a_log_is_proved_on_its_home_and_anywhere_by_its_export(local: Turnout, kept: Path) -> None:
    """The same number of records and the same head; a line of JSON for each record."""
    here = local.done("audit", "verify", "--checkpoint", kept / "checkpoint", "--json").json
    there = local.done("audit", "verify", *proof(kept), "--json", TURNOUT_HOME=str(kept / "nowhere")).json
    assert here == there
    assert (here["ok"], here["fault"], here["checkpoints"]) == (True, None, 1)
    assert here["records"] == len((kept / "log.jsonl").read_text().splitlines())
    assert "1 checkpoint agrees" in local.done("audit", "verify", *proof(kept)).out
    piped = local("audit", "verify", "--export", "-", stdin=local.done("audit", "export").out)
    assert piped.status == 0


def test_a_log_that_was_touched_fails_with_the_record_that_is_not_as_it_was(local: Turnout, kept: Path) -> None:
    """Exit status 1, one line; a tail that is missing is told by the checkpoint."""
    lines = (kept / "log.jsonl").read_text().splitlines()
    for touched, said in (
        ([*lines[:2], lines[2].replace('"reason":""', '"reason":"because"'), *lines[3:]], "record 3 was altered"),
        ([*lines[:2], *lines[3:]], "record 3 is missing or out of order"),
        ([*lines[:2], lines[3], lines[2], *lines[4:]], "record 3 is missing or out of order"),
        (lines[:-1], f"names {len(lines)}: its last 1 record is missing"),
        ([], "ends at record 0"),
    ):
        (kept / "touched.jsonl").write_text("".join(f"{line}\n" for line in touched))
        failed = local("audit", "verify", *proof(kept, "touched.jsonl"))
        assert (failed.status, failed.out) == (1, "")
        assert said in failed.err
    answer = local("audit", "verify", *proof(kept, "touched.jsonl"), "--json")
    assert (answer.status, answer.json["ok"]) == (1, False)


def test_a_proof_says_what_it_does_not_prove(local: Turnout, kept: Path) -> None:
    """Seals alone do not tell another history from the true one, and a checkpoint says nothing of what came later."""
    alone = local.done("audit", "verify").out
    assert "No checkpoint was given" in alone
    assert "written anew" in alone
    assert "written anew" not in local.done("audit", "verify", *proof(kept)).out
    local.done("weights", "digits", "1=60", "2=40")
    later = local.done("audit", "verify", "--checkpoint", kept / "checkpoint", "--key", kept / "audit.pub").out
    assert "1 later record could be written anew unseen" in later


def test_an_export_is_whole_or_not_there(local: Turnout, kept: Path) -> None:
    """A part of a log proves itself as well as the whole; so what fails leaves what was there, and none is no log."""
    before = (kept / "log.jsonl").read_bytes()
    (kept / "store-that-is-none").mkdir()
    (kept / "store-that-is-none" / "store.sqlite3").write_text("no database")
    failed = local("audit", "export", kept / "log.jsonl", TURNOUT_HOME=str(kept / "store-that-is-none"))
    assert (failed.status, (kept / "log.jsonl").read_bytes()) == (1, before)
    assert local("audit", "export", kept / "nowhere" / "log.jsonl").status == 1
    assert not list(kept.glob(".*.partial"))
    (kept / "empty").touch()
    empty = local("audit", "verify", "--export", kept / "empty")
    assert (empty.status, "holds no record" in empty.err) == (1, True)
    assert local.done("audit", "export", "/dev/stdout").out


def test_a_forged_checkpoint_is_refused(local: Turnout, kept: Path) -> None:
    """One that was edited to fit, one by another key, and one that is none."""
    lines = (kept / "log.jsonl").read_text().splitlines()
    (kept / "short.jsonl").write_text("".join(f"{line}\n" for line in lines[:-1]))
    note = (kept / "checkpoint").read_text().split("\n")
    (kept / "forged").write_text("\n".join([note[0], str(len(lines) - 1), *note[2:]]))
    (kept / "none").write_text("all is well\n")
    for name, said in (("forged", "not signed by the key"), ("none", "no checkpoint")):
        refused = local("audit", "verify", *proof(kept, "short.jsonl", name))
        assert refused.status == 1
        assert said in refused.err
    other = {"TURNOUT_HOME": str(kept / "another")}
    (kept / "another").mkdir()
    local.done("tokens", "create", "olga", **other)
    foreign = local("audit", "verify", "--checkpoint", kept / "checkpoint", "--key", kept / "audit.pub", **other)
    assert foreign.status == 1
    assert "missing" in foreign.err


def test_a_checkpoint_without_a_key_asks_for_one(local: Turnout, kept: Path) -> None:
    """Nobody's word is taken for it."""
    asked = local("audit", "verify", *proof(kept)[:4], TURNOUT_HOME=str(kept / "nowhere"))
    assert asked.status == 1
    assert "give --key FILE" in asked.err


def test_a_gateway_gives_checkpoints_and_its_log_is_proved_through_it(remote: Turnout, tmp_path: Path) -> None:
    """The command line walks the chain itself; the gateway only hands out records."""
    remote.done("tokens", "create", "auditor")
    (tmp_path / "checkpoint").write_text(remote.done("audit", "checkpoint").out)
    (tmp_path / "audit.pub").write_text(remote.done("audit", "key").out)
    remote.done("tokens", "revoke", "auditor")
    words = ("audit", "verify", "--checkpoint", tmp_path / "checkpoint", "--key", tmp_path / "audit.pub", "--json")
    found = remote.done(*words).json
    assert (found["ok"], found["checkpoints"]) == (True, 1)
    newest = json.loads(remote.done("audit", "--json", "--limit", "1").out)[0]
    assert newest["action"] == "token-revoke"
    assert len(newest["token"]) == 16
