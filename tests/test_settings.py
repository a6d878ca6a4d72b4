"""Settings as a user gets them wrong: every fault is one SettingsError that says where, what and what else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.settings import Settings, load_settings


def _written(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_of_the_shipped_file_is_its_default() -> None:
    """config/gateway.yaml changes nothing."""
    shipped = Path(__file__).parents[1] / "config" / "gateway.yaml"
    assert load_settings(shipped) == Settings()


def test_an_unknown_key_offers_the_nearest_name(tmp_path: Path) -> None:
    """In a group and at the top."""
    with pytest.raises(SettingsError, match=r"gateway\.yaml: unknown key 'server\.prot'; did you mean 'server\.port'"):
        load_settings(_written(tmp_path, "server: {prot: 1}"))
    with pytest.raises(SettingsError, match=r"unknown key 'sever'; did you mean 'server'"):
        load_settings(_written(tmp_path, "sever: {port: 1}"))


def test_a_time_without_end_is_refused(tmp_path: Path) -> None:
    """No timer can be set to it."""
    for value in (".inf", ".nan", "0", "-1"):
        with pytest.raises(SettingsError, match=r"server\.drain_s: got .*; input should be"):
            load_settings(_written(tmp_path, f"server: {{drain_s: {value}}}"))


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    """And the other way round; the message names the one that is missing."""
    with pytest.raises(SettingsError, match=r"server: tls_certificate is set and tls_key is not"):
        load_settings(_written(tmp_path, "server: {tls_certificate: c.pem}"))
    with pytest.raises(SettingsError, match=r"server: tls_key is set and tls_certificate is not"):
        load_settings(_written(tmp_path, "server: {tls_key: k.pem}"))


def test_a_list_in_the_environment_is_json_or_words_between_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both give the same; half a JSON list is an error, not a traceback."""
    monkeypatch.setenv("TURNOUT_RUNTIMES__ALLOW_PICKLE", '["digits", "iris"]')
    assert load_settings().runtimes.allow_pickle == ("digits", "iris")
    monkeypatch.setenv("TURNOUT_RUNTIMES__ALLOW_PICKLE", "digits, iris")
    assert load_settings().runtimes.allow_pickle == ("digits", "iris")
    monkeypatch.setenv("TURNOUT_RUNTIMES__ALLOW_PICKLE", '["digits"')
    with pytest.raises(SettingsError, match=r"environment: allow_pickle: got .* not valid JSON"):
        load_settings()


def test_a_fault_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not the file beside it."""
    path = _written(tmp_path, "server: {port: 9000}")
    monkeypatch.setenv("TURNOUT_SERVER__PORT", "abc")
    with pytest.raises(SettingsError, match=r"^environment: TURNOUT_SERVER__PORT: server\.port: got 'abc'"):
        load_settings(path)
    monkeypatch.delenv("TURNOUT_SERVER__PORT")
    monkeypatch.setenv("TURNOUT_SEVER__PORT", "9000")
    with pytest.raises(SettingsError, match=r"TURNOUT_SEVER__PORT: unknown key 'sever'; did you mean 'server'"):
        load_settings(path)


def test_what_a_cluster_puts_into_the_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes does so for a service named turnout."""
    monkeypatch.setenv("TURNOUT_PORT", "tcp://10.0.0.7:8000")
    monkeypatch.setenv("TURNOUT_SERVICE_HOST", "10.0.0.7")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://olga:secret@host:6379/0", "has a password in it"),
        ("http://host:6379", "expected redis://HOST:PORT/NUMBER"),
        ("redis://", "expected redis://HOST:PORT/NUMBER"),
        ("redis://host:70000", "not an address"),
        ("redis://host/db", "the path is the number of a database"),
        ("redis://host:6379/0?socket_timeout=0", "expected redis://HOST:PORT/NUMBER"),
    ],
)
def test_the_address_of_the_store_is_checked_and_no_password_shown(tmp_path: Path, url: str, why: str) -> None:
    """It appears in logs and on the admin plane, so what is secret is elsewhere."""
    with pytest.raises(SettingsError) as told:
        load_settings(_written(tmp_path, f'store: {{url: "{url}"}}'))
    assert why in str(told.value)
    assert "secret" not in str(told.value)


def test_the_password_of_the_store_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the settings' repr."""
    monkeypatch.setenv("TURNOUT_STORE__URL", "rediss://olga@redis.internal:6380/2")
    monkeypatch.setenv("TURNOUT_STORE__PASSWORD", "open sesame")
    settings = load_settings()
    assert settings.store.password is not None
    assert settings.store.password.get_secret_value() == "open sesame"
    assert "sesame" not in repr(settings)
