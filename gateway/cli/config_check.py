"""Looks a configuration over: is it one, does a secret stand in it, is each secret where it says, do its parts fit?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.control.rollout_plan import PlanSpec
from gateway.errors import InvalidInput, SettingsError
from gateway.secret_reading import secret_of
from gateway.secret_text import MARK, secrets_in
from gateway.settings import SecretSource, Settings, load_settings

__all__ = ["Fault", "check_settings", "check_text", "secret_sources"]

ANYONE = stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Fault:
    """``kind`` is ``settings``, ``secret-in-text`` or ``secret``. ``sure`` False: somebody should look at it."""

    kind: str
    file: str
    place: str
    says: str
    line: int | None = None
    sure: bool = True

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        where = self.file + (f":{self.line}" if self.line else "")
        return f"{where}: {self.place}: {self.says}" if self.place else f"{where}: {self.says}"


def check_text(path: Path) -> Iterator[Fault]:
    """Secrets that stand in a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        yield Fault("settings", str(path), "", f"cannot be read: {why}")
        return
    for found in secrets_in(text):
        hint = "name where it is: {env: VARIABLE}, {file: PATH} or {command: [PROGRAM, …]}"
        if not found.sure:
            hint = f"if it is a secret, {hint}; if not, write # {MARK} on its line"
        says = f"a secret stands here: {found.what}; {hint}" if found.sure else f"{found.what}; {hint}"
        yield Fault("secret-in-text", str(path), found.place, says, found.line, found.sure)


def check_settings(path: Path | None, *, read: bool) -> Iterator[Fault]:
    """What would stop the start, or go wrong later. ``read``: secrets are read, as a gateway here would, and commands
    run."""
    file = "the environment" if path is None else str(path)
    try:
        settings = load_settings(path)
    except SettingsError as error:
        yield from (
            Fault("settings", file, "", text.removeprefix(f"{file}: ")) for text in str(error).split("; " + file)
        )
        return
    for place, source in secret_sources(settings):
        says = _of_source(source, place, read=read)
        if says:
            yield Fault("secret", file, place, says)
    yield from _of_parts(settings, file)


def secret_sources(value: object, place: str = "") -> Iterator[tuple[str, SecretSource]]:
    """Every one in the settings, with its key."""
    if isinstance(value, SecretSource):
        yield place, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secret_sources(getattr(value, name), f"{place}.{name}".lstrip("."))
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from secret_sources(one, f"{place}.{name}")
    elif isinstance(value, tuple | list):
        for index, one in enumerate(value):
            yield from secret_sources(one, f"{place}.{getattr(one, 'name', index)}")


def _of_source(source: SecretSource, place: str, *, read: bool) -> str:
    """What is wrong with it. Unless it is read, it need not be there: the check may run elsewhere than the gateway."""
    if source.file is not None and (open_to := _open_to_all(source.file)):
        return open_to
    if not read:
        return ""
    try:
        secret_of(source, place)
    except SettingsError as error:
        return str(error).removeprefix(place).removeprefix(": ")
    return ""


def _open_to_all(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if not mode & ANYONE:
        return ""
    return f"every account of this machine may use {path} (mode {stat.S_IMODE(mode):04o}); chmod 600 it"


def _of_parts(settings: Settings, file: str) -> Iterator[Fault]:
    for name, target in settings.targets.items():
        try:
            plan = PlanSpec.parse({**(target.rollout or {}), "candidate": 1})
        except InvalidInput as error:
            yield Fault("settings", file, f"targets.{name}.rollout", str(error))
            continue
        for event in ("confirm", "before", "after", "rolled_back"):
            for hook in getattr(plan.webhooks, event):
                if hook.secret is not None and hook.secret not in settings.webhooks.secrets:
                    known = ", ".join(settings.webhooks.secrets) or "none"
                    says = f"webhooks.secrets has no {hook.secret!r}; it has {known}"
                    yield Fault("settings", file, f"targets.{name}.rollout.webhooks.{event}", says)
    server = settings.server
    for name, path in (("tls_certificate", server.tls_certificate), ("tls_key", server.tls_key)):
        if path is not None and not os.access(path, os.R_OK):
            yield Fault("settings", file, f"server.{name}", f"{path} cannot be read; expected a file, in PEM")
    if server.tls_key is not None and (open_to := _open_to_all(server.tls_key)):
        yield Fault("secret", file, "server.tls_key", open_to)
