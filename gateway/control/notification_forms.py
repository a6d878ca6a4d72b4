"""The forms in which a notice is sent: JSON of our own, Slack's blocks, CloudEvents 1.0. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.control.notification_events import Notice

__all__ = ["formed"]

MAX_HEADER, MAX_TEXT, MAX_FIELD, MAX_FIELDS = 150, 3000, 2000, 10
"""Slack's own limits, in characters; a message past one of them is refused whole
(https://api.slack.com/reference/block-kit/blocks)."""

TYPE_PREFIX = "io.turnout."


def formed(notice: Notice, form: str, *, delivery: str, public_url: str | None) -> tuple[str, bytes]:
    """Content type and content. The same notice gives the same bytes, however often it is sent."""
    link = None if public_url is None else public_url + notice.path
    if form == "slack":
        return "application/json", _packed(_slack(notice, link))
    body = _body(notice, delivery, link)
    if form == "cloudevents":
        return "application/cloudevents+json", _packed(_cloud_event(notice, body, delivery, public_url))
    return "application/json", _packed(body)


def _packed(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")


def _body(notice: Notice, delivery: str, link: str | None) -> dict[str, Any]:
    return {
        "event": notice.event,
        "delivery": delivery,
        "sequence": notice.sequence,
        "at": notice.at,
        "subject": notice.subject,
        "route": notice.route,
        "model": notice.model,
        "by": notice.by,
        "title": notice.title,
        "reason": notice.reason,
        "what_to_do": notice.advice,
        "numbers": dict(notice.numbers),
        "link": link,
        "detail": dict(notice.detail),
    }


def _cloud_event(notice: Notice, body: Mapping[str, Any], delivery: str, public_url: str | None) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": delivery,
        "source": public_url or "/turnout",
        "type": f"{TYPE_PREFIX}{notice.event}",
        "subject": notice.subject,
        "time": _when(notice.at),
        "datacontenttype": "application/json",
        "data": dict(body),
    }


def _slack(notice: Notice, link: str | None) -> dict[str, Any]:
    """What, why, figures, what to do, where to look."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(notice.title, MAX_HEADER)}}
    ]
    if notice.reason:
        blocks.append(_section(f"*Why*\n{_escaped(notice.reason)}"))
    fields = [f"*{_escaped(name)}*\n{_escaped(value)}" for name, value in list(notice.numbers.items())[:MAX_FIELDS]]
    if fields:
        blocks.append({"type": "section", "fields": [_marked(one, MAX_FIELD) for one in fields]})
    if notice.advice:
        blocks.append(_section(f"*What to do*\n{_escaped(notice.advice)}"))
    where = f"{notice.event} · {_when(notice.at)} · by {_escaped(notice.by)}"
    where += f" · <{link}|Look>" if link else ""
    blocks.append({"type": "context", "elements": [_marked(where, MAX_FIELD)]})
    text = f"{notice.title}: {notice.reason}" if notice.reason else notice.title
    return {"text": _cut(_escaped(text), MAX_TEXT), "blocks": blocks}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _marked(text, MAX_TEXT)}


def _marked(text: str, limit: int) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": _cut(text, limit)}


def _escaped(text: str) -> str:
    """A reason that an operator wrote must not mention everybody (``<!channel>``), nor pass for a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
