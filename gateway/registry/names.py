"""Which names are allowed: models, aliases, digests, files within a version."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.errors import InvalidRegistration

__all__ = ["check_alias", "check_digest", "check_file_name", "check_model_name", "check_tags", "split_reference"]

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_MAX_PATH = 512
_MAX_PART = 255
"""Bytes: what file systems take."""
_MAX_TAG_VALUE = 512


def check_model_name(name: str) -> str:
    if not _MODEL.fullmatch(name):
        raise InvalidRegistration(
            f"model name {name!r}: expected 1 to 128 letters, digits, dots, dashes or underscores, "
            "the first a letter or digit"
        )
    return name


def check_alias(alias: str) -> str:
    if not _ALIAS.fullmatch(alias):
        raise InvalidRegistration(
            f"alias {alias!r}: expected 1 to 64 letters, digits, dots, dashes or underscores, the first a letter"
        )
    return alias


def check_digest(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidRegistration(f"digest {digest!r}: expected sha256: and 64 lower-case hexadecimal digits")
    return digest


def check_file_name(name: str) -> str:
    """A relative path with forward slashes that stays inside: no ``..``, no drive, no NUL, no backslash."""
    parts = name.split("/")
    fault = None
    if not name or len(name.encode("utf-8", "surrogatepass")) > _MAX_PATH:
        fault = f"expected 1 to {_MAX_PATH} bytes"
    elif "\\" in name or ":" in name or not name.isprintable():
        fault = "backslashes, colons and control characters are not allowed"
    elif any(part in ("", ".", "..") for part in parts):
        fault = "expected a relative path without empty parts, . or .."
    elif any(part != part.strip() for part in parts):
        fault = "parts may not begin or end with white space"
    elif any(len(part.encode("utf-8", "surrogatepass")) > _MAX_PART for part in parts):
        fault = f"expected at most {_MAX_PART} bytes between slashes"
    if fault:
        raise InvalidRegistration(f"file name {name!r}: {fault}; rename the file")
    return name


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    for key, value in tags.items():
        if not _TAG_KEY.fullmatch(key):
            raise InvalidRegistration(f"tag {key!r}: expected 1 to 64 letters, digits, dots, dashes or slashes")
        if not isinstance(value, str) or len(value) > _MAX_TAG_VALUE:
            raise InvalidRegistration(f"tag {key!r} is {value!r}; expected text of at most {_MAX_TAG_VALUE} characters")
    return dict(tags)


def split_reference(text: str) -> tuple[str, str]:
    """``digits/3`` → (digits, 3); ``digits@champion`` → (digits, @champion); ``digits@sha256:…`` likewise."""
    at, slash = text.partition("@"), text.partition("/")
    if at[1]:
        return check_model_name(at[0]), "@" + at[2]
    if slash[1]:
        return check_model_name(slash[0]), slash[2]
    raise InvalidRegistration(f"{text!r} names no version; write MODEL/3, MODEL@alias or MODEL@sha256:…")
