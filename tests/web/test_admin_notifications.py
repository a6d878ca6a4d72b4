"""The admin calls on who is told: what stands, and a test that takes the way of every event."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.control.alarms import Alarm
from tests.web.test_admin import Admin, admin_plane, problem

ALARM = Alarm("drift/digits/3/world", "drift", "route/digits", True, "it moved", "look at the data", {"effect": 0.3})


@pytest.fixture
async def admin(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with admin_plane(tmp_path) as made:
        yield made


async def test_an_operator_can_send_a_test_and_a_viewer_cannot(admin: Admin) -> None:
    """It is in the audit log, which is what couriers follow."""
    answer: httpx.Response = await admin.call("POST", "/notifications/test", {"reason": "new hook"}, role="operator")
    assert answer.status_code == 202
    [entry] = await admin.stage.audited("notification-test")
    assert (entry.actor, entry.reason) == ("operator", "new hook")
    problem(await admin.call("POST", "/notifications/test", role="viewer"), 403, "forbidden")
    problem(await admin.call("POST", "/notifications/test", {"to": "ops"}, role="operator"), 422, "invalid-input")
    assert (await admin.call("GET", "/notifications", role="viewer")).json() == {"targets": []}


async def test_alarms_that_stand_are_listed_until_they_are_cleared(admin: Admin) -> None:
    """With what to do, and since when."""
    alarms = admin.stage.plane.alarms
    await alarms.write(ALARM)
    [found] = (await admin.call("GET", "/alarms", role="viewer")).json()["alarms"]
    assert (found["name"], found["advice"], found["numbers"]) == (ALARM.name, ALARM.advice, {"effect": 0.3})
    assert found["since"] > 0
    await alarms.write(Alarm(ALARM.name, ALARM.kind, ALARM.subject, raised=False, reason="over"))
    assert (await admin.call("GET", "/alarms", role="viewer")).json() == {"alarms": []}
