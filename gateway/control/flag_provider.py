"""Which OpenFeature provider the settings name; those that would ask a server for every flag are refused by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from openfeature.provider import FeatureProvider

from gateway.control.flag_file import FlagdFile
from gateway.errors import SettingsError
from gateway.settings import FlagSettings

__all__ = ["FLAGD_FILE", "provider_maker"]

FLAGD_FILE = "flagd-file"

_NETWORKED: Mapping[str, str] = {
    "openfeature.contrib.provider.ofrep:OFREPProvider": "it sends an HTTP request for every evaluation",
    "openfeature.contrib.provider.flagd:FlagdProvider": "it asks a flagd daemon for every evaluation",
}
"""What is known to answer over a network; what is not known is measured (``EvaluationBudget``)."""

_IN_PROCESS = frozenset({"in-process", "file"})


def provider_maker(settings: FlagSettings) -> Callable[[], FeatureProvider] | None:
    """How to make the provider (that may take its time); None when none is configured. Raises SettingsError."""
    if settings.provider is None:
        return None
    if settings.provider == FLAGD_FILE:
        if settings.path is None:
            raise SettingsError(f"flags.provider is {FLAGD_FILE!r}, and flags.path is not set; name the flag file")
        return partial(FlagdFile, settings.path)
    _refuse_networked(settings.provider, settings.options)
    return partial(_named(settings.provider), **settings.options)


def _refuse_networked(name: str, options: Mapping[str, Any]) -> None:
    """flagd's provider is welcome where it evaluates in this process: with its resolver ``in-process`` or ``file``."""
    why = _NETWORKED.get(name)
    resolver = str(getattr(options.get("resolver_type"), "value", options.get("resolver_type"))).lower()
    if why is None or (name.endswith(":FlagdProvider") and resolver in _IN_PROCESS):
        return
    raise SettingsError(
        f"flags.provider: {name} is refused: {why}, and a request never waits for another server here; take "
        f"{FLAGD_FILE!r} with a file, or a provider that evaluates in this process"
    )


def _named(name: str) -> Callable[..., FeatureProvider]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise SettingsError(f"flags.provider: got {name!r}; expected {FLAGD_FILE!r} or 'package.module:Class'")
    try:
        made: Any = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"flags.provider: {name} cannot be imported ({error}); install its package beside Turnout"
        ) from None
    if not callable(made):
        raise SettingsError(f"flags.provider: {name} is a {type(made).__name__}; expected a class of a provider")
    return made  # type: ignore[no-any-return]
