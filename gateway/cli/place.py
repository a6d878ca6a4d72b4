"""The home's artifact store and the stores that commands name beside it, opened for as long as a command runs."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from gateway.cli.connection import local_home
from gateway.control.local_control import LocalControl, open_control
from gateway.registry.opening import open_place
from gateway.registry.transfer.ends import RemoteEnd
from gateway.settings import Settings, load_settings

__all__ = ["HOME", "actor", "home_settings", "opened_control", "opened_place"]

HOME = "home"


def home_settings(what: str) -> Settings:
    """CommandFailed when a gateway is named, or no home is there."""
    return load_settings(overrides={"home": local_home(what)})


@asynccontextmanager
async def opened_control(settings: Settings) -> AsyncIterator[LocalControl]:
    async with open_control(settings) as control:
        try:
            yield control
        finally:
            control.blobs.close()


@contextmanager
def opened_place(name: str, settings: Settings) -> Iterator[RemoteEnd]:
    """``name``: of ``registry.stores``, a URL or a folder. What is on its way there lies in the home."""
    scratch = settings.home / "transfers"
    remote = open_place(name, settings, scratch)
    try:
        yield RemoteEnd(remote)
    finally:
        remote.objects.close()
        remote.form.close()


@contextmanager
def private_folder(home: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=home, prefix=".transfer-") as folder:
        yield Path(folder)


def actor() -> str:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"local:{name}"
