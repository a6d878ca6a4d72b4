"""Secrets: out of the environment, a file or a command; never shown, and others are in force without a restart."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock, SystemClock
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.redis_store import RedisStore
from gateway.control.rollout_plan import HookSpec
from gateway.control.store_access import open_store
from gateway.control.webhooks import Webhooks
from gateway.errors import IntegrityError, SettingsError
from gateway.live_secrets import LiveSecrets
from gateway.registry.opening import open_blobs
from gateway.registry.sealing.keys import SealingKey
from gateway.registry.sealing.sealed import key_name_of
from gateway.secret_command import printed_by
from gateway.secret_reading import secret_of
from gateway.settings import SecretSource, Settings, StoreSettings, load_settings
from gateway.signatures import sign
from loadtests.redis_server import RedisServer
from tests.control.receiver import receiver
from tests.control.scene import until

PLACE = "webhooks.secrets.ops"


def program(folder: Path, text: str, name: str = "vault") -> Path:
    """A command as an operator has one."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport os, sys, time, subprocess\n{text}\n", encoding="utf-8")
    path.chmod(0o700)
    return path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_a_secret_is_what_a_command_prints_and_arguments_reach_it_as_they_are(tmp_path: Path) -> None:
    """No shell reads them: what would be a second command there is a word."""
    vault = program(tmp_path, "print(repr(sys.argv[1:]), os.environ['HOME'] != '', sys.stdin.read(), sep='|', end='')")
    words = ["read", "-field=a b", "$(touch made); touch made", "*"]
    source = SecretSource(command=(str(vault), *words))
    assert secret_of(source, PLACE).decode() == f"{words!r}|True|"
    assert not list(tmp_path.glob("made"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("print('hunter2'); print('hunter2 refused', file=sys.stderr); sys.exit(7)", "ended with status 7"),
        ("print('hunter2' * 20_000)", "printed more than 65536 bytes"),
        ("print('', end='')", "is empty or not there"),
        ("os.close(1); os.kill(os.getpid(), 9)", "ended with status -9"),
    ],
)
def test_a_command_that_fails_is_named_and_what_it_said_is_not(tmp_path: Path, text: str, says: str) -> None:
    """Neither what it printed nor its arguments: tokens stand in both."""
    source = SecretSource(command=(str(program(tmp_path, text)), "-token=hunter2"))
    with pytest.raises(SettingsError, match=says) as told:
        secret_of(source, PLACE)
    assert f"{PLACE}: the command {tmp_path}/vault" in str(told.value).replace("'", "")
    assert "hunter2" not in f"{told.value} {told.value.__cause__} {source}"


def test_a_command_that_is_not_there_is_said_at_once() -> None:
    """With the place in the settings."""
    with pytest.raises(
        SettingsError, match=r"webhooks\.secrets\.ops: the command '/nowhere/vault' cannot be run: No such"
    ):
        printed_by(["/nowhere/vault"], PLACE, timeout_s=5)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """A grandchild that keeps the pipe open, and one that closed it, too: nothing of it is left."""
    text = "subprocess.Popen(['sleep', '600']); open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    vault, noted = program(tmp_path, text), tmp_path / "pid"
    timeout_s = 1.5
    while not (noted.exists() and noted.read_text()):  # longer where a machine needs more than that to start it
        with pytest.raises(SettingsError, match=rf"did not end within {timeout_s:g} s"):
            printed_by([str(vault), str(noted)], PLACE, timeout_s=timeout_s)
        timeout_s *= 2
    assert not alive(int(noted.read_text()))
    closing = program(tmp_path, "os.write(1, b'hunter2'); os.close(1); time.sleep(600)", "closing")
    with pytest.raises(SettingsError, match="did not end within"):
        printed_by([str(closing)], PLACE, timeout_s=1.0)


