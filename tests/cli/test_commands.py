"""The ``turnout`` command as a user runs it: on a home, against a gateway, in pipes, and when things go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.cli.conftest import ROOT, Turnout, echo_source
from tests.cli.warm import WarmCommands
from tests.listening import nobody

ROUTE_FILE = """\
route: {name}
model: {name}
split: [{{version: 1, weight: 90}}, {{version: 2, weight: 10}}]
known_good: 1
"""


def two_versions(turnout: Turnout, name: str) -> Path:
    """A model with two versions and a file with a route over them."""
    for number in (1, 2):
        source = echo_source(turnout.folder, f"{name}-{number}", outputs={"y": float(number)})
        assert turnout.done("register", name, source).out.startswith(f"{name}/{number} registered: sha256:")
    path = turnout.folder / f"{name}.yaml"
    path.write_text(ROUTE_FILE.format(name=name), encoding="utf-8")
    return path


@pytest.mark.parametrize("words", [["--version"], ["routes", "--help"], ["models"], ["weights", "digits", "3"]])
def test_the_command_from_a_cold_start_does_the_same(local: Turnout, words: list[str]) -> None:
    """The other tests run it in a fork of a process that has its imports done."""
    environment = {**os.environ, **local.environment, "PYTHONPATH": str(ROOT)}
    cold = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=local.folder,
        timeout=200,
        check=False,
    )
    warm = local(*words)
    assert (cold.returncode, cold.stdout, cold.stderr) == (warm.status, warm.out, warm.err)
    assert warm.out + warm.err


def test_a_home_is_worked_on_without_a_gateway(local: Turnout) -> None:
    """From an empty folder to a route, its history, and back."""
    path = two_versions(local, "digits")
    assert local.done("models").out.split()[:5] == ["MODEL", "VERSIONS", "NEWEST", "REGISTERED", "ALIASES"]
    assert local.done("promote", "digits/2", "--alias", "champion").out == "digits@champion is digits/2\n"
    assert "digits/2" in local.done("show", "digits@champion").out
    assert local("diff", "-f", path).status == 1
    assert local.done("apply", "-f", path).out.startswith("route digits created (revision ")
    assert local("diff", "-f", path).status == 0
    assert local.done("apply", "-f", path).out.startswith("route digits unchanged")
    assert "1=50 2=50" in local.done("weights", "digits", "1=50", "2=50").out
    assert "1=100" in local.done("rollback", "digits", "--reason", "a test").out
    refused = local("weights", "digits", "2=1")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("error: ")
    assert "quarantine" in refused.err
    local.done("lift", "digits", "2")
    history = local.done("history", "digits", "--json").json
    assert "1=90 2=10" in local.done("restore", "digits", str(history[-1]["revision"])).out
    assert "known good" in local.done("routes").out.lower()
    assert "a test" in local.done("audit").out
    assert "none altered or removed" in local.done("audit", "--verify").out
    assert local.done("verify", "--all").out.count(" ok ") == 2


def test_a_decision_is_explained_in_words(local: Turnout) -> None:
    """Which version a key gets, why, and whom other weights would move; for people and for machines."""
    path = two_versions(local, "digits")
    created = local.done("apply", "-f", path).out
    told = local.done("explain", "digits", "ada").out
    assert told.startswith("Key 'ada' (of the request) on route digits gets version 1, by the split.\n")
    for fact in ("place ", "(90% of all keys)", "1=90 2=10", "epoch       1\n", "known good  1\n"):
        assert fact in told
    asked = local.done("explain", "digits", "ada", "--weights", "1=70", "2=30").out
    assert "With 1=70 2=30 the key stays at version 1; 20% of all keys move, the fewest that can be." in asked
    assert asked.splitlines()[-1].split() == ["1", "2", "20%"]
    change = local.done("explain", "digits", "--weights", "1=70,2=30", "--json").json["change"]
    assert change["moved"] == pytest.approx(0.2)
    local.done("weights", "digits", "2=1")
    assert "gets version 2" in local.done("explain", "digits", "-H", "X-Key=ada").out
    revision = created.partition("revision ")[2].rstrip(")\n")
    assert "gets version 1" in local.done("explain", "digits", "ada", "--revision", revision).out
    assert "name a key to ask about one" in local.done("explain", "digits", "--context", '{"a": 1}').out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ada", "bob"], "one word too many"),
        (["ada", "--context", "{"], "not valid JSON"),
        (["ada", "--context", "3"], "expected a JSON object"),
        (["ada", "--header", "x"], "NAME=VALUE"),
        (["ada", "--header", "x-model-version=two"], "a version's number"),
        (["ada", "--weights", "3"], "VERSION=WEIGHT"),
        (["ada", "--weights", "3=x"], "whole numbers"),
        (["ada", "--weights", "3=1", "3=2"], "twice"),
        (["ada", "--weights", "3=1", "--revision", "4"], "leave --revision out"),
    ],
)
def test_a_question_that_cannot_be_is_refused_before_anybody_is_asked(
    local: Turnout, words: list[str], said: str
) -> None:
    """Exit status 2, and what was expected instead."""
    refused = local("explain", "digits", *words)
    assert refused.status == 2
    assert said in refused.err


def test_the_same_words_work_against_a_gateway(remote: Turnout, live: LiveGateway) -> None:
    """And what they change is served."""
    path = two_versions(remote, "served")
    remote.done("apply", "-f", path)
    wait_until(lambda: not live.route("served")["status"]["pending"], what="both versions loaded")
    remote.done("weights", "served", "2=1")
    answer = live.predict("served", [[0, 0, 0, 0]])
    assert (answer.json()["version"], answer.json()["outputs"]["y"]) == (2, [[2.0] * 4])
    remote.done("rollback", "served", "--reason", "not good")
    assert live.predict("served", [[0, 0, 0, 0]]).json()["version"] == 1
    records = remote.done("audit", "--json", "--limit", "1").json
    assert [(record["action"], record["reason"]) for record in records] == [("rollback", "not good")]


def test_a_change_on_the_home_reaches_the_gateway_that_runs_there(
    live: LiveGateway, tmp_path: Path, commands: WarmCommands
) -> None:
    """Commands on the files are safe beside a gateway, which takes them up by itself."""
    beside = Turnout({"TURNOUT_HOME": str(live.home)}, tmp_path, commands)
    path = two_versions(beside, "beside")
    beside.done("apply", "-f", path)
    wait_until(lambda: live.predict("beside", [[0, 0, 0, 0]]).status_code == 200, what="the route")


def test_the_admin_token_of_the_home_is_found_for_a_gateway_on_this_machine(
    live: LiveGateway, tmp_path: Path, commands: WarmCommands
) -> None:
    """On the gateway's machine no token needs to be given."""
    here = Turnout({"TURNOUT_URL": live.url, "TURNOUT_HOME": str(live.home)}, tmp_path, commands)
    assert "admin" in here.done("tokens", "list").out


