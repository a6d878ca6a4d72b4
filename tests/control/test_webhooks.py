"""Webhooks against a real server: signed, sent again, given up, and never in anybody's way."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock, SystemClock
from gateway.control.rollout_plan import HookSpec
from gateway.control.webhooks import Delivery, Webhooks, delivery_id
from gateway.errors import SettingsError
from gateway.live_secrets import LiveSecrets
from gateway.settings import SecretSource
from gateway.signatures import sign
from tests.control.receiver import receiver
from tests.control.scene import until

SECRET = b"not to be told"


@asynccontextmanager
async def webhooks(clock: Any = None) -> AsyncIterator[Webhooks]:
    made = Webhooks({"ops": SECRET}, clock=clock or SystemClock())
    try:
        yield made
    finally:
        await made.close()


async def settled(delivery: Delivery) -> None:
    await until(lambda: delivery.state != "pending")


async def test_what_is_sent_is_signed_with_its_time_and_names_its_delivery() -> None:
    """A receiver can check who sent it, when, and whether it has seen it before."""
    async with receiver(204) as there, webhooks() as hooks:
        delivery = hooks.send(HookSpec(url=there.url, secret="ops"), "after", "d-1", {"route": "digits"})
        await settled(delivery)
        assert (delivery.state, delivery.attempts, delivery.answer) == ("delivered", 1, "204")
        [(headers, body)] = there.got
        assert json.loads(body) == {"event": "after", "delivery": "d-1", "route": "digits"}
        assert headers["x-turnout-delivery"] == "d-1"
        stamp, _, digest = headers["x-turnout-signature"].partition(",v1=")
        signed = stamp.removeprefix("t=").encode() + b"." + body
        assert digest == hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
        assert sign(SECRET, int(stamp.removeprefix("t=")), body) == headers["x-turnout-signature"]


async def test_what_is_not_taken_is_sent_again_under_the_same_name() -> None:
    """Twice 503, then 200: three attempts, one delivery."""
    clock = ManualClock()
    async with receiver(503, 503, 200) as there, webhooks(clock) as hooks:
        delivery = hooks.send(HookSpec(url=there.url), "after", "d-1", {})
        for attempt in (1, 2):
            await until(lambda wanted=attempt: len(there.got) == wanted and delivery.answer == "503")
            await until(lambda: clock.waiting == 1)
            clock.advance(1.0)
        await settled(delivery)
        assert (delivery.state, delivery.attempts) == ("delivered", 3)
        assert {headers["x-turnout-delivery"] for headers, _ in there.got} == {"d-1"}


@pytest.mark.parametrize(("answer", "once"), [(403, False), (500, True), (302, True)])
async def test_a_refusal_is_final(answer: int, once: bool) -> None:
    """A 4xx will be a 4xx again; a question is answered by whatever comes. Nobody is followed elsewhere."""
    async with receiver(answer) as there, webhooks() as hooks:
        delivery = hooks.send(HookSpec(url=there.url), "confirm", "d-1", {}, once=once)
        await settled(delivery)
        assert (delivery.state, delivery.attempts, delivery.answer) == ("failed", 1, str(answer))


async def test_a_receiver_that_is_gone_is_given_up_after_its_time() -> None:
    """Attempts end; what it was stands with the delivery."""
    clock = ManualClock()
    async with receiver(200) as there:
        url = there.url
    async with webhooks(clock) as hooks:
        delivery = hooks.send(HookSpec(url=url), "after", "d-1", {})
        while delivery.state == "pending":
            await until(lambda: clock.waiting or delivery.state != "pending")
            clock.advance(2.0)
        assert delivery.state == "failed"
        assert delivery.attempts > 3
        assert "Connect" in delivery.answer


async def test_a_secret_that_the_settings_lack_sends_nothing_unsigned() -> None:
    """Better not told than told by anybody."""
    async with receiver(200) as there, webhooks() as hooks:
        delivery = hooks.send(HookSpec(url=there.url, secret="gone"), "confirm", "d-1", {}, once=True)
        await settled(delivery)
        assert (delivery.state, there.got) == ("failed", [])
        assert "no secret 'gone'" in delivery.answer


def test_a_delivery_has_the_same_name_for_every_leader() -> None:
    """Made of what it is about."""
    assert delivery_id("digits/4-a", "after", "stepping", 1) == delivery_id("digits/4-a", "after", "stepping", 1)
    assert delivery_id("digits/4-a", "after", "stepping", 1) != delivery_id("digits/4-a", "after", "stepping", 2)


def test_secrets_come_from_variables_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is not there stops the start, by name."""
    (tmp_path / "secret").write_bytes(b"from a file\n")
    monkeypatch.setenv("HOOK_SECRET", "from a variable")
    sources = {"a": SecretSource(file=tmp_path / "secret"), "b": SecretSource(env="HOOK_SECRET")}
    secrets = LiveSecrets(ManualClock())
    assert secrets.values(sources, "webhooks.secrets") == {"a": b"from a file", "b": b"from a variable"}
    for source in (SecretSource(env="HOOK_SECRET_THAT_IS_NOT"), SecretSource(file=tmp_path / "none")):
        with pytest.raises(SettingsError, match=r"webhooks\.secrets\.c"):
            secrets.values({"c": source}, "webhooks.secrets")
