"""What a notice says, and the forms that it is sent in: fit for those who read them, whatever an operator wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.control.alarms import CLEARED, RAISED, Alarm
from gateway.control.audit import GENESIS, seal
from gateway.control.notification_events import Notice, notice_of, wanted
from gateway.control.notification_forms import MAX_FIELD, MAX_FIELDS, MAX_HEADER, MAX_TEXT, formed
from gateway.control.notification_place import Ledger, Place
from gateway.control.store import AuditEntry, AuditRecord
from gateway.settings import NotificationTarget
from gateway.settings_notifications import EVENTS, NotificationSettings

STREAM = {
    "verdict": "harmful",
    "candidate": {"units": 40, "bad": 12},
    "baseline": {"units": 800, "bad": 8},
    "difference": 0.29,
    "low": 0.1,
    "high": 0.5,
}


def record_of(entry: AuditEntry, *, before: Any = None, after: Any = None) -> AuditRecord:
    return seal(sequence=7, at=1_700_000_000.0, revision=7, entry=entry, before=before, after=after, previous=GENESIS)


def rollback(**detail: Any) -> Notice:
    entry = AuditEntry(
        "guard", "rollback", "route/digits", "5 of 5 failed", {"to": 3, "trigger": "guard:burst"} | detail
    )
    found = notice_of(record_of(entry, after={"route/digits": {"spec": {"model": "digits"}}}))
    assert found is not None
    return found


def report(**changes: Any) -> dict[str, Any]:
    body = {"route": "digits", "model": "digits", "id": "4-ab", "candidate": 4, "baseline": 3, "verdict": "promoted"}
    body |= {"reason": "proved", "seconds": 61.2, "requests_harmed": 1, "evidence": {"streams": {"error": STREAM}}}
    return body | changes


def test_a_rollback_says_where_to_why_by_which_figures_and_what_to_do() -> None:
    """In words that name versions as everybody writes them."""
    found = rollback(quarantined=[4], evidence={"streams": {"error": STREAM}})
    assert found.title == "Route digits went back to digits/3"
    assert found.numbers["Error"] == "harmful: 12 of 40, known good 8 of 800; difference +0.2900 (+0.1000 to +0.5000)"
    assert (found.route, found.model, found.numbers["In quarantine"]) == ("digits", "digits", "4")
    assert "turnout lift digits VERSION" in found.advice


@pytest.mark.parametrize(
    ("verdict", "words"), [("promoted", "was promoted"), ("rolled-back", "was rolled back"), ("aborted", "was aborted")]
)
def test_the_end_of_a_rollout_says_its_verdict_once(verdict: str, words: str) -> None:
    """The report that is written again when its webhooks are done is no other event; nor is one that is removed."""
    entry, key = AuditEntry("rollout", "rollout-report", "report/digits/4-ab"), "report/digits/4-ab"
    found = notice_of(record_of(entry, before={key: None}, after={key: report(verdict=verdict)}))
    assert found is not None
    assert (found.event, found.title) == ("rollout-end", f"digits/4 {words} on route digits")
    assert (found.numbers["Took"], found.numbers["Against"]) == ("61 s", "digits/3")
    assert found.path == "/admin/routes/digits/rollouts/4-ab"
    assert notice_of(record_of(entry, before={key: report()}, after={key: report()})) is None
    assert notice_of(record_of(entry, before={key: report()}, after={key: None})) is None


def test_a_route_that_is_deleted_in_its_rollout_ends_that() -> None:
    """Its report is in the record that deletes it."""
    entry = AuditEntry("olga", "route-delete", "route/digits")
    after = {"route/digits": None, "report/digits/4-ab": report(verdict="aborted")}
    found = notice_of(record_of(entry, after=after))
    assert found is not None
    assert found.event == "rollout-end"


@pytest.mark.parametrize("kind", ["drift", "data-pipeline", "decision-log"])
def test_an_alarm_is_told_when_it_is_raised_and_when_it_is_over(kind: str) -> None:
    """With what to do, for as long as there is something to do."""
    alarm = Alarm(
        "drift/digits/3/x", kind, "route/digits", True, "it moved", "look at the data", {"effect": 0.30000001}
    )
    raised, over = (
        notice_of(record_of(AuditEntry("drift", action, alarm.subject, alarm.reason, alarm.to_json())))
        for action in (RAISED, CLEARED)
    )
    assert raised is not None
    assert over is not None
    assert (raised.event, over.event) == (kind, f"{kind}-cleared")
    assert {raised.event, over.event} <= set(EVENTS)
    assert (raised.advice, over.advice) == ("look at the data", "Nothing: it is over")
    assert (raised.numbers, raised.route) == ({"effect": "0.3"}, "digits")


@pytest.mark.parametrize("blame", ["world", "routing", "model"])
def test_drift_is_told_of_by_who_is_to_blame(blame: str) -> None:
    """Four different alarms, each with words of its own."""
    alarm = Alarm("drift/digits/3/x", "drift", "route/digits", True, "it moved", "look", {"blame": blame})
    found = notice_of(record_of(AuditEntry("drift", RAISED, alarm.subject, alarm.reason, alarm.to_json())))
    assert found is not None
    words = {"world": "what comes in has changed", "routing": "different inputs", "model": "answers otherwise"}
    assert words[blame] in found.title


def test_an_alarm_about_a_version_of_several_routes_is_told_to_the_targets_of_each() -> None:
    """Raised and over; not to those of a route that it does not concern."""
    alarm = Alarm("drift/m/3/world", "drift", "route/digits", True, "it moved", "look", {"also_on": "iris, wine"})
    for action in (RAISED, CLEARED):
        found = notice_of(record_of(AuditEntry("drift", action, alarm.subject, alarm.reason, alarm.to_json())))
        assert found is not None
        told = {
            name: wanted(found, NotificationTarget(name="a", url="http://host", routes=(name,)))
            for name in ("digits", "iris", "wine", "beer")
        }
        assert told == {"digits": True, "iris": True, "wine": True, "beer": False}


def test_what_is_no_event_is_no_notice() -> None:
    """Weights, tokens, aliases, and that a notification was given up."""
    for action in ("weights", "token-create", "alias", "notification-given-up", "rollout-start"):
        assert notice_of(record_of(AuditEntry("olga", action, "route/digits"))) is None


def test_slack_gets_blocks_within_its_limits_that_mention_nobody() -> None:
    """An operator's reason is text: no mention of everybody, no link of his, and never too long to be taken."""
    evil = "<!channel> <https://evil.example|click> & " + "x" * 10_000
    many = {"streams": {f"stream{number}": STREAM for number in range(30)}}
    found = rollback(quarantined=[4], evidence=many)
    long = Notice(**{name: getattr(found, name) for name in Notice.__slots__} | {"reason": evil, "title": "t" * 500})
    kind, content = formed(long, "slack", delivery="d", public_url="https://turnout.example")
    message = json.loads(content)
    assert kind == "application/json"
    assert "<!channel>" not in content.decode()
    assert "&lt;!channel&gt; &lt;https://evil.example|click&gt; &amp;" in content.decode()
    header, why, figures, advice, where = message["blocks"]
    assert len(header["text"]["text"]) == MAX_HEADER
    assert len(why["text"]["text"]) == MAX_TEXT
    assert len(figures["fields"]) == MAX_FIELDS
    assert all(len(field["text"]) <= MAX_FIELD for field in figures["fields"])
    assert advice["text"]["text"].startswith("*What to do*")
    assert "<https://turnout.example/admin/routes/digits|Look>" in where["elements"][0]["text"]
    assert len(message["text"]) <= MAX_TEXT


