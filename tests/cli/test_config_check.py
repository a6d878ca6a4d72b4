"""turnout config check: settings that are none, and secrets that stand in text; neither is ever repeated."""

from __future__ import annotations

import base64
import json
import random
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.config_check import check_settings, secret_sources
from gateway.secret_text import secrets_in
from gateway.settings import load_settings
from tests.cli.conftest import ROOT, Turnout

DRAWN = random.Random(7)


def drawn(letters: str, count: int) -> str:
    """Made here, so that no real form of a secret stands in this file."""
    return "".join(DRAWN.choice(letters) for _ in range(count))


ALL = string.ascii_letters + string.digits
FORMS = {
    "an AWS access key": "AKIA" + drawn(string.ascii_uppercase + string.digits, 16),
    "a GitHub token": "ghp_" + drawn(ALL, 36),
    "a GitLab token": "glpat-" + drawn(ALL, 20),
    "a Slack token": "xoxb-" + drawn(string.digits, 12) + "-" + drawn(ALL, 24),
    "a Slack webhook": "https://hooks.slack.com/services/T"
    + drawn(ALL, 8)
    + "/B"
    + drawn(ALL, 8)
    + "/"
    + drawn(ALL, 24),
    "a Vault token": "hvs." + drawn(ALL, 24),
    "a token of Turnout": "turnout_" + drawn(ALL, 43),
    "a Hugging Face token": "hf_" + drawn(ALL, 34),
    "an API key": "sk-" + drawn(ALL, 40),
    "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "a signed token": "eyJ" + drawn(ALL, 20) + ".eyJ" + drawn(ALL, 30) + "." + drawn(ALL, 43),
    "an Authorization header": "Bearer " + drawn(ALL, 24),
    "an address with a password": "https://olga:" + drawn(ALL, 8) + "@host/path",
    "an address with a secret in it (?sig=)": "https://host/container?sv=2024&sig=" + drawn(ALL, 20),
    "look drawn by chance": drawn(ALL, 32),
}


@pytest.mark.parametrize("what", FORMS)
def test_a_secret_is_found_whatever_its_key_is_called(what: str) -> None:
    """Deep in the settings, in a list, in a command's arguments, and in a comment."""
    secret = FORMS[what]
    for text in (
        f"a:\n  b:\n    - plain\n    - {json.dumps(secret)}\n",
        f"webhooks:\n  secrets:\n    ops: {{command: [curl, -H, {json.dumps('x: ' + secret)}]}}\n",
        f"port: 1\n\n\n# {secret}\n",
        f"broken: [\n\n\n  {secret}",
    ):
        found = secrets_in(text)
        assert found, text
        assert what in found[0].what
        assert found[0].line in (3, 4)
        assert secret not in repr(found)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("store: {password: open-sesame}", "store.password"),
        ("store: {password: 12345}", "store.password"),
        ("webhooks: {secrets: {ops: {secret: hunter2}}}", "webhooks.secrets.ops.secret"),
        ("flags: {options: {apiKey: abc}}", "flags.options.apiKey"),
        ("flags: {options: {api_key: abc, key: name}}", "flags.options.api_key"),
        ("headers: {X-Auth-Token: abc}", "headers.X-Auth-Token"),
        ("headers: {authorization: abc}", "headers.authorization"),
        ("sinks: [{name: a}, {client_secret: abc}]", "sinks[1].client_secret"),
        ("a: &a {token: abc}\nb: *a", "a.token"),
        ("a: 1\n---\ntokens: abc", "tokens"),
    ],
)
def test_a_value_is_found_by_what_its_key_is_called(text: str, place: str) -> None:
    """Under any of the usual names; once, however often it is pointed at."""
    assert [one.place for one in secrets_in(text)] == [place]


