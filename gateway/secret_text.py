"""Finds secrets that stand in configuration text: by the name of their key, by a known form, in addresses, by chance.

Pure. A finding names the place and never the value. What is meant to stand there is marked on its line with the comment
``# not-a-secret``. Keys that say where a secret is (``{env: …}``, ``{file: …}``, ``{command: […]}``) are no secrets;
arguments of a command are looked at like any other text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

__all__ = ["MARK", "Finding", "secrets_in"]

MARK = "not-a-secret"

_FORMS: tuple[tuple[str, str], ...] = (
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----", "a private key"),
    (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", "an AWS access key"),
    (r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}", "a GitHub token"),
    (r"\bglpat-[A-Za-z0-9_-]{20,}", "a GitLab token"),
    (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", "a Slack token"),
    (r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/]{10,}", "a Slack webhook, whose address is its secret"),
    (r"discord(?:app)?\.com/api/webhooks/[0-9]+/[A-Za-z0-9_-]{10,}", "a Discord webhook, whose address is its secret"),
    (r"\b(?:hvs|hvb|hvr)\.[A-Za-z0-9_-]{20,}|\bs\.[A-Za-z0-9]{24}\b", "a Vault token"),
    (r"\bturnout_[A-Za-z0-9_-]{40,}", "a token of Turnout"),
    (r"\bhf_[A-Za-z0-9]{30,}", "a Hugging Face token"),
    (r"\bsk-[A-Za-z0-9_-]{20,}|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}", "an API key"),
    (r"\bAIza[0-9A-Za-z_-]{35}\b", "a Google API key"),
    (r"\bya29\.[0-9A-Za-z_-]{20,}", "a Google access token"),
    (r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}", "a signed token (JWT)"),
    (r"\bAccountKey=[A-Za-z0-9+/=]{20,}", "an Azure account key"),
    (r"\b(?:npm|pypi|dop_v1|dapi)[_-]?[A-Za-z0-9]{32,}", "a token"),
    (r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9+/=_.-]{12,}", "an Authorization header"),
)
_KNOWN = tuple((re.compile(pattern), what) for pattern, what in _FORMS)

_WORDS = frozenset({"password", "passwd", "pwd", "passphrase", "secret", "token", "credential", "credentials"})
_WORDS_ALONE = frozenset({"authorization", "apikey", "passcode"})
_KEYS = frozenset({"api", "access", "private", "secret", "signing", "encryption", "account", "shared", "auth"})
"""Before ``key``: what kinds of keys are secrets. A key alone is a name."""
_SOURCE = frozenset({"env", "file", "command", "timeout_s", "refresh_s"})
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}|\$[A-Z_]+|<[^>]*>|\{\{.*\}\}|\*+|\.\.\.|…")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>,]+", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{20,}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{32,}")
_HARMLESS_RUN = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9]+|[A-Za-z_]+(?:[-_/][A-Za-z]+)*")
_DIGEST = re.compile(r"\b(?:sha256|sha512|sha1|md5):[0-9a-fA-F]+")
_NAMED_BY_CONTENT = frozenset(
    {"digest", "commit", "rev", "revision", "sha256", "hash", "checksum", "fingerprint", "id"}
)
LEAST_BITS = 3.8
LEAST_BITS_HEXADECIMAL = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """``place`` is a key, in full, or ``a comment``; ``sure`` False: it only looks like chance."""

    place: str
    line: int
    what: str
    sure: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"place": self.place, "line": self.line, "what": self.what, "sure": self.sure}


def secrets_in(text: str) -> tuple[Finding, ...]:
    """In order of lines, one for a value. Text that is no YAML is looked at line by line."""
    lines = text.splitlines()
    try:
        roots, plain = [root for root in yaml.compose_all(text, Loader=yaml.SafeLoader) if root is not None], False
    except (yaml.YAMLError, RecursionError):
        roots, plain = [], True
    found = [one for root in roots for one in _walk(root, (), _secret_names(root), set())]
    for number, line in enumerate(lines, start=1):
        comment = line if plain else _comment(line)
        what = _looks(comment) if comment else None
        if what is not None:
            found.append(Finding("the text" if plain else "a comment", number, what[0], what[1]))
    kept = [one for one in found if MARK not in (lines[one.line - 1] if one.line <= len(lines) else "")]
    return tuple(sorted(kept, key=lambda one: (one.line, one.place)))


def _walk(node: yaml.Node, path: tuple[str, ...], names: Collection[str], seen: set[int]) -> Iterator[Finding]:
    """Each node once, also one that aliases point at a million times."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(value, (*path, str(key.value)), names, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*path, f"[{index}]"), names, seen)
    elif isinstance(node, yaml.ScalarNode):
        what = _of_scalar(node, path, names)
        if what is not None:
            yield Finding(_shown(path), node.start_mark.line + 1, *what)


