"""What of the audit log people are told of: each record that is an event becomes a notice in words. Pure.

A notice is made of its record alone, so it says the same whoever sends it, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.control.alarms import CLEARED, RAISED
from gateway.control.rollout_report import REPORT
from gateway.control.store import AuditRecord
from gateway.settings import NotificationTarget

__all__ = ["TEST", "Notice", "notice_of", "wanted"]

TEST = "notification-test"
"""The action of an operator who wants to see whether people can be told."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notice:
    """``event`` is one of ``settings_notifications.EVENTS``; ``digest`` its audit record's, which no other record of
    any store has. ``route`` and ``model`` where it is about one; ``others``: routes that it concerns as well.
    ``numbers``: figures under their names for people. ``path``: where the admin plane has more. ``detail``: all that
    the record says of it, for machines."""

    event: str
    sequence: int
    digest: str
    at: float
    subject: str
    title: str
    reason: str
    advice: str
    route: str | None = None
    model: str | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    by: str = ""
    detail: Json = field(default_factory=dict)
    others: tuple[str, ...] = ()


def notice_of(record: AuditRecord) -> Notice | None:
    """None: nothing that anybody is told of."""
    report = _new_report(record)
    if report is not None:
        return _rollout_end(record, report)
    made = _MAKERS.get(record.entry.action)
    return None if made is None else made(record)


def wanted(notice: Notice, target: NotificationTarget) -> bool:
    """Whether the target is to be told. One that names routes is told of models that those serve by their own alarms
    alone: what is about no route goes to everybody who wants the event."""
    if notice.event == "test":
        return True
    if target.events and notice.event not in target.events:
        return False
    if not target.routes or notice.route is None:
        return True
    return not {notice.route, *notice.others}.isdisjoint(target.routes)


def _new_report(record: AuditRecord) -> Json | None:
    """The report of a rollout that this record wrote first: it may be written again when its webhooks are done."""
    before = record.before or {}
    for name, body in (record.after or {}).items():
        if name.startswith(f"{REPORT}/") and body is not None and before.get(name) is None:
            return dict(body)
    return None


def _rollback(record: AuditRecord) -> Notice:
    detail, route = record.entry.detail or {}, _route(record)
    model = _model(record)
    target, trigger = _version(model, detail.get("to")), str(detail.get("trigger", "operator"))
    held = ", ".join(map(str, detail.get("quarantined", ())))
    numbers = {"Answers now": target, "In quarantine": held or "nothing new", "Trigger": trigger}
    return _notice(
        record,
        "rollback",
        title=f"Route {route} went back to {target}",
        reason=record.entry.reason or "no reason was given",
        advice=_after_rollback(trigger, route, held),
        numbers=numbers | _stream_numbers(detail.get("evidence")),
        path=f"/admin/routes/{route}",
    )


def _after_rollback(trigger: str, route: str | None, held: str) -> str:
    if trigger == "operator":
        return f"Nothing, if it was meant. To end a quarantine ({held or 'none is new'}): turnout lift {route} VERSION"
    return (
        f"Traffic is safe. Find out why {held or 'it'} failed (turnout audit; the version's own log), and register a "
        f"mended version; only if the cause was elsewhere, lift the quarantine: turnout lift {route} VERSION"
    )


def _impossible(record: AuditRecord) -> Notice:
    route = _route(record)
    return _notice(
        record,
        "rollback-impossible",
        title=f"Route {route} fails, and there is nowhere to go back to",
        reason=record.entry.reason,
        advice=f"Act now: send the traffic to a version that works (turnout weights {route} VERSION=100)",
        numbers={"Rule": str((record.entry.detail or {}).get("rule", "-"))},
        path=f"/admin/routes/{route}",
    )


def _lift(record: AuditRecord) -> Notice:
    route, model = _route(record), _model(record)
    version = _version(model, (record.entry.detail or {}).get("version"))
    return _notice(
        record,
        "lift",
        title=f"{version} is out of quarantine on route {route}",
        reason=record.entry.reason or f"{record.entry.actor} lifted it",
        advice="Nothing: it gets traffic again only when weights, or a rule that names it, say so",
        path=f"/admin/routes/{route}",
    )


