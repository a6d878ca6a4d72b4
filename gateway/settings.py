"""Typed configuration: defaults, then the file, then the environment (``TURNOUT_SERVER__PORT=9000``).

Beside ``environment`` the only module that reads the environment. Values do not act. An error names the file, the
key, the value that came and what was expected; an unknown key is an error that offers the nearest name.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.errors import SettingsError
from gateway.settings_artifacts import ArtifactSettings
from gateway.settings_batch import BatchSettings
from gateway.settings_decisions import DecisionSettings
from gateway.settings_drift import DriftSettings
from gateway.settings_environments import EnvironmentSettings
from gateway.settings_groups import Group, Positive, Seconds, SecretSource
from gateway.settings_notifications import NotificationSettings, NotificationTarget
from gateway.settings_runtimes import ModelPlacement, RuntimeSettings
from gateway.settings_sinks import SinkSettings
from gateway.settings_sources import InterpreterSettings, MlflowSettings, WandbSettings
from gateway.settings_store import StoreSettings
from gateway.settings_targets import TargetSettings, sound_targets
from gateway.settings_tracing import TracingSettings
from gateway.settings_truth import TruthSettings
from gateway.yaml_reading import read_yaml

__all__ = [
    "AuditSettings",
    "BatchSettings",
    "DecisionSettings",
    "EnvironmentSettings",
    "FlagSettings",
    "GuardSettings",
    "LimitSettings",
    "ModelPlacement",
    "NotificationSettings",
    "NotificationTarget",
    "RegistrySettings",
    "RuntimeSettings",
    "SecretSource",
    "ServerSettings",
    "Settings",
    "SinkSettings",
    "StoreSettings",
    "TargetSettings",
    "TelemetrySettings",
    "TruthSettings",
    "WebhookSettings",
    "load_settings",
]

_PREFIX = "TURNOUT_"
_NESTING = "__"
_SECRETIVE = re.compile("secret|password|header|credential|token|key|url", re.IGNORECASE)
"""Keys whose values may be secrets, written where their place was expected: an error does not repeat them."""

Port = Annotated[int, Field(ge=0, le=65535)]


class ServerSettings(Group):
    """Where HTTP is spoken. ``admin_port`` gives the admin plane and the metrics an address of their own.
    ``workers``: processes that share the port, each with a processor's worth of requests; 1 does it all in one."""

    host: str = "127.0.0.1"
    port: Port = 8000
    admin_host: str = "127.0.0.1"
    admin_port: Port | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    drain_s: Seconds = 30.0
    backlog: Positive = 2048
    workers: Annotated[int, Field(ge=1, le=256)] = 1

    @model_validator(mode="after")
    def _whole(self) -> ServerSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, missing = ("tls_certificate", "tls_key") if self.tls_key is None else ("tls_key", "tls_certificate")
            raise ValueError(f"{given} is set and {missing} is not; TLS needs both")
        return self


class LimitSettings(Group):
    """What one request may cost before it is refused. JSON bodies from ``decode_elsewhere_bytes`` on are decoded in a
    process of their own, which is there while such bodies come."""

    body_bytes: Positive = 64 * 1024 * 1024
    upload_bytes: Positive = 16 * 1024 * 1024 * 1024
    depth: Positive = 32
    elements: Positive = 16_000_000
    compression_ratio: Positive = 100
    receive_s: Seconds = 30.0
    timeout_ms: Positive = 10_000
    decode_elsewhere_bytes: Positive = 256 * 1024


class RegistrySettings(ArtifactSettings):
    """What may be registered over the network by naming a path on this machine (``file:``). ``fetch_timeout_s``: how
    long another system may take to give a version's files; to say what a name points at, ``resolve_timeout_s``. Where
    bytes are kept: ``ArtifactSettings``."""

    source_directories: tuple[Path, ...] = ()
    fetch_timeout_s: Seconds = 3600.0
    resolve_timeout_s: Seconds = 60.0
    interpreters: InterpreterSettings = InterpreterSettings()
    mlflow: MlflowSettings = MlflowSettings()
    wandb: WandbSettings = WandbSettings()
    environments: EnvironmentSettings = EnvironmentSettings()


class GuardSettings(Group):
    """When a version that fails outright is taken off its route without being asked."""

    enabled: bool = True
    window_s: Seconds = 5.0
    min_requests: Positive = 5
    error_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    crashes: Positive = 3
    crash_window_s: Seconds = 30.0


class FlagSettings(Group):
    """Where rules that name a flag get its value from: ``flagd-file`` reads ``path``; ``package.module:Class`` is any
    OpenFeature provider that evaluates in this process, made with ``options``.

    Start waits ``ready_s`` for it. One whose evaluations take longer than ``budget_ms`` again and again is taken out
    of the request path, and the known good answers; it is tried again every ``retry_s`` seconds.
    """

    provider: str | None = None
    path: Path | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    poll_ms: Annotated[int, Field(ge=10, le=1000)] = 500
    ready_s: Seconds = 5.0
    budget_ms: Annotated[float, Field(gt=0, le=1000)] = 5.0
    retry_s: Seconds = 30.0


class WebhookSettings(Group):
    """The secrets that sign a rollout's webhooks, by the name that its plan uses."""

    secrets: dict[str, SecretSource] = Field(default_factory=dict)


