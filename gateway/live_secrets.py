"""Secrets as they are now: a file is read again when it has changed, a command run again in its time; no restart.

``value`` never blocks: ``LiveSecrets`` looks for changes in a thread, once a second. A secret that cannot be read again
stays what it was, and ``troubles`` says so: a vault that is away must not take down what works.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.errors import SettingsError
from gateway.secret_reading import Fits, any_secret, secret_of
from gateway.settings_groups import SecretSource

__all__ = ["LiveSecret", "LiveSecrets", "SecretStatistics"]

log = logging.getLogger("turnout.secrets")

LOOK_S = 1.0
"""A look is a ``stat`` of each file. Commands have a pace of their own."""


@dataclass(frozen=True, slots=True)
class SecretStatistics:
    """Never the secret. ``read_at`` and ``changed_at`` in seconds since the epoch; ``rotations`` since the start."""

    place: str
    kind: str
    source: str
    read_at: float
    changed_at: float
    rotations: int
    trouble: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class LiveSecret:
    """One secret. ``stopped``: it is not wanted again. Raises SettingsError when it is not there at first, or does not
    fit; one that does not fit later is as one that cannot be read. ``look`` is one thread's at a time; whoever wants
    the value reads one reference."""

    def __init__(
        self,
        source: SecretSource,
        place: str,
        clock: Clock,
        *,
        fits: Fits = any_secret,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.source = source
        self._fits = fits
        self._stopped = stopped
        self.place = place
        self._clock = clock
        self._mark = self._marked()
        self._value = secret_of(source, place, fits=fits)
        self._read_at = self._changed_at = clock.wall()
        self._tried_s = clock.monotonic()
        self._rotations = 0
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<LiveSecret {self.place} [{self.source} | {self._rotations} rotations]>"

    @property
    def value(self) -> bytes:
        return self._value

    @property
    def text(self) -> str:
        return self._value.decode("utf-8", "replace")

    def statistics(self) -> SecretStatistics:
        return SecretStatistics(
            self.place,
            self.source.kind,
            str(self.source),
            self._read_at,
            self._changed_at,
            self._rotations,
            self._trouble,
        )

    def look(self, *, at_once: bool = False) -> bool:
        """Reads it again if it may have changed; ``at_once``: in any case. True where it is another now. Blocks."""
        mark = self._marked()
        if not (at_once or self._due(mark)):
            return False
        self._tried_s = self._clock.monotonic()
        try:
            value = secret_of(self.source, self.place, fits=self._fits, stopped=self._stopped)
        except SettingsError as error:
            if self._stopped():
                return False
            if str(error) != self._trouble:
                log.warning("a secret stays what it was, since it cannot be read again: %s", error)
            self._trouble = str(error)
            return False
        self._mark, self._trouble, self._read_at = mark, "", self._clock.wall()
        if value == self._value:
            return False
        self._value, self._changed_at = value, self._read_at
        self._rotations += 1
        log.info("%s has been rotated: read again from %s", self.place, self.source)
        return True

    def _due(self, mark: object) -> bool:
        if self.source.command is not None:
            return self._clock.monotonic() - self._tried_s >= self.source.refresh_s
        return mark != self._mark or (self._trouble != "" and self.source.file is not None)

    def _marked(self) -> object:
        """What changes with a file, also with one that a link is turned to (as Kubernetes does)."""
        if self.source.file is None:
            return None
        with suppress(OSError):
            found = Path(self.source.file).stat()
            return found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        return "away"


class _Values(Mapping[str, bytes]):
    """Secrets by name, each as it is when it is asked for."""

    def __init__(self, secrets: Mapping[str, LiveSecret]) -> None:
        self._secrets = secrets

    def __getitem__(self, name: str) -> bytes:
        return self._secrets[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._secrets)

    def __len__(self) -> int:
        return len(self._secrets)

    def __repr__(self) -> str:
        return f"<secrets {sorted(self._secrets)}>"


class LiveSecrets:
    """All that this process goes by. ``start`` watches them until ``close``: files in one task, commands, which may
    take their time, in another."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._secrets: dict[str, LiveSecret] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._told: list[Callable[[], object]] = []
        self._looking = {True: asyncio.Lock(), False: asyncio.Lock()}
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"<LiveSecrets [{len(self._secrets)}]>"

    def secret(self, source: SecretSource, place: str, *, fits: Fits = any_secret) -> LiveSecret:
        """Read now; one for a place. Blocks while a command runs. Raises SettingsError."""
        found = self._secrets.get(place)
        if found is None or found.source != source:
            found = self._secrets[place] = LiveSecret(
                source, place, self._clock, fits=fits, stopped=self._closed.is_set
            )
        return found

    def read(self, source: SecretSource, place: str, *, fits: Fits = any_secret) -> bytes:
        """As it is now: what is there already is not read again. Raises SettingsError."""
        return self.secret(source, place, fits=fits).value

    def on_change(self, told: Callable[[], object]) -> None:
        """On the loop, after each look that found another secret."""
        self._told.append(told)

    def values(self, sources: Mapping[str, SecretSource], place: str) -> Mapping[str, bytes]:
        """By name; what is read there is always the present one. Raises SettingsError."""
        return _Values({name: self.secret(source, f"{place}.{name}") for name, source in sources.items()})

    def statistics(self) -> Sequence[SecretStatistics]:
        return [secret.statistics() for secret in self._secrets.values()]

    def troubles(self) -> Sequence[str]:
        """What cannot be read again, for ``/readyz``: the key, and where it should be."""
        return [
            f"secret {one.place} cannot be read again from {one.source}; the one before is in use"
            for one in self.statistics()
            if one.trouble
        ]

    def start(self) -> None:
        self._watching = [asyncio.ensure_future(self._watch(commands=commands)) for commands in (False, True)]

    async def close(self) -> None:
        """Ends a command that runs, too: the end of this process would wait for the thread that waits for it."""
        self._closed.set()
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        if watching:
            await asyncio.wait(watching)

    async def look(self) -> Sequence[str]:
        """Reads all again, whether it is time or not; the places of those that are others now."""
        files, commands = await asyncio.gather(*(self._look(commands=one, at_once=True) for one in (False, True)))
        return sorted([*files, *commands])

    async def _look(self, *, commands: bool, at_once: bool = False) -> Sequence[str]:
        async with self._looking[commands]:
            asked = [one for one in self._secrets.values() if (one.source.command is not None) is commands]
            if not asked:
                return []
            found = await asyncio.to_thread(lambda: [one.place for one in asked if one.look(at_once=at_once)])
        if found:
            for told in self._told:
                told()
        return found

    async def _watch(self, *, commands: bool) -> None:
        while True:
            await self._clock.sleep(LOOK_S)
            await self._look(commands=commands)
