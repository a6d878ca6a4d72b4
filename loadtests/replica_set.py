"""Several real gateways on one real Redis, sharing the bytes of versions; for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from loadtests.cable import Cable
from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.redis_server import RedisServer

__all__ = ["ReplicaSet"]


class ReplicaSet:
    """Use as a context manager. The first replica has the admin token, which all take.

    ``cabled``: each has a ``Cable`` of its own to Redis. ``bytes_apart``: those that do not share versions' bytes.
    ``settings``: further groups, the same for all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 3,
        store: Mapping[str, Any] | None = None,
        cabled: bool = False,
        bytes_apart: Collection[int] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.redis = RedisServer(folder / "redis")
        self.cables = [Cable(self.redis.port) for _ in range(count)] if cabled else []
        self.replicas: list[Replica] = []
        for number in range(count):
            url = self.cables[number].url if cabled else self.redis.url
            shared = folder / "shared" if number not in bytes_apart else folder / f"bytes-{number}"
            own = {
                "store": {"url": url, **(store or {})},
                "registry": {"blobs": str(shared), "source_directories": [str(folder)]},
            }
            self.replicas.append(Replica(folder / f"replica-{number}", settings={**(settings or {}), **own}))
        for replica in self.replicas:
            replica.token_home = self.replicas[0].home
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            ends.enter_context(self.redis)
            for cable in self.cables:
                ends.enter_context(cable)
            first, *others = self.replicas
            ends.enter_context(first)  # alone: it makes the store and the first token
            for replica in others:
                ends.push(replica)
            with ThreadPoolExecutor(len(others) or 1) as pool:
                list(pool.map(Replica.start, others))
            wait_until(lambda: len(self.living()) == len(self.replicas), what="all replicas")
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.resume()
        for cable in self.cables:
            cable.mend()
        self._ends.close()

    def living(self) -> list[dict[str, Any]]:
        """As the first replica sees them."""
        found: list[dict[str, Any]] = self.replicas[0].admin("GET", "/replicas")["replicas"]
        return found

    def revisions(self) -> set[int]:
        """That requests are decided by, asked of each replica itself."""
        return {int(replica.client.get("/readyz").json()["revision"]) for replica in self.replicas}


class Replica(LiveGateway):
    """``token_home``: where the admin token of the set is."""

    token_home: Path | None = None

    @property
    def token(self) -> str:
        return ((self.token_home or self.home) / "admin-token").read_text(encoding="utf-8").strip()
