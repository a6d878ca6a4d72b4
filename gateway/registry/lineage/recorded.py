"""The lineage file: what a recording leaves for ``turnout register --lineage``, in plain JSON and without secrets.

It is an object with the places of a manifest's lineage and, beside them, ``evaluation`` with the metrics.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.errors import RegistryError
from gateway.registry import canonical

__all__ = ["HIDDEN", "SECRET", "holds_secret", "merged", "plain", "read_file", "without_secrets", "write_file"]

SECRET = re.compile(r"pass(word|wd|phrase)|secret|api[-_]?key|credential|(^|[-_])token$", re.IGNORECASE)
HIDDEN = "***"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#'\"<>]*)@")
_SETTING = re.compile(
    r"(?<![\w.-])([\w.-]*(?:pass(?:word|wd|phrase)|secret|(?:api|account)[-_]?key|credential)[\w.-]*"
    r"|(?:[\w.-]*[-_])?(?:token|sig|signature))=[^\s&;,'\"]+",
    re.IGNORECASE,
)
_FORMS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{30,}|github_pat_\w{30,}|hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}"
    r"|xox[a-z]-[\w-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
)
"""Tokens that are known by how they look: AWS, GitHub, Hugging Face, OpenAI, Slack, JWT."""
_WRITTEN = re.compile(
    r"(pass(word|wd|phrase)|secret|api[-_]?key|credential|token)\w*[\"']?\s*[:=]\s*[\"'][^\"'\s]{6,}[\"']",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#'\"<>:@]*:[^\s/?#'\"<>]+@")
_MAX_TEXT = 500


def without_secrets(text: str) -> str:
    """Addresses lose who asks (``https://user:secret@host``; ``git@`` is no secret), and what is named like a secret
    (``API_KEY=…``, a query's ``&X-Amz-Signature=…``) or known by its form loses its value."""
    text = _ADDRESS.sub(lambda found: found[1] + ("git@" if found[2] == "git" else ""), text)
    return _FORMS.sub(HIDDEN, _SETTING.sub(lambda found: f"{found[1]}={HIDDEN}", text))


def holds_secret(text: str) -> bool:
    """Whether a secret seems to be written in program text, where names like ``token=`` alone say nothing."""
    return any(pattern.search(text) for pattern in (_PASSWORD, _FORMS, _WRITTEN))


def plain(value: Any) -> Any:
    """As JSON: numpy's scalars become numbers, paths and what else is no JSON become text, secrets become ``***``."""
    if isinstance(value, Mapping):
        return {str(key): _hidden(str(key), item) for key, item in value.items()}
    if isinstance(value, str | list | tuple):
        return without_secrets(value) if isinstance(value, str) else [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=repr)
    if not isinstance(value, str | int | float | bool | None) and callable(getattr(value, "item", None)):
        return plain(value.item() if getattr(value, "ndim", 0) == 0 else value.tolist())
    try:
        return canonical.thaw(canonical.freeze(value))
    except RegistryError:
        return without_secrets((str(value) if isinstance(value, os.PathLike) else repr(value))[:_MAX_TEXT])


def _hidden(name: str, value: Any) -> Any:
    """Of a secret's name: every text below it. A number there is one of a vocabulary (``pad_token=0``)."""
    if not SECRET.search(name):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(key): _hidden(name, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(name, item) for item in value]
    return HIDDEN if isinstance(value, str | bytes) and value else plain(value)


def merged(given: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` wins; ``beside`` fills what it leaves out, within objects too. Lists are one value."""
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in beside.items():
        own = found.get(name)
        if own is None:
            found[name] = value
        elif isinstance(own, Mapping) and isinstance(value, Mapping):
            found[name] = merged(own, value)
    return found


def write_file(path: Path, body: Mapping[str, Any]) -> None:
    """Whole or not at all. RegistryError names what cannot be kept."""
    canonical.dumps(body)
    text = json.dumps(body, indent=2, ensure_ascii=False, sort_keys=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(f"{text}\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise RegistryError(f"the lineage file {path} cannot be written: {error.strerror}") from error


def read_file(path: Path) -> dict[str, Any]:
    """RegistryError for what is no JSON object."""
    try:
        body = canonical.loads_any(path.read_bytes(), what=f"lineage file {path}")
    except OSError as error:
        raise RegistryError(f"the lineage file {path} cannot be read: {error.strerror}") from error
    if not isinstance(body, dict):
        raise RegistryError(f"lineage file {path}: expected an object")
    return body