def test_cloud_events_have_what_the_specification_requires() -> None:
    """Structured mode: context and data in one JSON object."""
    kind, content = formed(rollback(), "cloudevents", delivery="d-1", public_url=None)
    event = json.loads(content)
    assert kind == "application/cloudevents+json"
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "subject", "time")} == {
        "specversion": "1.0",
        "id": "d-1",
        "source": "/turnout",
        "type": "io.turnout.rollback",
        "subject": "route/digits",
        "time": "2023-11-14T22:13:20.000Z",
    }
    assert event["data"]["reason"] == "5 of 5 failed"


def test_a_target_without_wishes_wants_everything() -> None:
    """And one that names routes is not told of others'."""
    everything = NotificationTarget(name="a", url="http://host")
    other = NotificationTarget(name="b", url="http://host", routes=("iris",))
    assert wanted(rollback(), everything)
    assert not wanted(rollback(), other)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"url": "ftp://host"}, "no address of HTTP"),
        ({"url": "https://user:word@host/"}, "holds a password"),
        ({"url": "https://host", "events": ["roll-back"]}, "rollback"),
        ({"url": {"file": "a", "env": "B"}}, "name one of the three"),
        ({"url": "https://host", "name": "a b"}, "name"),
    ],
)
def test_a_target_that_cannot_be_told_is_refused(target: dict[str, Any], why: str) -> None:
    """At the start, with what was expected."""
    with pytest.raises(ValueError, match=why):
        NotificationSettings.model_validate({"targets": [{"name": "ops", **target}]})
    with pytest.raises(ValueError, match="two targets are named 'ops'"):
        NotificationSettings.model_validate({"targets": [{"name": "ops", "url": "https://host"}] * 2})


def test_a_place_moves_to_before_the_first_that_is_owed_and_knows_what_is_settled_beyond() -> None:
    """It is packed and read, and of two places the union is taken."""
    ledger = Ledger.at(Place())
    for sequence in range(1, 6):
        notice = rollback() if sequence in (2, 4) else None
        ledger.passed(sequence, f"digest {sequence - 1}", f"digest {sequence}", notice)
    assert ledger.moved() == Place(1, "digest 1")
    ledger.settle(4)
    assert ledger.moved() == Place(1, "digest 1", frozenset({4}))
    again = Ledger.at(Place.parse(ledger.place.packed()) or Place())
    assert again.passed(4, "digest 3", "digest 4", rollback()) is None
    ledger.settle(2)
    assert ledger.moved() == Place(5, "digest 5")
    ahead = Place(3, "digest 3", frozenset({5}))
    assert Place(1, "digest 1", frozenset({2, 4})).united(ahead) == Place(3, "digest 3", frozenset({4, 5}))
    assert [Place.parse(bad) for bad in (None, b"", b"[]", b'{"cursor": "x"}', b"\xff")] == [None] * 5