@pytest.mark.parametrize(
    "text",
    [
        "store: {password: null, password_file: /run/secrets/redis}",
        "secrets: {ops: {file: /run/secrets/ops}, ci: {env: CI_SECRET}, hq: {command: [vault, kv, get, -field=x]}}",
        "webhooks:\n  secrets: {ops: {env: A}}\nplan: {webhooks: {after: [{url: 'https://h/p', secret: ops}]}}",
        "password: ${REDIS_PASSWORD}",
        "token: <your token>",
        "limits: {max_tokens: 4096, token_ttl_s: 30}",
        "sinks: [{key: 'turnout:decisions'}]",
        f"digest: sha256:{drawn('0123456789abcdef', 64)}",
        f"commit: {drawn('0123456789abcdef', 40)}",
        f"tag: {drawn('0123456789abcdef', 40)}  # not-a-secret: a commit",
        "request: 6f1e0a52-9c3b-4f0e-8a55-0d6c1b7e2f90",
        "path: /opt/models/production/2024-fraud-detection-v3/artifacts/model.onnx",
        "url: https://host.example.com:8443/a/very/long/path/of/many/steps?route=digits",
        "name: a-rather-long-name-of-a-model-that-people-gave-it-in-production",
    ],
)
def test_what_only_says_where_a_secret_is_is_left_alone(text: str) -> None:
    """A check that cries wolf is switched off."""
    assert secrets_in(text) == ()


def test_every_file_that_is_shipped_is_clean() -> None:
    """Configuration and examples, comments included."""
    files = [path for path in (ROOT / "config").rglob("*.y*ml") if path.is_file()]
    assert files
    assert {path.name: secrets_in(path.read_text(encoding="utf-8")) for path in files} == {p.name: () for p in files}


def test_what_is_drawn_by_chance_is_found_nearly_always() -> None:
    """Of 24 random bytes and more in base64 one in 2,500 looks like words: with examples that are drawn anew in each
    run, one run of nine would meet it."""
    chance = random.Random(1)
    texts = [base64.urlsafe_b64encode(chance.randbytes(chance.randint(24, 64))).decode() for _ in range(2000)]
    missed = [text for text in texts if not secrets_in(f"value: {text}")]
    assert len(missed) <= 4, missed


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_can_be_looked_at(text: str) -> None:
    """YAML or not."""
    for found in secrets_in(text):
        assert 1 <= found.line <= len(text.splitlines()) + 1


