"""Listening: what cannot be had is said in one line, before anything serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette

from gateway.errors import SettingsError
from gateway.server import Listener, bind
from gateway.settings import ServerSettings


def _listener(settings: ServerSettings) -> None:
    listening = bind("127.0.0.1", 0, 1)
    try:
        Listener(Starlette(), listening, settings)
    finally:
        listening.close()


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Absent, and there but no PEM: a SettingsError with both paths, not a traceback."""
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    with pytest.raises(SettingsError, match=r"tls_certificate .*c\.pem .* cannot be used: No such file"):
        _listener(ServerSettings(tls_certificate=certificate, tls_key=key))
    certificate.write_text("nothing", encoding="utf-8")
    key.write_text("nothing", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"tls_key .*k\.pem cannot be used: .*expected two PEM files"):
        _listener(ServerSettings(tls_certificate=certificate, tls_key=key))