def _of_scalar(node: yaml.ScalarNode, path: tuple[str, ...], names: Collection[str]) -> tuple[str, bool] | None:
    value, kind = str(node.value), node.tag.rpartition(":")[2]
    if kind in ("null", "bool") or not value.strip() or _PLACEHOLDER.fullmatch(value.strip()):
        return None
    keys = [key for key in path if not key.startswith("[")]
    if (
        keys
        and keys[-1] not in _SOURCE
        and _secret_key(keys[-1], number=kind in ("int", "float"))
        and value not in names
    ):
        return "its name says that it is a secret", True
    what = _looks(value)
    if what is not None and not what[1] and keys and (_words(keys[-1])[-1:] or [""])[0] in _NAMED_BY_CONTENT:
        return None
    return what


def _secret_key(key: str, *, number: bool) -> bool:
    """A number under such a name may be a limit (``max_tokens``), but not under ``password``."""
    words = _words(key)
    if not words:
        return False
    last = words[-1]
    if last == "key":
        return not number and len(words) > 1 and words[-2] in _KEYS
    singular = last[:-1] if last.endswith("s") and last[:-1] in _WORDS else last
    if number:
        return last in ("password", "passwd", "pwd", "passphrase", "secret", "passcode")
    return singular in _WORDS or "".join(words) in _WORDS_ALONE or last in _WORDS_ALONE


def _words(key: str) -> list[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", key)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


def _secret_names(root: yaml.Node) -> frozenset[str]:
    """Names under ``webhooks.secrets``: a plan that signs with one names it under ``secret``."""
    found = _below(_below(root, "webhooks"), "secrets")
    if not isinstance(found, yaml.MappingNode):
        return frozenset()
    return frozenset(str(key.value) for key, value in found.value if isinstance(value, yaml.MappingNode))


def _below(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _looks(text: str) -> tuple[str, bool] | None:
    """What the text has in it, and whether that is sure."""
    for pattern, what in _KNOWN:
        if pattern.search(text):
            return f"it looks like {what}", True
    for address in _ADDRESS.findall(text):
        held = _of_address(address)
        if held is not None:
            return held, True
    longest = next((run for run in _runs(text) if _by_chance(run)), None)
    return None if longest is None else (f"{len(longest)} characters of it look drawn by chance", False)


def _of_address(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        held = parts.password
    except ValueError:
        return None
    if held and not _PLACEHOLDER.fullmatch(held):
        return "an address with a password in it"
    for name, value in parse_qsl(parts.query):
        if value and not _PLACEHOLDER.fullmatch(value) and (_secret_key(name, number=False) or _signed(name)):
            return f"an address with a secret in it (?{name}=)"
    return None


def _signed(name: str) -> bool:
    return name.lower() in ("sig", "signature", "x-amz-signature", "x-goog-signature", "code")


def _runs(text: str) -> Iterator[str]:
    """Runs without digests, and without the steps of paths."""
    bare = _ADDRESS.sub(" ", _DIGEST.sub(" ", text))
    for run in _RUN.findall(bare):
        pieces = run.split("/") if run.count("/") > len(run) / 12 else [run]
        yield from (piece for piece in pieces if len(piece) >= 20)


def _by_chance(run: str) -> bool:
    """By Shannon's measure of its own characters: a random text of 24 has over 4 bits each, a name made of words under
    3.6."""
    if _HARMLESS_RUN.fullmatch(run):
        return False
    bits = _bits(run)
    if _HEXADECIMAL.fullmatch(run):
        return bits >= LEAST_BITS_HEXADECIMAL and any(c.isdigit() for c in run) and any(c.isalpha() for c in run)
    kinds = (any(c.islower() for c in run), any(c.isupper() for c in run), any(c.isdigit() for c in run))
    return all(kinds) and bits >= LEAST_BITS


def _bits(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _comment(line: str) -> str | None:
    """What follows a # that begins a comment, as far as that can be told without quotes."""
    found = re.search(r"(?:^|\s)#(.*)", line)
    if found is None or any(line[: found.start()].count(quote) % 2 for quote in "\"'"):
        return None
    return found[1]


def _shown(path: tuple[str, ...]) -> str:
    text = ""
    for key in path:
        text += key if key.startswith("[") or not text else f".{key}"
    return text or "the whole file"
