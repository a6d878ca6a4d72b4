"""What admins do with tokens, and the first one: made on first start, left in ``HOME/admin-token``, never logged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.replica import Replica
from gateway.control.store import AuditEntry, DocumentKey, Snapshot, Store
from gateway.control.token_file import ADMIN_TOKEN_FILE, kept_secret
from gateway.control.tokens import Role, TokenDocument, check_routes, check_token_name, digest_of, mint
from gateway.errors import Conflict, FieldProblem, InvalidInput, NotFound

__all__ = ["TokenControl"]

BOOTSTRAP_NAME = "admin"
MAX_GRACE_S = 30 * 86_400.0

View = dict[str, Any]


class TokenControl:
    """The secret is in the answer of ``create`` and ``rotate`` and nowhere else.

    ``replica``: a token made is known here, and one that ended ends here, when the call returns; other
    replicas follow as soon as they see the revision.
    """

    def __init__(self, store: Store, replica: Replica, *, clock: Clock) -> None:
        self._store = store
        self._replica = replica
        self._clock = clock
        self._changes = Changes(store)

    async def list(self) -> Sequence[View]:
        snapshot = await self._store.snapshot()
        now = self._clock.wall()
        views = [token.view() for token in _tokens(snapshot)]
        return [{key: value for key, value in view.items() if key != "old_until" or value > now} for view in views]

    async def create(
        self, name: object, role: object, *, actor: str, routes: object = None, expires_in_s: object = None
    ) -> View:
        """Raises InvalidInput, or Conflict when the name is taken."""
        name, now = check_token_name(name), self._clock.wall()
        secret, sha256 = mint()
        token = TokenDocument(
            name=name,
            sha256=sha256,
            role=Role.parse(role),
            routes=check_routes(routes),
            created_at=now,
            rotated_at=now,
            expires_at=_expiry(expires_in_s, now),
        )
        await self._replica.taken(await self._add(token, actor))
        return {"token": secret, **token.view()}

    async def _add(self, token: TokenDocument, actor: str) -> int:
        key = _key(token.name)

        def decide(snapshot: Snapshot) -> Decision:
            if key in snapshot.documents:
                raise Conflict(f"there is a token {token.name!r} already; revoke it, rotate it, or take another name")
            return Decision(token.to_json(), AuditEntry(actor, "token-create", str(key), "", {"role": str(token.role)}))

        return (await self._changes.write(key, decide)).revision

    async def rotate(self, name: str, *, actor: str, grace_s: object = None) -> View:
        """A new secret for the same token; the old one ends, or is good for ``grace_s`` more, so that who uses it can
        be told. A grace of nothing also ends what an earlier one left. Raises InvalidInput, NotFound."""
        key, made, left_s = _key(name), list[TokenDocument](), _grace(grace_s)
        secret, sha256 = mint()

        def decide(snapshot: Snapshot) -> Decision:
            made[:] = [_token(snapshot, name).rotated(sha256, self._clock.wall(), grace_s=left_s)]
            detail = {"grace_s": left_s} if left_s else None
            return Decision(made[0].to_json(), AuditEntry(actor, "token-rotate", str(key), "", detail))

        await self._replica.taken((await self._changes.write(key, decide)).revision)
        return {"token": secret, **made[0].view()}

    async def revoke(self, name: str, *, actor: str) -> None:
        """Raises NotFound, or Conflict for the last token that can make others."""
        key = _key(name)

        def decide(snapshot: Snapshot) -> Decision:
            _token(snapshot, name)
            others = [token for token in _tokens(snapshot) if token.name != name]
            if not any(self._may_admin(token) for token in others):
                raise Conflict(f"token {name!r} is the last one of role admin; make another first, or rotate this one")
            return Decision(None, AuditEntry(actor, "token-revoke", str(key)))

        await self._replica.taken((await self._changes.write(key, decide)).revision)

    def _may_admin(self, token: TokenDocument) -> bool:
        alive = token.expires_at is None or token.expires_at > self._clock.wall()
        return token.role is Role.ADMIN and token.routes is None and alive

    async def bootstrap(self, home: Path) -> bool:
        """On the first start of a home: an admin token, durable in its file, then in the store. True if it was made.

        A crash between the two is made good by the next start. A token that was revoked stays
        revoked, whatever the file says.
        """
        if await self._store.history(_key(BOOTSTRAP_NAME), limit=1):
            return False
        secret = await asyncio.to_thread(kept_secret, home, lambda: mint()[0])
        now = self._clock.wall()
        token = TokenDocument(BOOTSTRAP_NAME, digest_of(secret), Role.ADMIN, None, now, now)
        try:
            await self._add(token, "bootstrap")
        except Conflict:  # another gateway was faster: on the same home with the same file, or on another with its own
            found = await self._store.read(_key(BOOTSTRAP_NAME))
            if found is None or found.body is None or TokenDocument.from_json(found.body).sha256 != token.sha256:
                await asyncio.to_thread((home / ADMIN_TOKEN_FILE).unlink, missing_ok=True)
                return False
        return True


def _key(name: str) -> DocumentKey:
    return DocumentKey("token", name)


def _tokens(snapshot: Snapshot) -> list[TokenDocument]:
    rows = sorted((key, row.body) for key, row in snapshot.documents.items() if key.kind == "token")
    return [TokenDocument.from_json(body) for _, body in rows if body is not None]


def _token(snapshot: Snapshot, name: str) -> TokenDocument:
    found = snapshot.documents.get(_key(name))
    if found is None or found.body is None:
        raise NotFound(f"no token {name!r:.80}")
    return TokenDocument.from_json(found.body)


def _grace(seconds: object) -> float:
    if seconds is None:
        return 0.0
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_GRACE_S:
        problem = FieldProblem("grace_s", "seconds from 0 to 30 days", repr(seconds)[:60])
        raise InvalidInput("grace_s: expected seconds from 0 to 30 days", problem)
    return float(seconds)


def _expiry(seconds: object, now: float) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= 10 * 366 * 86400:
        problem = FieldProblem("expires_in_s", "seconds from 1 to ten years, or null", repr(seconds)[:60])
        raise InvalidInput("expires_in_s: expected seconds from 1 to ten years, or null", problem)
    return now + seconds
