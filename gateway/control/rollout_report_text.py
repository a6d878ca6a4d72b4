"""The report of a rollout as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["report_text"]

Json = Mapping[str, Any]


def report_text(report: Json) -> str:
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Json) -> Iterator[str]:
    yield f"Rollout {report['id']} of {report['model']}/{report['candidate']} on route {report['route']}"
    yield f"Verdict    {report['verdict']}" + (f" ({report['trigger']})" if report.get("trigger") else "")
    yield f"Reason     {report['reason'] or '-'}"
    yield f"Against    {report['model']}/{report['baseline']}, the known good, in the same seconds"
    yield f"Began      {_when(report['started_at'])} by {report['started_by']}"
    yield f"Ended      {_when(report['ended_at'])} by {report['ended_by']}, after {report['seconds']:.1f} s"
    if report.get("requests_harmed") is not None:
        yield f"Harmed     {report['requests_harmed']} units of the candidate met an error"
    yield ""
    yield "Weights over time"
    for mark in report["weights"]:
        yield f"  {_when(mark['at'])}  {mark['percent']:>8g}%  {mark['phase']:<12} by {mark['by']}"
    yield ""
    yield "Evidence"
    streams = (report.get("evidence") or {}).get("streams") or {}
    if not streams:
        yield "  none: it ended before any request could be compared"
    for name, stream in streams.items():
        yield from _stream_lines(name, stream)
    ratio = (report.get("evidence") or {}).get("sample_ratio") or {}
    if ratio:
        sound = f"BROKEN: {ratio.get('reason', '')}" if ratio.get("broken") else "as its weights say"
        yield f"  {'split':<12} {sound}"
    if report["webhooks"]:
        yield ""
        yield "Webhooks"
    for hook in report["webhooks"]:
        answer = f", answered {hook['answer']}" if hook.get("answer") else ""
        yield f"  {hook['event']:<12} {hook['url']}  {hook['state']} after {hook['attempts']} attempts{answer}"


def _stream_lines(name: str, stream: Json) -> Iterator[str]:
    one, other = stream["candidate"], stream["baseline"]
    counts = f"candidate {_counted(one)}"
    counts += f", known good {_counted(other)}" if other["units"] else ""
    yield f"  {name:<12} {stream['verdict']:<10} {counts}"
    if stream.get("difference") is not None:
        interval = f"{stream['difference']:+.4f}"
        if stream.get("low") is not None and stream.get("high") is not None:
            interval += _interval(float(stream["low"]), float(stream["high"]))
        yield f"  {'':<12} {'':<10} difference {interval}"
    harm = f"{stream['log_harm']:.2f} (verdict at {stream['harm_threshold']:.2f})"
    health = f"{stream['log_health']:.2f} (at {stream['health_threshold']:.2f})"
    yield f"  {'':<12} {'':<10} log e-value of harm {harm}, of health {health}"


def _counted(arm: Json) -> str:
    mean = arm.get("mean")
    return f"{arm['bad']} of {arm['units']}" if mean is None else f"{mean:.4g} in the mean of {arm['units']}"


def _interval(low: float, high: float) -> str:
    """The bounds hold at every look at once; where they have crossed, no one rate fits what was seen."""
    bounds = f"{low:+.4f} to {high:+.4f}"
    return f", interval {bounds}" if low <= high else ", no interval: the rate changed on the way"


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