_FOLLOWED: Mapping[str, tuple[str, str, str]] = {
    "follow-offered": (
        "follow-offer",
        "{version} is there to be rolled out on route {route}",
        "Roll it out, if it is meant: turnout rollout {route} {number}",
    ),
    "follow-refused": (
        "follow-trouble",
        "What route {route} follows points at a version that is refused",
        "Mend what it says and have it tried again: turnout follow {route} --again. Traffic is not touched",
    ),
    "follow-unreachable": (
        "follow-trouble",
        "What route {route} follows cannot be asked",
        "Nothing changes until it answers again; see whether the other system is up",
    ),
}
"""By action of the audit log: event, title, advice."""


def _followed(record: AuditRecord) -> Notice:
    route, state = _route(record), dict((record.entry.detail or {}).get("follow") or {})
    event, title, advice = _FOLLOWED[record.entry.action]
    number, identity = state.get("version"), dict(state.get("identity") or {})
    words = {"route": route, "number": number, "version": _version(_model(record), number)}
    numbers = {"Follows": str(state.get("source", "-"))}
    if identity:
        numbers["Points at"] = f"{identity.get('name')} version {identity.get('version')}"
    return _notice(
        record,
        event,
        title=title.format(**words),
        reason=record.entry.reason or "it passed its gates",
        advice=advice.format(**words),
        numbers=numbers,
        path=f"/admin/routes/{route}/follow",
    )


def _test(record: AuditRecord) -> Notice:
    return _notice(
        record,
        "test",
        title="A test of Turnout's notifications",
        reason=record.entry.reason or f"{record.entry.actor} asked for it",
        advice="Nothing: it shows that this target can be told",
    )


_VERDICTS: Mapping[str, tuple[str, str]] = {
    "promoted": ("was promoted", "Nothing: it answers, and is the known good where it has baked"),
    "rolled-back": ("was rolled back", "Read the report before the next candidate: turnout rollout {route} --report"),
    "aborted": ("was aborted", "Nothing: the weights before it are in force again"),
}


def _rollout_end(record: AuditRecord, report: Json) -> Notice:
    route, model = str(report["route"]), str(report["model"])
    what, advice = _VERDICTS.get(str(report["verdict"]), (str(report["verdict"]), ""))
    numbers = {
        "Verdict": str(report["verdict"]),
        "Against": _version(model, report["baseline"]),
        "Took": f"{float(report['seconds']):.0f} s",
        "Requests harmed": str(report.get("requests_harmed") if report.get("requests_harmed") is not None else "-"),
    }
    return _notice(
        record,
        "rollout-end",
        title=f"{_version(model, report['candidate'])} {what} on route {route}",
        reason=str(report.get("reason") or "") or f"ended by {report.get('ended_by') or record.entry.actor}",
        advice=advice.format(route=route),
        route=route,
        model=model,
        numbers=numbers | _stream_numbers(report.get("evidence")),
        path=f"/admin/routes/{route}/rollouts/{report['id']}",
        detail={name: report.get(name) for name in _REPORTED},
    )


_REPORTED = ("id", "candidate", "baseline", "verdict", "trigger", "started_at", "ended_at", "weights", "evidence")


def _stream_numbers(evidence: object) -> dict[str, str]:
    """Each stream of evidence on a line: what was counted, and the difference with its interval."""
    streams = evidence.get("streams") if isinstance(evidence, Mapping) else None
    found = {}
    for name, stream in streams.items() if isinstance(streams, Mapping) else ():
        one, other = stream.get("candidate") or {}, stream.get("baseline") or {}
        text = f"{stream.get('verdict', '')}: {_counted(one)}"
        text += f", known good {_counted(other)}" if other.get("units") else ""
        low, high = stream.get("low"), stream.get("high")
        if stream.get("difference") is not None:
            text += f"; difference {stream['difference']:+.4f}"
            text += f" ({low:+.4f} to {high:+.4f})" if low is not None and high is not None and low <= high else ""
        found[str(name).capitalize()] = text
    return found


