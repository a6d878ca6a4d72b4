"""Who may do what: bearer tokens of 256 random bits, kept as SHA-256, looked up in memory.

A slow password hash would stall the data plane and gains nothing on 256 random bits. Checking
a token reads one dictionary that the reconciler refreshes from the store, so a revoked token
ends within a poll of the store, and a store that is down changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.clock import Clock
from gateway.control.store import Actor, Body, Document
from gateway.errors import FieldProblem, Forbidden, InvalidInput, RegistryError, StoreUnavailable
from gateway.registry.migration import Migration, migrate

__all__ = ["MIGRATIONS", "SCHEMA", "Principal", "Role", "TokenDocument", "TokenRing", "digest_of", "mint"]

SCHEMA = 1
MIGRATIONS: Mapping[int, Migration] = {}
"""From schema number n to a pure function that makes a body of n + 1; empty while there is one schema."""

_PREFIX = "turnout_"
_ID_DIGITS = 16
MAX_OUTGOING = 4
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Role(StrEnum):
    """Each role may do what those before it may."""

    PREDICT = "predict"
    FEEDBACK = "feedback"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)

    @classmethod
    def parse(cls, text: object) -> Role:
        """Raises InvalidInput naming the roles there are."""
        for role in cls:
            if text == role.value:
                return role
        names = ", ".join(cls)
        problem = FieldProblem("role", f"one of {names}", repr(text)[:100])
        raise InvalidInput(f"no role {text!r:.100}; expected one of {names}", problem)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling. ``routes`` None: all of them, else the only routes that the token covers. ``token_id``: which
    secret it was, by the first digits of its hash."""

    name: str
    role: Role
    routes: frozenset[str] | None = None
    token_id: str | None = field(default=None, compare=False)

    @property
    def actor(self) -> Actor:
        """As the audit has it."""
        return Actor(self.name, self.token_id)

    def may(self, role: Role, route: str | None = None) -> bool:
        covers = route is None or self.routes is None or route in self.routes
        return self.role.covers(role) and covers

    def require(self, role: Role, route: str | None = None) -> None:
        """Raises Forbidden saying what the token lacks."""
        if not self.role.covers(role):
            raise Forbidden(f"token {self.name!r} has role {self.role}; this call needs {role} or above")
        if not self.may(role, route):
            raise Forbidden(f"token {self.name!r} does not cover route {route!r}; it covers {self._routes_text()}")

    def require_everywhere(self, role: Role) -> None:
        """For calls that reach beyond single routes: the token must not be bound to some."""
        self.require(role)
        if self.routes is not None:
            raise Forbidden(
                f"token {self.name!r} is bound to {self._routes_text()}; this call needs a token for all routes"
            )

    def _routes_text(self) -> str:
        return ", ".join(sorted(self.routes or ())) or "no route"