@pytest.mark.parametrize("body", [{}, {"env": "A", "file": "b"}, {"command": []}, {"command": "vault read x"}])
def test_a_secret_has_one_place_and_a_command_is_a_list(body: dict[str, Any], tmp_path: Path) -> None:
    """A text would need a shell."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"webhooks: {{secrets: {{ops: {body!r}}}}}", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"gateway\.yaml: webhooks\.secrets\.ops"):
        load_settings(path)


def test_a_secret_that_stands_where_its_place_should_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """The commonest mistake: errors end up in logs."""
    path = tmp_path / "gateway.yaml"
    path.write_text("webhooks: {secrets: {ops: hunter2}}", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"webhooks\.secrets\.ops") as told:
        load_settings(path)
    assert "hunter2" not in str(told.value)


async def test_a_file_that_changes_is_read_again_and_one_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    """Also where a link is turned, as Kubernetes does; trouble is told until it is over."""
    clock = ManualClock()
    secrets = LiveSecrets(clock)
    for name in ("one", "two"):
        (tmp_path / name).write_text(name + "\n", encoding="utf-8")
    link = tmp_path / "secret"
    link.symlink_to("one")
    kept = secrets.secret(SecretSource(file=link), PLACE)
    secrets.start()
    try:
        assert (kept.value, secrets.troubles()) == (b"one", [])
        (tmp_path / "turned").symlink_to("two")
        (tmp_path / "turned").rename(link)
        await moved(clock, lambda: kept.value == b"two")
        link.unlink()
        await moved(clock, secrets.troubles)
        assert kept.value == b"two"
        assert secrets.troubles() == [
            f"secret {PLACE} cannot be read again from {link}; the one before is in use",
        ]
        link.write_text("three", encoding="utf-8")
        await moved(clock, lambda: kept.value == b"three")
        assert not secrets.troubles()
        (shown,) = secrets.statistics()
        assert (shown.rotations, shown.kind, shown.source) == (2, "file", str(link))
        assert "three" not in f"{shown} {kept!r} {secrets!r}"
    finally:
        await secrets.close()


async def moved(clock: ManualClock, condition: Any) -> None:
    """Lets time pass until the look, which is a thread's, has seen it."""
    async with asyncio.timeout(60):
        while not condition():
            clock.advance(1.0)
            await asyncio.sleep(0.01)


async def test_a_command_is_run_again_in_its_time_and_at_once_when_asked(tmp_path: Path) -> None:
    """Not with every look; and one that fails by then leaves what it said before."""
    said, counted = tmp_path / "said", tmp_path / "counted"
    said.write_text("first", encoding="utf-8")
    counted.touch()
    text = f"open({str(counted)!r}, 'a').write('x'); print(open({str(said)!r}).read())"
    clock = ManualClock()
    secrets = LiveSecrets(clock)
    source = SecretSource(command=(str(program(tmp_path, text)),), refresh_s=60.0)
    kept = await asyncio.to_thread(secrets.secret, source, PLACE)
    said.write_text("second", encoding="utf-8")
    assert not kept.look()
    assert counted.read_text() == "x"
    clock.advance(60.0)
    assert await asyncio.to_thread(kept.look)
    assert (kept.value, counted.read_text()) == (b"second", "xx")
    said.unlink()
    assert await secrets.look() == []
    assert kept.value == b"second"
    assert "ended with status 1" in kept.statistics().trouble
    said.write_text("third", encoding="utf-8")
    assert await secrets.look() == [PLACE]
    assert (kept.value, secrets.troubles()) == (b"third", [])


async def test_a_command_that_runs_when_the_gateway_ends_is_ended_and_holds_nothing_up(tmp_path: Path) -> None:
    """A vault that hangs has minutes (``timeout_s``), a gateway that was told to end has not."""
    noted, slow = tmp_path / "pid", tmp_path / "slow"
    text = (
        f"print('first', flush=True)\nif os.path.exists({str(slow)!r}):\n"
        f"    open({str(noted)!r}, 'w').write(str(os.getpid())); os.rename({str(noted)!r}, {str(noted)!r} + '.whole')\n"
        "    time.sleep(600)"
    )
    secrets = LiveSecrets(SystemClock())
    source = SecretSource(command=(str(program(tmp_path, text)),), refresh_s=1.0, timeout_s=120.0)
    await asyncio.to_thread(secrets.secret, source, PLACE)
    slow.touch()
    looking = asyncio.ensure_future(secrets.look())
    running = tmp_path / "pid.whole"
    async with asyncio.timeout(60):
        while not running.exists():  # noqa: ASYNC110 - a process of the test's own tells by a file
            await asyncio.sleep(0.02)
        await secrets.close()
        assert await looking == []
        await asyncio.get_running_loop().shutdown_default_executor()
    assert not alive(int(running.read_text()))
    assert secrets.troubles() == []


