"""What the settings say of traces, as plain values; and at the start, whether what they need is installed."""

from __future__ import annotations

from importlib.util import find_spec

from gateway.errors import SettingsError
from gateway.secret_reading import SecretReader, secret_of
from gateway.settings import ServerSettings, Settings
from gateway.telemetry.export_headers import headers_of
from gateway.telemetry.tracing.conventions import Server
from gateway.telemetry.tracing.options import ExportOptions

__all__ = ["export_headers", "export_options"]

_EXPORTERS = {
    "otlp": "opentelemetry.exporter.otlp.proto.http",
    "otlp-grpc": "opentelemetry.exporter.otlp.proto.grpc",
}


def export_headers(settings: Settings, read: SecretReader = secret_of) -> dict[str, str]:
    """Raises SettingsError."""
    return headers_of(settings.telemetry.otlp_headers, "telemetry.otlp_headers", read)


def export_options(settings: Settings, *, gateway: str, read: SecretReader = secret_of) -> ExportOptions | None:
    """None where no spans are exported. Raises SettingsError: a package, a secret or a file is not there."""
    said = settings.telemetry
    if said.trace_exporter == "none":
        return None
    _check_installed(said.trace_exporter)
    if said.otlp_certificate is not None and not said.otlp_certificate.is_file():
        raise SettingsError(f"telemetry.otlp_certificate: {said.otlp_certificate} is no file; expected one, in PEM")
    return ExportOptions(
        said.trace_exporter,
        gateway,
        _server(settings.server),
        said.otlp_endpoint,
        export_headers(settings, read),
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