def test_a_token_does_what_its_role_allows(remote: Turnout) -> None:
    """A viewer reads and changes nothing; a revoked token is refused."""
    viewer = remote.done("tokens", "create", "watcher", "--role", "viewer")
    secret = viewer.out.strip()
    assert secret not in viewer.err
    assert remote("routes", TURNOUT_TOKEN=secret).status == 0
    refused = remote("tokens", "list", TURNOUT_TOKEN=secret)
    assert refused.status == 1
    assert "needs admin" in refused.err
    rotated = remote.done("tokens", "rotate", "watcher", "--json").json["token"]
    assert remote("routes", TURNOUT_TOKEN=rotated).status == 0
    remote.done("tokens", "revoke", "watcher")
    assert remote("routes", TURNOUT_TOKEN=rotated).status == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TURNOUT_TOKEN": "wrong"}, "token"),
        ({"TURNOUT_TOKEN": ""}, "no token was given: set TURNOUT_TOKEN"),
        ({"TURNOUT_URL": "localhost:1"}, "expected an address like http://"),
    ],
)
def test_a_wrong_token_or_address_is_one_clear_line(remote: Turnout, environment: dict[str, str], said: str) -> None:
    """Status 1, nothing on standard output."""
    failed = remote("routes", **environment)
    assert (failed.status, failed.out, failed.err.count("\n")) == (1, "", 1)
    assert said in failed.err


def test_a_token_is_never_shown_and_spaces_around_it_do_no_harm(remote: Turnout, live: LiveGateway) -> None:
    """A secret of a build system often ends in a line break; the HTTP client's own error would print it."""
    assert remote("routes", TURNOUT_TOKEN=f" {live.token}\r\n").status == 0
    for token in (f"{live.token}\nmore", f"{live.token}\x7f", f"{live.token}\xe9"):
        failed = remote("routes", TURNOUT_TOKEN=token)
        assert (failed.status, failed.out, failed.err.count("\n")) == (1, "", 1)
        assert "TURNOUT_TOKEN has a line break" in failed.err
        assert live.token not in failed.err


def test_a_gateway_that_does_not_run_is_said_with_what_to_do(local: Turnout) -> None:
    """One line, not a stack of connection errors."""
    with nobody() as port:
        failed = local("models", TURNOUT_URL=f"http://127.0.0.1:{port}", TURNOUT_TOKEN="x")
    assert (failed.status, failed.err.count("\n")) == (1, 1)
    assert "no gateway answers at http://127.0.0.1:" in failed.err
    assert "turnout serve" in failed.err


