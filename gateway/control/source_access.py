"""How the settings reach other systems, for registration and for whoever follows a name there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from gateway.registry.environments import Environments
from gateway.registry.registration import Permissions
from gateway.registry.sources import Resolved, SourceAccess, resolve_source, tell_mlflow
from gateway.settings import Settings

__all__ = ["mlflow_teller", "permissions", "resolving", "source_access", "unrestricted"]

ASKED_AT_ONCE = 4
"""A system that is away keeps who asks until the time-out: in threads of their own, since few are shared by all."""


def source_access(settings: Settings) -> SourceAccess:
    """How the settings reach other systems. What those keep on this machine is read where ``file:`` may read."""
    registry = settings.registry
    addresses = {"tracking_uri": registry.mlflow.tracking_uri, "registry_uri": registry.mlflow.registry_uri}
    interpreters = registry.interpreters.model_dump(exclude_none=True)
    return SourceAccess(
        interpreters=interpreters,
        settings={
            "mlflow": {name: value for name, value in addresses.items() if value is not None},
            "wandb": registry.wandb.model_dump(exclude_none=True),
        },
        directories=registry.source_directories,
        timeout_s=registry.fetch_timeout_s,
        resolve_timeout_s=registry.resolve_timeout_s,
    )


def permissions(settings: Settings, environments: Environments, access: SourceAccess | None = None) -> Permissions:
    """What the settings allow and assume at registration."""
    runtimes = settings.runtimes
    return Permissions(
        allow_pickle=runtimes.allow_pickle,
        allow_inline=runtimes.allow_inline,
        default_device=runtimes.device,
        default_threads=runtimes.threads,
        access=access or source_access(settings),
        environments=environments,
    )


def unrestricted(permissions: Permissions) -> Permissions:
    """For whoever works on a home: what its user can read, the user can register."""
    return replace(permissions, access=replace(permissions.access, directories=None))


def resolving(access: SourceAccess) -> Callable[[str], Awaitable[Resolved]]:
    """What a foreign name points at now, asked for in a process of its own while this loop goes on."""

    threads = ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="turnout-resolve")

    async def resolve(place: str) -> Resolved:
        return await asyncio.get_running_loop().run_in_executor(threads, resolve_source, place, access)

    return resolve


def mlflow_teller(
    settings: Settings, access: SourceAccess
) -> Callable[[Sequence[Mapping[str, Any]]], Awaitable[Sequence[str]]] | None:
    """What writes to MLflow, where the settings want that; None: nothing does."""
    if not settings.registry.mlflow.write_back:
        return None

    threads = ThreadPoolExecutor(1, thread_name_prefix="turnout-mlflow")

    async def tell(writes: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        return await asyncio.get_running_loop().run_in_executor(threads, tell_mlflow, writes, access)

    return tell
