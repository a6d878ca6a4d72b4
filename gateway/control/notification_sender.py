"""Sends one target's notices: formed and signed as its settings say, again and again until taken or given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.control.attempts import Ending, Patience, attempted, delivery_id
from gateway.control.notification_events import Notice
from gateway.control.notification_forms import formed
from gateway.control.outgoing import Outgoing
from gateway.errors import SettingsError
from gateway.live_secrets import LiveSecrets
from gateway.secret_reading import notification_address
from gateway.settings import NotificationSettings, NotificationTarget
from gateway.signatures import HEADER, sign

__all__ = ["LEAST_S", "Sender"]

ATTEMPT_S = 10.0
LONGEST_RETRY_S = 60.0
LEAST_S = 60.0
"""A notice that is old when it is first tried is given this long, or as long as any if that is less."""


class Sender:
    """``trouble`` is what was answered last, empty where it was taken. Raises SettingsError for a secret that is not
    there."""

    def __init__(
        self,
        target: NotificationTarget,
        settings: NotificationSettings,
        clock: Clock,
        secrets: LiveSecrets | None = None,
    ) -> None:
        secrets, place = secrets or LiveSecrets(clock), f"notifications.targets.{target.name}"
        self._kept = None if isinstance(target.url, str) else secrets.secret(target.url, f"{place}.url")
        self._secret = None if target.secret is None else secrets.secret(target.secret, f"{place}.secret")
        self._target = target
        self._settings = settings
        self._clock = clock
        self._outgoing = Outgoing(ATTEMPT_S)
        self._tries: dict[int, tuple[int, str]] = {}
        self.attempts = 0
        self.trouble = ""
        self._address()

    def __repr__(self) -> str:
        return f"<Sender {self._target.name} [{self._target.format} | {self.attempts} attempts]>"

    async def close(self) -> None:
        await self._outgoing.close()

    def delivery(self, notice: Notice) -> str:
        """Its name, the same whoever sends it, and no other record's of any store."""
        return delivery_id(self._target.name, notice.event, notice.digest)

    def _address(self) -> str:
        """As it is now. Raises SettingsError."""
        return notification_address(self._target, None if self._kept is None else self._kept.value)

    def told(self, notice: Notice) -> tuple[int, str]:
        """How often this process has tried it, and what was answered last. It is forgotten."""
        return self._tries.pop(notice.sequence, (0, "no answer"))

    async def send(self, notice: Notice, allowed: Callable[[], Awaitable[None]]) -> Ending:
        """``allowed`` is waited for before each attempt."""
        name, public_url = self.delivery(notice), self._settings.public_url
        kind, content = formed(notice, self._target.format, delivery=name, public_url=public_url)
        headers = {"content-type": kind, "x-turnout-event": notice.event, "x-turnout-delivery": name}

        async def attempt() -> tuple[int, str]:
            await allowed()
            signed = dict(headers)
            if self._secret is not None:
                signed[HEADER] = sign(self._secret.value, int(self._clock.wall()), content)
            try:
                url = self._address()
            except SettingsError as error:  # rotated to what is none; the next attempt looks again
                return 0, str(error)
            return await self._outgoing.post(url, content, signed)

        def said(answer: str) -> None:
            self.attempts += 1
            self._tries[notice.sequence] = (self._tries.get(notice.sequence, (0, ""))[0] + 1, answer)
            self.trouble = answer

        give_up_s = self._settings.give_up_s
        left_s = min(give_up_s, max(LEAST_S, notice.at + give_up_s - self._clock.wall()))
        ending = await attempted(attempt, Patience(left_s, LONGEST_RETRY_S), self._clock, said)
        if ending is Ending.DELIVERED:
            self.trouble = ""
        return ending