def test_a_home_that_is_not_there_is_not_made_by_looking(local: Turnout) -> None:
    """A typo in TURNOUT_HOME is not an empty registry."""
    failed = local("models")
    assert failed.status == 1
    assert "no home at" in failed.err
    assert not (local.folder / "home").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["register", "digits"], "SOURCE"),
        (["register", "digits", "x.onnx", "--tag", "novalue"], "expected KEY=VALUE"),
        (["register", "digits", "x.onnx", "--threads", "0"], "--threads"),
        (["weights", "digits", "3:95"], "expected VERSION=WEIGHT"),
        (["weights", "digits", "3=1", "3=2"], "twice"),
        (["show", "/"], "model name"),
        (["archive", "digits@champion"], "by number"),
        (["serve", "--workers", "0"], "--workers"),
        (["serve", "--port", "99999"], "--port"),
        (["no-such-command"], "No such command"),
        (["apply"], "--file"),
    ],
)
def test_what_is_asked_wrongly_has_status_2(local: Turnout, words: list[str], said: str) -> None:
    """And says what was expected."""
    failed = local(*words)
    assert failed.status == 2, failed
    assert said in failed.err


def test_a_gateway_that_cannot_start_says_why_in_one_line(local: Turnout, live: LiveGateway) -> None:
    """A busy port, a home in use, a key that does not exist, a file that is not there."""
    config = local.folder / "gateway.yaml"
    config.write_text("server: {prot: 9000}\n", encoding="utf-8")
    busy = local("serve", "--port", str(live.port))
    used = local("serve", "--port", "0", TURNOUT_HOME=str(live.home))
    unknown = local("serve", "--config", config)
    gone = local("serve", "--config", "gone.yaml")
    for failed, said in (
        (busy, f"127.0.0.1:{live.port} is taken"),
        (used, f"is served by process {live.pid}"),
        (unknown, "did you mean 'server.port'?"),
        (gone, "gone.yaml: cannot be read"),
    ):
        assert failed.status == 1
        assert said in failed.err
        assert failed.err.count("\n") == 1, failed.err


def test_bad_route_files_say_where_and_what(local: Turnout) -> None:
    """Not YAML; not a spec; a version that is not there; standard input."""
    path = two_versions(local, "digits")
    broken = local("apply", "-f", "-", stdin="a: [b")
    assert (broken.status, broken.err.count("\n")) == (1, 1)
    assert "standard input: not valid YAML" in broken.err
    misspelt = local("apply", "-f", "-", stdin=path.read_text().replace("weight: 90", "wait: 90"))
    assert misspelt.status == 1
    assert "split[0].weight: expected a value: the field is required, got nothing" in misspelt.err
    assert "split[0].wait" in misspelt.err
    unknown = local("apply", "-f", "-", stdin=path.read_text().replace("version: 2", "version: 9"))
    assert unknown.status == 1
    assert "has no version 9; it has 1, 2" in unknown.err
    assert local("diff", "-f", local.folder / "gone.yaml").status == 2


def test_what_is_not_there_is_named(local: Turnout) -> None:
    """Model, version, route: status 1 and what there is."""
    two_versions(local, "digits")
    for words, said in (
        (["show", "nothing/1"], "no model 'nothing'"),
        (["show", "digits/9"], "no version 9; it has 1, 2"),
        (["show", "digits@best"], "no alias 'best'"),
        (["rollback", "nothing"], "no route 'nothing'"),
    ):
        failed = local(*words)
        assert failed.status == 1
        assert said in failed.err


def test_somebody_who_was_faster_is_not_overwritten(local: Turnout) -> None:
    """--if-match refuses what was decided on an older state."""
    path = two_versions(local, "digits")
    local.done("apply", "-f", path)
    revision = local.done("routes", "--json").json[0]["revision"]
    local.done("weights", "digits", "1=60", "2=40")
    for words in (["weights", "digits", "1=1"], ["apply", "-f", str(path)]):
        stale = local(*words, "--if-match", str(revision))
        assert stale.status == 1
        assert f"expects revision {revision}" in stale.err


def test_every_list_has_a_stable_shape_for_machines(local: Turnout) -> None:
    """--json prints one document; keys are those of the admin API."""
    local.done("apply", "-f", two_versions(local, "digits"))
    for words, keys in (
        (["models"], {"name", "revision", "versions", "aliases", "notes"}),
        (["routes"], {"route", "revision", "spec", "status"}),
        (["history", "digits"], {"revision", "written_at", "spec", "status"}),
        (["tokens", "list"], None),
        (["audit"], {"sequence", "at", "actor", "action", "subject", "reason", "revision", "digest", "previous"}),
        (["verify"], {"version", "digest", "ok", "files"}),
    ):
        rows = local.done(*words, "--json").json
        assert isinstance(rows, list)
        assert all(keys is None or keys <= row.keys() for row in rows)


