"""Artifacts by command: between stores, signed, sealed anew, archived and restored, freed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.control.local_control import open_control
from gateway.settings import load_settings
from loadtests.live_gateway import wait_until
from tests.cli.conftest import Turnout, echo_source
from tests.registry.stores.test_transfer import large_version, record_of

FILES = 1500
"""So many that a push takes seconds: a busy machine may see its first file late."""


def settled(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


@pytest.fixture
def other(local: Turnout) -> dict[str, str]:
    """A second home."""
    home = local.folder / "other-home"
    home.mkdir()
    return {"TURNOUT_HOME": str(home)}


def test_versions_go_to_a_store_and_into_another_home(local: Turnout, other: dict[str, str]) -> None:
    """By number, alias or whole model; named stores come from the settings; aliases are not moved by a pull."""
    store = local.folder / "store"
    stores = {"TURNOUT_REGISTRY__STORES": json.dumps({"central": {"url": store.as_uri()}})}
    local.done("register", "digits", echo_source(local.folder, "first", delay_ms=0))
    local.done("register", "digits", echo_source(local.folder, "second", delay_ms=1))
    local.done("promote", "digits/2", "--alias", "champion")
    sent = local("push", "central", "digits/2", "--json", **stores)
    assert (sent.status, sent.json["versions"], sent.json["moved"]) == (0, 1, ["digits/2"]), sent.err
    assert local.done("push", store, "digits", "--json").json["files_there"] > 0
    pulled = local("pull", store, "digits@champion", **other)
    assert pulled.out.splitlines()[0].startswith("digits/2  sha256:"), pulled.err
    assert local("alias", "digits/2", "x", **other).status == 0
    versions = {row["number"]: row["digest"] for row in local("models", "--json", **other).json[0]["versions"]}
    here = {row["number"]: row["digest"] for row in local.done("models", "--json").json[0]["versions"]}
    assert versions == {2: here[2]}
    again = local("sync", store, "home", "--json", **other)
    adopted = {view["number_there"]: view["version"] for view in again.json["adopted"]}
    assert adopted == {1: 3, 2: 2}, "a number that was passed is not given again"
    assert local("verify", "--all", **other).out.count(" ok ") == 2
    assert local("verify", "--store", store).out.count(" ok ") == 2
    assert local("sync", store, local.folder / "mirror").status == 0
    assert settled(local.folder / "mirror") == settled(store)


def test_what_cannot_be_moved_is_said(local: Turnout) -> None:
    """A store that nobody named, a version that is not there, nothing asked for."""
    local.done("register", "digits", echo_source(local.folder, "first"))
    for words, status, said in (
        (["push", "central", "digits"], 1, "no store is named 'central'"),
        (["pull", local.folder / "empty", "digits/1"], 1, "has no versions of model 'digits'"),
        (["push", local.folder / "store", "digits/9"], 1, "of digits it has 1"),
        (["push", local.folder / "store"], 2, "name versions, or give --all"),
        (["sync", "home", "home"], 2, "both home"),
    ):
        failed = local(*words)
        assert (failed.status, said in failed.err) == (status, True), failed.err


def test_a_damaged_object_is_named_by_verify_and_never_pulled(local: Turnout, other: dict[str, str]) -> None:
    """Exit status 1 each time; pushed again from the home that has it, it is sound."""
    store = local.folder / "store"
    local.done("register", "digits", echo_source(local.folder, "first"))
    local.done("push", store, "--all")
    victim = max((store / "blobs").rglob("*/*/*"), key=lambda path: path.stat().st_size)
    victim.write_bytes(b"altered")
    found = local("verify", "--store", store, "--all")
    assert (found.status, "DAMAGED" in found.out) == (1, True)
    refused = local("pull", store, "--all", **other)
    assert (refused.status, "was altered" in refused.err) == (1, True)
    assert local("models", "--json", **other).json == []
    victim.unlink()
    local.done("push", store, "--all")
    assert local("pull", store, "--all", **other).status == 0


def test_a_strangers_record_stops_no_pull_of_another_version(local: Turnout, other: dict[str, str]) -> None:
    """All others arrive; the end says which did not and why, with exit status 1. Asked for another model, it is not
    spoken of; asked for itself, it is named."""
    store = local.folder / "store"
    local.done("register", "digits", echo_source(local.folder, "first"))
    local.done("register", "fraud", echo_source(local.folder, "first"))
    local.done("push", store, "--all")
    (record,) = (store / "versions" / "fraud").iterdir()
    record.write_bytes(b"{")
    partly = local("pull", store, "--all", "--json", **other)
    assert (partly.status, partly.json["moved"]) == (1, ["digits/1"]), partly.err
    assert list(partly.json["skipped"]) == [str(record.relative_to(store))]
    assert f"not taken: versions/fraud/{record.name}: " in partly.err
    assert "not valid JSON" in partly.err
    assert [model["name"] for model in local("models", "--json", **other).json] == ["digits"]
    assert local("pull", store, "digits", **other).status == 0
    named = local("pull", store, "fraud/1", **other)
    assert (named.status, f"not taken: versions/fraud/{record.name}" in named.err) == (1, True), named.err
    for words in (["sync", store, local.folder / "mirror"], ["verify", "--store", store, "--all"]):
        ended = local(*words)
        assert (ended.status, "digits/1" in ended.out, record.name in ended.err) == (1, words[0] == "verify", True)
    mirrored = [path.parent.name for path in (local.folder / "mirror" / "versions").rglob("*.json")]
    assert mirrored == ["digits"]


def test_an_interrupted_push_ends_and_the_next_one_sends_the_rest(local: Turnout) -> None:
    """Ctrl-C: nothing further is begun, no version is to be seen, nobody is left sending."""
    store = local.folder / "store"
    asyncio.run(_large(Path(local.environment["TURNOUT_HOME"]), files=FILES))
    command = [sys.executable, "-m", "gateway.cli", "push", str(store), "--all", "--parallel", "1"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    told = {"env": {**kept, **local.environment}, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, preexec_fn=heed_interrupts, **told) as push:  # noqa: PLW1509 - one signal's disposition
        wait_until(lambda: len(settled(store)) > 1, what="the first file there")
        push.send_signal(signal.SIGINT)
        assert push.wait(60) == 130
    assert len([name for name in settled(store) if name.startswith("blobs/")]) < FILES
    assert not (store / "versions").exists()
    again = local.done("push", store, "--all", "--json").json
    assert again["versions"] == 1
    assert again["files_there"] > 0


def heed_interrupts() -> None:
    """Tests that are started in the background of a shell ignore them, and what they start would as well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def _large(home: Path, files: int) -> None:
    async with open_control(load_settings(overrides={"home": home})) as control:
        manifest = large_version(control.blobs, files, 5_000)
        await control.artifacts.adopt(record_of(manifest), origin="a test", actor="test")