@dataclass(frozen=True, slots=True)
class TokenDocument:
    """A token as stored: everything but the secret. Times in seconds since the epoch. ``outgoing``: hashes of secrets
    that it had before, and until when each is still good."""

    name: str
    sha256: str
    role: Role
    routes: frozenset[str] | None
    created_at: float
    rotated_at: float
    expires_at: float | None = None
    outgoing: tuple[tuple[str, float], ...] = ()

    @property
    def token_id(self) -> str:
        return self.sha256[:_ID_DIGITS]

    def to_json(self) -> dict[str, Any]:
        body = {"schema": SCHEMA, "sha256": self.sha256, **self.view()}
        body.pop("old_until", None)
        left = [{"sha256": sha256, "until": until} for sha256, until in self.outgoing]
        return body | ({"outgoing": left} if left else {})

    def view(self) -> dict[str, Any]:
        """What may be shown: not even the hash. ``old_until``, where a secret before this one is good for a while."""
        old = {"old_until": max(until for _, until in self.outgoing)} if self.outgoing else {}
        return old | {
            "name": self.name,
            "role": str(self.role),
            "routes": None if self.routes is None else sorted(self.routes),
            "created_at": self.created_at,
            "rotated_at": self.rotated_at,
            "expires_at": self.expires_at,
        }

    @classmethod
    def from_json(cls, body: Body) -> TokenDocument:
        """Raises StoreUnavailable when the document is newer than this program or not a token."""
        try:
            body = migrate(body, MIGRATIONS, SCHEMA, what="the token document")
            routes = body["routes"]
            return cls(
                name=body["name"],
                sha256=body["sha256"],
                role=Role.parse(body["role"]),
                routes=None if routes is None else frozenset(routes),
                created_at=body["created_at"],
                rotated_at=body["rotated_at"],
                expires_at=body["expires_at"],
                outgoing=tuple((row["sha256"], row["until"]) for row in body.get("outgoing", ())),
            )
        except (KeyError, TypeError, InvalidInput, RegistryError) as error:
            raise StoreUnavailable(f"a stored token cannot be read: {error}") from error

    def rotated(self, sha256: str, now: float, *, grace_s: float = 0.0) -> TokenDocument:
        """With a new secret; the one before, and those before it whose time is not over, are good for ``grace_s`` at
        most."""
        until = now + grace_s
        left = [
            (old, min(until, ends)) for old, ends in (*self.outgoing, (self.sha256, until)) if min(until, ends) > now
        ]
        return replace(self, sha256=sha256, rotated_at=now, outgoing=tuple(left[-MAX_OUTGOING:]))

    def every(self) -> Iterator[TokenDocument]:
        """It as each of its secrets finds it."""
        yield replace(self, outgoing=())
        for sha256, until in self.outgoing:
            ends = until if self.expires_at is None else min(until, self.expires_at)
            yield replace(self, sha256=sha256, expires_at=ends, outgoing=())


def mint() -> tuple[str, str]:
    """A new secret and the digest that is stored of it."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    return secret, digest_of(secret)


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def check_token_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        expected = "1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
        problem = FieldProblem("name", expected, repr(name)[:100])
        raise InvalidInput(f"token name {name!r:.100}: expected {expected}", problem)
    return name


def check_routes(routes: object) -> frozenset[str] | None:
    """None means every route. An empty list does not: nobody who narrows a token down to nothing means all."""
    if routes is None:
        return None
    if not (isinstance(routes, list | tuple) and routes and all(isinstance(name, str) and name for name in routes)):
        problem = FieldProblem("routes", "a list of route names, or null for all", repr(routes)[:100])
        raise InvalidInput("routes of the token: expected a list of route names, or null for all", problem)
    return frozenset(routes)


class TokenRing:
    """The tokens in force here. ``install`` swaps the whole ring; ``verify`` reads it, without locks or I/O."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_digest: Mapping[str, TokenDocument] = {}

    def __repr__(self) -> str:
        return f"<TokenRing [{len(self._by_digest)} tokens]>"

    @property
    def tokens(self) -> Mapping[str, TokenDocument]:
        """Those in force, by the digest of their secret."""
        return self._by_digest

    def install(self, documents: Iterable[Document]) -> None:
        """Takes the ring from a snapshot's token documents; one that cannot be read opens nothing."""
        ring: dict[str, TokenDocument] = {}
        for document in documents:
            if document.key.kind != "token" or document.body is None:
                continue
            try:
                token = TokenDocument.from_json(document.body)
            except StoreUnavailable:
                continue
            ring |= {one.sha256: one for one in token.every()}
        self._by_digest = ring

    def verify(self, secret: str) -> Principal | None:
        """Whom the token stands for; None when it is unknown or has expired."""
        digest = digest_of(secret)
        token = self._by_digest.get(digest)
        # The dictionary is asked by hash, which a caller cannot steer; the comparison is constant-time all the same.
        known = hmac.compare_digest(digest, "0" * 64 if token is None else token.sha256)
        expired = token is None or (token.expires_at is not None and token.expires_at <= self._clock.wall())
        if not known or token is None or expired:
            return None
        return Principal(token.name, token.role, token.routes, token.token_id)
