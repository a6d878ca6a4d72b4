"""What the settings say of traces, as plain values; and at the start, whether what they need is installed."""

from __future__ import annotations

from importlib.util import find_spec

from gateway.errors import SettingsError
from gateway.settings import ServerSettings, Settings, secret_of
from gateway.telemetry.tracing.conventions import Server
from gateway.telemetry.tracing.options import ExportOptions

__all__ = ["export_options"]

_EXPORTERS = {
    "otlp": "opentelemetry.exporter.otlp.proto.http",
    "otlp-grpc": "opentelemetry.exporter.otlp.proto.grpc",
}


def export_options(settings: Settings, *, gateway: str) -> ExportOptions | None:
    """None where no spans are exported. Raises SettingsError: a package, a secret or a file is not there."""
    said = settings.telemetry
    if said.trace_exporter == "none":
        return None
    _check_installed(said.trace_exporter)
    if said.otlp_certificate is not None and not said.otlp_certificate.is_file():
        raise SettingsError(f"telemetry.otlp_certificate: {said.otlp_certificate} is no file; expected one, in PEM")
    headers = {
        name: secret_of(source, f"telemetry.otlp_headers.{name}").decode("latin-1")
        for name, source in said.otlp_headers.items()
    }
    return ExportOptions(
        said.trace_exporter,
        gateway,
        _server(settings.server),
        said.otlp_endpoint,
        headers,
        said.otlp_timeout_s,
        said.otlp_compression,
        None if said.otlp_certificate is None else str(said.otlp_certificate.absolute()),
    )


def _server(server: ServerSettings) -> Server:
    return Server("https" if server.tls_key else "http", server.host, server.port)


def _check_installed(exporter: str) -> None:
    package = _EXPORTERS.get(exporter)
    try:
        missing = package is not None and find_spec(package) is None
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise SettingsError(
            f"telemetry.trace_exporter is {exporter!r}, but {package} is not installed; pip install 'turnout[otlp]'"
        )
