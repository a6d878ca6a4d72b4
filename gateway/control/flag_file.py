"""flagd's flag file as an OpenFeature provider: read here, evaluated here by flagd's own core, watched for changes.

A file that is broken, half written or gone changes nothing: the last good flags stay, and grow old.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import yaml
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import GeneralError, OpenFeatureError
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider import AbstractProvider, Metadata

from gateway.yaml_reading import PlainLoader, read_yaml

__all__ = ["MAX_FILE_BYTES", "MAX_YAML_BYTES", "FlagdFile"]

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_YAML_BYTES = 256 * 1024
"""Both are read beside requests that want the same interpreter: 4 MiB of JSON keep it for some 50 ms, and YAML takes
10 s for a mebibyte, in small pieces."""

log = logging.getLogger("turnout.control")

Signature = tuple[int, int, int, int]


class FlagdFile(AbstractProvider):
    """``path``: JSON, or YAML by its ending. ``tend`` and ``initialize`` read the disk, so they belong into a thread;
    evaluation reads one reference, which they swap."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._core: FlagdCore | None = None
        self._seen: Signature | None = None
        self._fault: str | None = None

    def __repr__(self) -> str:
        return f"<FlagdFile {self._path} [{'broken' if self._fault else 'read' if self._core else 'not read'}]>"

    def get_metadata(self) -> Metadata:
        return Metadata(name="flagd-file")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        fault = self.tend()
        if fault is not None:
            raise GeneralError(fault)

    def tend(self) -> str | None:
        """Reads the file if it is another than at the last look; why its flags are not in force, None if they are."""
        try:
            with self._path.open("rb") as file:
                seen = _signature(os.fstat(file.fileno()))
                if seen == self._seen:
                    return self._fault
                text = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            self._seen = None
            return f"{self._path} cannot be read: {error.strerror}"
        self._seen = seen
        try:
            core = FlagdCore()
            core.set_flags(_flags(text, self._path))
        except (OpenFeatureError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
            why = getattr(error, "error_message", None) or str(error) or type(error).__name__
            self._fault = f"{self._path} holds no flags for flagd: {' '.join(str(why).split()):.300}"
            log.error("%s; the flags that were read before stay in force", self._fault)
            return self._fault
        first, self._core, self._fault = self._core is None, core, None
        if not first:
            self.emit_provider_configuration_changed(ProviderEventDetails())
        return None

    def _flags_in_force(self) -> FlagdCore:
        if self._core is None:
            raise GeneralError(f"{self._path} has not been read yet")
        return self._core

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        said: FlagResolutionDetails[bool] = self._flags_in_force().resolve_boolean_value(
            flag_key, default_value, evaluation_context
        )
        return said

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        said: FlagResolutionDetails[str] = self._flags_in_force().resolve_string_value(
            flag_key, default_value, evaluation_context
        )
        return said

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        said: FlagResolutionDetails[int] = self._flags_in_force().resolve_integer_value(
            flag_key, default_value, evaluation_context
        )
        return said

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        said: FlagResolutionDetails[float] = self._flags_in_force().resolve_float_value(
            flag_key, default_value, evaluation_context
        )
        return said

    def resolve_object_details(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        said: FlagResolutionDetails[Any] = self._flags_in_force().resolve_object_value(
            flag_key, default_value, evaluation_context
        )
        return said


def _signature(status: os.stat_result) -> Signature:
    """Another file in its place, or another content: what both a rename and a write change."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _flags(text: bytes, path: Path) -> dict[str, Any]:
    """Raises ValueError, or yaml.YAMLError. An empty object would end every flag: it needs to say ``flags``."""
    is_yaml = path.suffix in (".yaml", ".yml")
    if len(text) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    if is_yaml and len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it is larger than {MAX_YAML_BYTES} bytes; write it as JSON, which is read much faster")
    body = read_yaml(text, PlainLoader) if is_yaml else json.loads(text, object_pairs_hook=_once)
    if not isinstance(body, dict) or not isinstance(body.get("flags"), dict):
        raise ValueError("expected an object with 'flags', which maps each flag's key to its definition")
    return body


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One object of JSON, in which a key stands once: of equal ones the parser keeps the last."""
    body = dict(pairs)
    if len(body) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return body