def test_only_what_an_author_signed_is_promoted_and_pulled(local: Turnout, other: dict[str, str]) -> None:
    """Where the settings ask for it; the signature goes along with the version."""
    key, public = local.folder / "alice", local.folder / "alice.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    show = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)]
    for command in (make, show):
        subprocess.run(command, check=True, capture_output=True, timeout=100)
    asked = {
        "TURNOUT_REGISTRY__SIGNING__KEYS": json.dumps({"alice": str(public)}),
        "TURNOUT_REGISTRY__SIGNING__REQUIRE": '["pull", "promotion"]',
    }
    store = local.folder / "store"
    local.done("register", "aaa", echo_source(local.folder, "unsigned", delay_ms=1))
    local.done("register", "digits", echo_source(local.folder, "first"))
    local.done("push", store, "--all")
    for words in (["promote", "digits/1", "--alias", "champion"], ["pull", store, "--all"]):
        refused = local(*words, **asked, **(other if words[0] == "pull" else {}))
        assert (refused.status, "must be signed by one of alice" in refused.err) == (1, True), refused.err
    signed = local("sign", "digits/1", "--key", key, **asked)
    assert "digits/1 signed by alice" in signed.out, signed.err
    assert local("promote", "digits/1", "--alias", "champion", **asked).status == 0
    local.done("push", store, "--all")
    partly = local("pull", store, "--all", **asked, **other)
    assert (partly.status, "aaa/1 of" in partly.err, "digits/1" in partly.err) == (1, True, False), partly.err
    assert [model["name"] for model in local("models", "--json", **other).json] == ["digits"]


def test_artifacts_are_sealed_anew_and_an_archived_version_comes_back(local: Turnout) -> None:
    """rekey seals what was plain; without the key nothing can be read, and it is said why."""
    key = local.folder / "key"
    key.write_text("cd" * 32)
    sealed = {"TURNOUT_REGISTRY__ENCRYPTION__KEY": json.dumps({"file": str(key)})}
    local.done("register", "digits", echo_source(local.folder, "first"))
    assert "name the key" in local("rekey").err
    planned = local("rekey", "--dry-run", "--json", **sealed).json
    assert local("rekey", "--json", **sealed).json["files"] == planned["files"] > 0
    assert local("verify", "--all", **sealed).status == 0
    blind = local("verify", "--all")
    assert (blind.status, "it is sealed, and no key is set" in blind.out) == (1, True)
    assert local("archive", "digits/1", **sealed).status == 0
    assert local("restore", "digits/1", **sealed).out.startswith("digits/1 is back")
    assert "which revision of route live" in local("restore", "live").err


def test_gc_says_which_versions_no_rule_keeps(local: Turnout) -> None:
    """Their manifests stay, so that show and verify still know them."""
    rule = {"TURNOUT_REGISTRY__RETENTION__KEEP_LAST": "1"}
    for number in range(2):
        local.done("register", "digits", echo_source(local.folder, f"v{number}", delay_ms=number))
    shown = local("gc", "--older-than", "0", "--dry-run", **rule)
    assert "Used by nothing and kept by no rule, so their files go: digits/1." in shown.out
    assert "Freed" in local("gc", "--older-than", "0", "--yes", **rule).out
    assert "its files were given up by gc" in local("verify", "--all", **rule).out
    assert local("show", "digits/1").status == 0
    refused = local("restore", "digits/1", **rule)
    assert (refused.status, "Its files were given up by gc" in refused.err) == (1, True)
    local.done("register", "digits", echo_source(local.folder, "v0", delay_ms=0))
    assert local("restore", "digits/1", **rule).status == 0
