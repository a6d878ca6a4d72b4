"""How the settings reach other systems, for registration and for whoever follows a name there."""

from __future__ import annotations

from gateway.registry.sources import SourceAccess
from gateway.settings import Settings

__all__ = ["source_access"]


def source_access(settings: Settings) -> SourceAccess:
    """How the settings reach other systems."""
    registry = settings.registry
    addresses = {"tracking_uri": registry.mlflow.tracking_uri, "registry_uri": registry.mlflow.registry_uri}
    interpreters = registry.interpreters.model_dump(exclude_none=True)
    return SourceAccess(
        interpreters=interpreters,
        settings={"mlflow": {name: value for name, value in addresses.items() if value is not None}},
        timeout_s=registry.fetch_timeout_s,
        resolve_timeout_s=registry.resolve_timeout_s,
    )