async def test_a_secret_that_no_longer_fits_its_use_stays_what_it_was(tmp_path: Path) -> None:
    """As one that cannot be read; those who asked hear of each change, and of no other look."""
    path, heard = tmp_path / "secret", list[bytes]()
    path.write_text("4", encoding="utf-8")
    secrets = LiveSecrets(SystemClock())

    def fits(value: bytes, place: str) -> None:
        if not value.isdigit():
            raise SettingsError(f"{place}: expected digits")

    source = SecretSource(file=path)
    kept = secrets.secret(source, PLACE, fits=fits)
    secrets.on_change(lambda: heard.append(kept.value))
    for said in ("four", "4", "5", "5"):
        path.write_text(said, encoding="utf-8")
        await secrets.look()
        assert bool(secrets.troubles()) is (said == "four")
    assert (heard, secrets.read(source, PLACE)) == ([b"5"], b"5")
    path.write_text("five", encoding="utf-8")
    with pytest.raises(SettingsError, match="ops: expected digits"):
        LiveSecrets(SystemClock()).secret(source, PLACE, fits=fits)


async def test_blobs_are_sealed_with_the_key_of_now_and_read_with_all_that_were(tmp_path: Path) -> None:
    """While a gateway serves: the old key moves to another file after the new one is there; a file that holds no key is
    none; the next process knows what the settings name."""
    key, previous = tmp_path / "key", tmp_path / "previous"
    old, new = ((letter * 32).hex() for letter in (b"o", b"n"))
    key.write_text(old, encoding="utf-8")
    previous.write_text(old, encoding="utf-8")
    encryption = {"key": {"file": str(key)}, "previous": [{"file": str(previous)}]}
    settings = Settings.model_validate({"home": str(tmp_path / "home"), "registry": {"encryption": encryption}})
    secrets = LiveSecrets(SystemClock())
    blobs = open_blobs(settings, secrets)
    before = blobs.put_bytes(b"before").digest
    key.write_text("no key at all", encoding="utf-8")
    await secrets.look()
    assert "registry.encryption.key cannot be read again" in secrets.troubles()[0]
    assert blobs.read(before) == b"before"

    key.write_text(new, encoding="utf-8")
    assert await secrets.look() == ["registry.encryption.key"]
    after = blobs.put_bytes(b"after").digest
    previous.write_text(new, encoding="utf-8")  # a slip: the old one is named nowhere
    await secrets.look()
    assert [blobs.read(digest) for digest in (before, after)] == [b"before", b"after"]
    names = []
    for digest in (before, after):
        with blobs.at_rest(digest) as path:
            names.append(key_name_of(path))
    assert names == [SealingKey(bytes.fromhex(one)).name for one in (old, new)]
    blobs.close()

    again = open_blobs(settings)
    assert again.read(after) == b"after"
    with pytest.raises(IntegrityError, match=r"name that key under registry\.encryption\.previous"):
        again.read(before)
    again.close()


async def test_a_webhook_is_signed_by_the_secret_of_now(tmp_path: Path) -> None:
    """The receiver rotated it, and so did the file: no restart between."""
    path = tmp_path / "secret"
    path.write_text("old", encoding="utf-8")
    secrets = LiveSecrets(SystemClock())
    hooks = Webhooks(secrets.values({"ops": SecretSource(file=path)}, "webhooks.secrets"), clock=SystemClock())
    assert hooks.known == {"ops"}
    async with receiver(204) as there:
        try:
            for name in ("old", "new"):
                path.write_text(name, encoding="utf-8")
                await secrets.look()
                delivery = hooks.send(HookSpec(url=there.url, secret="ops"), "after", name, {})
                await until(lambda delivery=delivery: delivery.state != "pending")
                headers, body = there.got[-1]
                at = int(headers["x-turnout-signature"].partition(",")[0].removeprefix("t="))
                assert headers["x-turnout-signature"] == sign(name.encode(), at, body)
        finally:
            await hooks.close()


async def test_redis_takes_a_rotated_password_from_the_next_connection_on(tmp_path: Path) -> None:
    """Those that there are stay. The store is used all the while."""
    path = tmp_path / "password"
    path.write_text("old\n", encoding="utf-8")
    with RedisServer(tmp_path / "redis", options=("--requirepass", "old")) as server:
        settings = Settings(
            home=tmp_path / "home",
            store=StoreSettings(url=server.url, prefix="test-rotated", secret=SecretSource(file=path)),
        )
        secrets = LiveSecrets(SystemClock())
        store = await open_store(settings, secrets)
        assert isinstance(store, RedisStore)
        other = RedisLine(RedisAddress(port=server.port, password="old"), prefix="test-rotated")
        try:
            await other.command("CONFIG", "SET", "requirepass", "new")
            path.write_text("new\n", encoding="utf-8")
            assert await secrets.look() == ["store.secret"]
            await other.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert (await store.snapshot()).revision == 0
            assert "new" not in repr(store)
        finally:
            await other.close()
            await store.close()