class AuditSettings(Group):
    """The audit chain is signed after ``checkpoint_records`` changes, and every ``checkpoint_s`` if there was any; each
    checkpoint is kept in the home and, with ``post_url``, sent there."""

    checkpoint_s: Seconds = 300.0
    checkpoint_records: Positive = 100
    post_url: Annotated[str, Field(pattern=r"^https?://")] | None = None


class TelemetrySettings(TracingSettings):
    """``request_log`` is ``stdout``, ``stderr``, ``off`` or a file; ``recorder_bytes`` of records may wait for the
    recorder, in each process that answers, before some are dropped; ``clock_stands_h``: for so long a step of the wall
    clock must stand before decisions and labels go by the age that they have by it; ``drift``: whether inputs and
    answers move away from their references. What it says of traces: ``TracingSettings``."""

    request_log: str = "stdout"
    request_log_queue: Positive = 10_000
    recorder_bytes: Annotated[int, Field(ge=64 * 1024)] = 32 * 1024 * 1024
    clock_stands_h: Annotated[float, Field(ge=0, le=8760)] = 72.0
    truth: TruthSettings = TruthSettings()
    decisions: DecisionSettings = DecisionSettings()
    drift: DriftSettings = DriftSettings()


class _Environment(EnvSettingsSource):
    """Lists are JSON, or words between commas: ``TURNOUT_RUNTIMES__ALLOW_PICKLE=digits,iris``."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            text = str(value).strip()
            if text.startswith(("[", "{")):
                raise SettingsError(f"environment: {field_name}: got {text!r:.200}; not valid JSON") from None
            return [word.strip() for word in text.split(",") if word.strip()]


class Settings(BaseSettings):
    """All of it. ``home`` holds the store, artifact blobs, logs and the generated admin token."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter=_NESTING, extra="forbid", frozen=True)

    home: Path = Path(".turnout")
    default_route: str | None = None
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    runtimes: RuntimeSettings = RuntimeSettings()
    registry: RegistrySettings = RegistrySettings()
    store: StoreSettings = StoreSettings()
    guard: GuardSettings = GuardSettings()
    flags: FlagSettings = FlagSettings()
    audit: AuditSettings = AuditSettings()
    batch: BatchSettings = BatchSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    webhooks: WebhookSettings = WebhookSettings()
    notifications: NotificationSettings = NotificationSettings()
    targets: Annotated[dict[str, TargetSettings], AfterValidator(sound_targets)] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as init values."""
        return _Environment(settings_cls), init_settings


def load_settings(path: Path | None = None, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Reads the file if one is given, applies ``overrides`` (from command-line options), then the environment.

    Overrides win over everything. Raises SettingsError.
    """
    values = {} if path is None else _read(path)
    origin = "defaults" if path is None else str(path)
    _check_variables()
    try:
        settings = Settings(**values)
        return _override(settings, overrides or {})
    except ValidationError as error:
        raise SettingsError(_explain(error, origin)) from None


def _check_variables() -> None:
    """Raises SettingsError for a variable of a group that is not there.

    Names without two underscores are left alone: a cluster puts ``TURNOUT_PORT`` and the like into
    the environment of every container beside a service of that name.
    """
    for variable in sorted(os.environ):
        names = variable.upper().removeprefix(_PREFIX).lower().split(_NESTING)
        if variable.upper().startswith(_PREFIX) and len(names) > 1 and names[0] not in Settings.model_fields:
            raise SettingsError(_unknown(names[:1], f"environment: {variable}"))


def _read(path: Path) -> dict[str, Any]:
    try:
        body = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}. Give an existing file to --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise SettingsError(f"{path}: expected a mapping of settings, got {type(body).__name__}")
    return {str(key): value for key, value in body.items()}


def _override(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Dotted names to values: ``{"server.port": 9000}``."""
    for dotted, value in overrides.items():
        group, _, name = dotted.rpartition(".")
        if not group:
            settings = settings.model_copy(update={name: value})
            continue
        current = getattr(settings, group)
        fresh = type(current).model_validate({**current.model_dump(), name: value})
        settings = settings.model_copy(update={group: fresh})
    return settings


def _explain(error: ValidationError, origin: str) -> str:
    return "; ".join(_explain_one(problem, origin) for problem in error.errors())


def _explain_one(problem: Any, origin: str) -> str:
    names = [str(part) for part in problem["loc"]]
    key = ".".join(names)
    variable = _PREFIX + _NESTING.join(names).upper()
    if variable in {name.upper() for name in os.environ}:
        origin = f"environment: {variable}"
    if problem["type"] == "extra_forbidden":
        return _unknown(names, origin)
    if problem["type"] == "value_error":
        return f"{origin}: {key}: {problem['ctx']['error']}"
    came = "a value that is not shown" if _SECRETIVE.search(key) else repr(problem["input"])
    return f"{origin}: {key}: got {came}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _unknown(names: list[str], origin: str) -> str:
    near = difflib.get_close_matches(names[-1], _keys_beside(names), n=1, cutoff=0.5)
    meant = ".".join([*names[:-1], *near])
    hint = f"did you mean {meant!r}?" if near else "see config/gateway.yaml for every key"
    return f"{origin}: unknown key {'.'.join(names)!r}; {hint}"


def _keys_beside(names: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for name in names[:-1]:
        field = model.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