def test_text_that_is_made_to_be_slow_is_not() -> None:
    """Aliases that double, nesting without end, a line of a megabyte: each node and each run is looked at once."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    assert secrets_in(bomb) == ()
    assert secrets_in("[" * 50_000) == ()
    assert secrets_in("value: " + "ab/" * 300_000) == ()


def test_the_command_says_where_what_and_what_to_do_and_never_the_secret(local: Turnout) -> None:
    """Exit status 1 for findings, 0 for none, 2 for a question that is none."""
    path = local.folder / "gateway.yaml"
    path.write_text(
        "webhooks:\n  secrets:\n    ops: hunter2-is-mine\nflags:\n  options:\n    api_key: swordfish\n",
        encoding="utf-8",
    )
    told = local("config", "check", "--config", path)
    assert told.status == 1
    assert f"{path}:6: flags.options.api_key: a secret stands here: its name says that it is a secret; name" in told.out
    assert "webhooks.secrets.ops" in told.out
    assert "hunter2" not in told.out + told.err
    assert "swordfish" not in told.out + told.err
    path.write_text("webhooks: {secrets: {ops: {env: OPS_SECRET}}}\n", encoding="utf-8")
    assert local.done("config", "check", "--config", path).out == f"{path}: sound, and no secret stands in it\n"
    assert local.done("config", "check", "--json").json == {"ok": True, "faults": []}
    assert local("config", "check", "--secrets").status == 2
    missing = local("config", "check", "--config", local.folder / "none.yaml")
    assert (missing.status, missing.out) == (
        1,
        f"{local.folder / 'none.yaml'}: cannot be read: No such file or directory\n",
    )


def test_secrets_that_are_not_where_the_settings_say_are_found_by_reading_them(local: Turnout) -> None:
    """Without --read the check may run where no secret is, as in CI; files that all may read are told either way."""
    path, kept = local.folder / "gateway.yaml", local.folder / "secret"
    kept.write_text("hunter2", encoding="utf-8")
    kept.chmod(0o644)
    sources = {"a": {"env": "A_SECRET"}, "b": {"file": str(kept)}, "c": {"command": ["false", "hunter2"]}}
    path.write_text(yaml.safe_dump({"webhooks": {"secrets": sources}}), encoding="utf-8")
    told = local("config", "check", "--config", path)
    assert (told.status, told.out.count("\n")) == (1, 1)
    assert f"webhooks.secrets.b: every account of this machine may use {kept} (mode 0644); chmod 600 it" in told.out
    kept.chmod(0o600)
    assert local("config", "check", "--config", path).status == 0
    told = local("config", "check", "--config", path, "--read")
    assert told.status == 1
    assert "webhooks.secrets.a: the environment variable A_SECRET is empty or not there" in told.out
    assert "webhooks.secrets.c: the command 'false' ended with status 1" in told.out
    assert "hunter2" not in told.out + told.err
    sources.pop("c")
    path.write_text(yaml.safe_dump({"webhooks": {"secrets": sources}}), encoding="utf-8")
    local.done("config", "check", "--config", path, "--read", A_SECRET="x")


def test_what_does_not_fit_together_is_found_before_the_start(tmp_path: Path) -> None:
    """An unknown key with the one that was meant, a plan that is none, a hook's secret that is not there, TLS."""
    path = tmp_path / "gateway.yaml"
    for text, says in (
        ("server: {prot: 1}", "unknown key 'server.prot'; did you mean 'server.port'?"),
        ("targets: {p: {rollout: {steps: [50, 10]}}}", "targets.p.rollout: the plan does not fit"),
        (
            "targets: {p: {rollout: {webhooks: {after: [{url: 'https://h/p', secret: ops}]}}}}",
            "targets.p.rollout.webhooks.after: webhooks.secrets has no 'ops'; it has none",
        ),
        ("server: {tls_key: none.pem, tls_certificate: none.pem}", "server.tls_key: none.pem cannot be read"),
        ("server: [", "not valid YAML"),
        ("server: {port: 1}\nstore: {}\nserver: {workers: 2}", "'server' stands in line 1 and again in line 3"),
    ):
        path.write_text(text, encoding="utf-8")
        told = [str(fault) for fault in check_settings(path, read=False)]
        assert any(says in one for one in told), told


def test_other_files_are_looked_through_as_well(local: Turnout) -> None:
    """Routes and gates are kept beside the settings, and in the same repository."""
    path = local.folder / "routes.yaml"
    path.write_text("route: a\nmodel: a\n---\nroute: b\npassword: hunter2\n", encoding="utf-8")
    told = local("config", "check", path, "--json")
    assert told.status == 1
    assert told.json["faults"][0]["place"] == "password"
    assert told.json["faults"][0]["line"] == 5


def test_every_secret_of_the_settings_is_known_to_the_check(tmp_path: Path) -> None:
    """By its key, in groups, lists and mappings."""
    path = tmp_path / "gateway.yaml"
    path.write_text(
        """
store: {url: 'redis://localhost:6379/0', secret: {env: A}}
webhooks: {secrets: {ops: {env: A}}}
notifications: {targets: [{name: slack, url: {env: A}, secret: {env: A}}]}
telemetry:
  otlp_headers: {authorization: {env: A}}
  decisions: {sinks: [{name: siem, kind: otlp, url: 'https://h/p', secret: {env: A}, headers: {x: {env: A}}}]}
""",
        encoding="utf-8",
    )
    assert sorted(place for place, _ in secret_sources(load_settings(path))) == [
        "notifications.targets.slack.secret",
        "notifications.targets.slack.url",
        "store.secret",
        "telemetry.decisions.sinks.siem.headers.x",
        "telemetry.decisions.sinks.siem.secret",
        "telemetry.otlp_headers.authorization",
        "webhooks.secrets.ops",
    ]