def test_a_damaged_artifact_is_found_and_healed_by_registering_again(local: Turnout) -> None:
    """verify names the file and both digests, exit 1; the same bytes again make it good."""
    source = echo_source(local.folder, delay_ms=3)
    local.done("register", "digits", source)
    victim = next(
        path for path in (local.folder / "home").rglob("*") if path.is_file() and b"delay_ms" in path.read_bytes()
    )
    victim.chmod(0o600)
    victim.write_bytes(b'{"delay_ms": 4}')
    failed = local("verify", "digits/1")
    assert failed.status == 1
    assert "DAMAGED" in failed.out
    assert "altered" in failed.out
    local.done("register", "digits", source)
    assert "ok" in local.done("verify", "digits/1").out


def test_gc_says_what_it_frees_before_it_does(local: Turnout) -> None:
    """Nothing goes without a yes; what versions need never goes."""
    bad = echo_source(local.folder, "bad", fail_load="no")
    local.done("register", "digits", echo_source(local.folder, "good"))
    assert local("register", "digits", bad).status == 1
    plan = local.done("gc", "--dry-run", "--older-than", "0", "--json").json
    assert plan["free_bytes"] > 0
    asked = local("gc", "--older-than", "0", stdin="n\n")
    assert asked.status == 1
    assert "nothing was removed" in asked.err
    assert "Freed" in local.done("gc", "--older-than", "0", "--yes").out
    assert local.done("gc", "--older-than", "0", "--dry-run").out.startswith("Nothing to free")
    assert local.done("verify").out.count(" ok ") == 1


def test_a_backup_is_taken_beside_a_gateway_and_restored_elsewhere(
    live: LiveGateway, tmp_path: Path, commands: WarmCommands
) -> None:
    """The restored home has the models, the routes and a proven audit log."""
    beside = Turnout({"TURNOUT_HOME": str(live.home)}, tmp_path, commands)
    beside.done("apply", "-f", two_versions(beside, "kept"))
    beside.done("backup", "home.tar")
    fresh = Turnout({"TURNOUT_HOME": str(tmp_path / "fresh")}, tmp_path, commands)
    fresh.done("restore-backup", "home.tar")
    assert fresh.done("models", "--json").json == beside.done("models", "--json").json
    assert "kept" in fresh.done("routes").out
    assert json.loads(fresh.done("audit", "--verify", "--json").out)["ok"] is True
    assert fresh("verify", "--all").status == 0
    assert fresh("restore-backup", "home.tar").status == 1


def test_commands_on_files_say_so_when_a_gateway_is_named(remote: Turnout) -> None:
    """backup, verify and gc need the home itself."""
    for words in (["backup", "x.tar"], ["verify"], ["gc"]):
        failed = remote(*words)
        assert failed.status == 1
        assert "not over HTTP" in failed.err


def test_colour_comes_only_where_it_is_wanted(local: Turnout) -> None:
    """None in a pipe."""
    local.done("apply", "-f", two_versions(local, "digits"))
    for words in (["routes"], ["models"], ["show", "digits/1"], ["diff", "-f", str(local.folder / "digits.yaml")]):
        assert "\x1b" not in local(*words).out


def test_a_reader_that_leaves_early_is_no_failure(local: Turnout) -> None:
    """``turnout audit | head -1`` ends quietly."""
    two_versions(local, "digits")
    audit = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "audit", "--json", "--limit", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**local.environment, "PYTHONPATH": str(ROOT)},
        cwd=local.folder,
    )
    if audit.stdout is None or audit.stderr is None:
        pytest.fail("the pipes are missing")
    audit.stdout.close()
    with audit.stderr:
        assert audit.stderr.read() == b""
    audit.wait(200)


def test_a_search_for_a_metric_in_the_place_of_a_name_says_where_it_belongs(local: Turnout) -> None:
    """With a figure it is refused, without one nothing is found, and both say how to ask."""
    local.done("register", "digits", echo_source(local.folder, "first"))
    refused = local("search", "accuracy>=0.9")
    assert (refused.status, "did you mean --metric 'accuracy>=0.9'?" in refused.err) == (2, True), refused
    nothing = local("search", "accuracy")
    assert (nothing.status, "--metric 'accuracy>=0'" in nothing.out + nothing.err) == (0, True), nothing
    bare = local("search", "--metric", "accuracy")
    assert (bare.status, "in quotes" in bare.err) == (1, True), bare