def _counted(arm: Mapping[str, Any]) -> str:
    mean, units = arm.get("mean"), arm.get("units", 0)
    return f"{arm.get('bad', 0)} of {units}" if mean is None else f"{mean:.4g} in the mean of {units}"


def _alarm(record: AuditRecord) -> Notice:
    detail, cleared = record.entry.detail or {}, record.entry.action == CLEARED
    kind, subject = str(detail.get("kind", "drift")), record.entry.subject
    numbers = dict(detail.get("numbers") or {})
    unknown = f"{kind}: alarm for {{subject}}", f"{kind}: the alarm for {{subject}} is over"
    title, over = _ALARMS.get((kind, str(numbers.get("blame", ""))), _ALARMS.get((kind, ""), unknown))
    of_route = subject.startswith("route/")
    path = f"/admin/drift/{subject.removeprefix('route/')}" if of_route and kind != "decision-log" else ""
    return _notice(
        record,
        f"{kind}-cleared" if cleared else kind,
        title=(over if cleared else title).format(subject=subject.replace("/", " ", 1)),
        reason=record.entry.reason,
        advice="Nothing: it is over" if cleared else str(detail.get("advice") or ""),
        numbers={str(name): _figure(value) for name, value in numbers.items()},
        path=path,
        others=tuple(filter(None, str(numbers.get("also_on", "")).split(", "))),
    )


_DRIFT_OVER = "Drift on {subject} is over"
_ALARMS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("drift", ""): ("Drift on {subject}: it does not see what it was made for", _DRIFT_OVER),
    ("drift", "world"): ("Drift on {subject}: what comes in has changed, for every version", _DRIFT_OVER),
    ("drift", "routing"): ("Drift on {subject}: its versions get different inputs", _DRIFT_OVER),
    ("drift", "model"): ("Drift on {subject}: a version answers otherwise than it did on such inputs", _DRIFT_OVER),
    ("data-pipeline", ""): ("The data that {subject} gets are broken", "The data that {subject} gets are sound again"),
    ("gates", ""): ("In service, and not through its gates: {subject}", "Through its gates again: {subject}"),
    ("decision-log", ""): ("Decisions are not all recorded: {subject}", "Decisions are all recorded again: {subject}"),
}
"""By kind and, of drift, by who is to blame."""
_MAKERS: Mapping[str, Callable[[AuditRecord], Notice]] = {
    "rollback": _rollback,
    "guard-no-target": _impossible,
    "lift": _lift,
    **dict.fromkeys(_FOLLOWED, _followed),
    RAISED: _alarm,
    CLEARED: _alarm,
    TEST: _test,
}


def _notice(record: AuditRecord, event: str, **given: Any) -> Notice:
    entry = record.entry
    about = {"route": _route(record), "model": _model(record), "detail": dict(entry.detail or {})} | given
    about.setdefault("path", "")
    if not about["path"]:
        about["path"] = f"/admin/audit?after={record.sequence - 1}&limit=1"
    return Notice(
        event=event,
        sequence=record.sequence,
        digest=record.digest,
        at=record.at,
        subject=entry.subject,
        by=str(entry.actor),
        **about,
    )


def _route(record: AuditRecord) -> str | None:
    kind, _, name = record.entry.subject.partition("/")
    if kind == "route":
        return name
    found = (record.entry.detail or {}).get("numbers")
    route = found.get("route") if isinstance(found, Mapping) else None
    return None if route is None else str(route)


def _model(record: AuditRecord) -> str | None:
    kind, _, name = record.entry.subject.partition("/")
    if kind == "model":
        return name.partition("/")[0]
    document = (record.after or {}).get(record.entry.subject) or (record.before or {}).get(record.entry.subject)
    spec = document.get("spec") if isinstance(document, Mapping) else None
    return str(spec["model"]) if isinstance(spec, Mapping) and "model" in spec else None


def _version(model: str | None, number: object) -> str:
    return f"version {number}" if model is None else f"{model}/{number}"


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
