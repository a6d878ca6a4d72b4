"""Traffic that really came, out of the gateway's request log or a CSV file with ``time,key,outcome``.

The request log holds no routing keys, so of it each request counts as a user of its own, unless its lines were given
a ``key``. A log is written as requests end and names when they began, so its times go back a little
all the time: requests are put into the order of their times, and the report says how many had to be.

What a caller did wrong, what was refused at the door and what another route answered is left out:
neither is an outcome of a version.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from math import isfinite
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import orjson

from gateway.control.simulation.arrivals import UNKNOWN, Arrivals, Integers
from gateway.errors import FieldProblem, InvalidInput

__all__ = ["Recording", "read_recording"]

OUTCOMES: Mapping[str, tuple[int, int]] = {"ok": (0, 0), "error": (1, 0), "slow": (0, 1)}
"""What a CSV may say of a request, as (failed, slow)."""

_COLUMNS = frozenset({"time", "outcome"})
_FAILED_CODES = frozenset({500, 502, 504})
_MAX_SHOWN = 80
_DEFAULT_SLOW_QUANTILE = 0.99


@dataclass(frozen=True, slots=True)
class Recording:
    """``baseline``: the version whose outcomes count as the known good's; None where the file does not say.
    ``left_out``: requests without an outcome of a version. ``reordered``: lines that were not in order of time."""

    arrivals: Arrivals
    requests: int
    baseline: str | None
    error_rate: float
    slow_rate: float
    left_out: int
    reordered: int
    cut_off: bool


class _Request(NamedTuple):
    time: float
    key: str | None
    version: str | None
    failed: int
    slow: int
    compute_ms: float | None


def read_recording(lines: Iterable[bytes], *, route: str | None = None, slow_ms: float | None = None) -> Recording:
    """Reads a request log (the first line begins with a brace) or CSV. ``route`` picks one out of a log of several;
    answers whose computation took longer than ``slow_ms`` (if not named: than 99 of 100) count as slow.

    Raises InvalidInput, which names the line; a last line that was cut off while being written is left out.
    """
    first, lines = _peeked(lines)
    tally: Counter[str] = Counter()
    logged = first.lstrip().startswith(b"{")
    requests = list(_of_log(lines, route, tally) if logged else _of_csv(lines))
    if not requests:
        skipped = f" ({tally['other']} lines of other events or routes, {tally['left']} without an outcome)"
        wanted = f"one request of route {route!r}" if route else "one request"
        problem = FieldProblem("traffic", f"at least {wanted}", "none")
        raise InvalidInput(f"the traffic holds no request that counts{skipped if tally else ''}", problem)
    return _recording(requests, slow_ms, tally)


def _peeked(lines: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first line that is not blank, and all lines."""
    source = iter(lines)
    blank: list[bytes] = []
    for line in source:
        if line.strip():
            return line, chain(blank, [line], source)
        blank.append(line)
    raise InvalidInput(
        "the traffic is empty; expected a request log (JSON lines) or CSV with the columns time, key and outcome",
        FieldProblem("traffic", "at least one request", "nothing"),
    )


def _of_log(lines: Iterator[bytes], route: str | None, tally: Counter[str]) -> Iterator[_Request]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            body = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if not line.endswith(b"\n") and number > 1:
                tally["cut"] += 1
                return
            raise _refused(number, "a JSON object, as the request log writes them", line, str(error)) from None
        if not isinstance(body, dict):
            raise _refused(number, "a JSON object", line)
        if body.get("event", "request") != "request" or (route is not None and body.get("route") != route):
            tally["other"] += 1
            continue
        request = _logged(body, number)
        if request is None:
            tally["left"] += 1
        else:
            yield request


def _logged(body: Mapping[str, Any], number: int) -> _Request | None:
    """None for a request of which no version's outcome is known."""
    code = body.get("code")
    if not isinstance(code, int) or isinstance(code, bool):
        raise _refused(number, "a whole number under code", code)
    came = _time(body.get("time"), number)
    fell_back = body.get("fallback_from")
    failed = fell_back is not None or code in _FAILED_CODES
    if not failed and code != 200:
        return None
    version = body.get("version") if fell_back is None else fell_back
    compute = body.get("compute_ms")
    if compute is not None and not _is_number(compute):
        raise _refused(number, "a number under compute_ms", compute)
    key = body.get("key")
    named = None if version is None else f"{body.get('model')}/{version}"
    return _Request(came, None if key is None else str(key), named, int(failed), 0, None if failed else compute)


def _of_csv(lines: Iterator[bytes]) -> Iterator[_Request]:
    reader = csv.DictReader(_texts(lines), strict=True)
    missing = sorted(_COLUMNS - set(reader.fieldnames or ()))
    if missing:
        raise _refused(1, f"a heading with the columns time, key and outcome ({', '.join(missing)} missing)", None)
    try:
        for row in reader:
            yield _row(row, reader.line_num)
    except csv.Error as error:
        raise _refused(reader.line_num + 1, "a line of CSV", None, str(error)) from None


def _row(row: Mapping[str, Any], number: int) -> _Request:
    said = row["outcome"]
    if said not in OUTCOMES:
        raise _refused(number, f"an outcome ({', '.join(OUTCOMES)})", said)
    failed, slow = OUTCOMES[said]
    return _Request(_time(row["time"], number), row.get("key") or None, None, failed, slow, None)


def _texts(lines: Iterator[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _refused(number, "text in UTF-8", line, str(error)) from None


def _time(given: object, number: int) -> float:
    """Seconds since the epoch, or since anything: from a number, or a time as RFC 3339 writes it."""
    value = given
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = _instant(str(given))
    if not _is_number(value):
        raise _refused(number, "a time: seconds, or 2026-11-22T03:04:05.678Z", given)
    return float(value)


def _instant(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _refused(number: int, expected: str, got: object, why: str = "") -> InvalidInput:
    shown = got.decode("utf-8", "replace").strip() if isinstance(got, bytes) else got
    text = "nothing" if shown is None else repr(shown)
    text = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
    reason = f" ({why})" if why else ""
    message = f"traffic, line {number}: expected {expected}, got {text}{reason}"
    return InvalidInput(message, FieldProblem(f"line {number}", expected, text))


def _recording(requests: list[_Request], slow_ms: float | None, tally: Counter[str]) -> Recording:
    came = np.array([request.time for request in requests], dtype=np.float64)
    order = np.argsort(came, kind="stable")
    baseline = _most_frequent(requests)
    failed = np.array([_known(r.failed, r, baseline) for r in requests], dtype=np.int64)[order]
    slow = _slow(requests, baseline, slow_ms)[order]
    keys, key_count = _numbered(requests)
    times = came[order]
    return Recording(
        arrivals=Arrivals(times - times[0], keys[order], key_count, failed, slow),
        requests=len(requests),
        baseline=baseline,
        error_rate=_share(failed),
        slow_rate=_share(slow),
        left_out=tally["left"],
        reordered=int(np.count_nonzero(np.diff(came) < 0)),
        cut_off=bool(tally["cut"]),
    )


def _most_frequent(requests: list[_Request]) -> str | None:
    counts = Counter(request.version for request in requests if request.version is not None)
    return counts.most_common(1)[0][0] if counts else None


def _known(outcome: int, request: _Request, baseline: str | None) -> int:
    return outcome if request.version == baseline else UNKNOWN


def _slow(requests: list[_Request], baseline: str | None, slow_ms: float | None) -> Integers:
    computed = [r.compute_ms for r in requests if r.compute_ms is not None and r.version == baseline]
    limit = slow_ms if slow_ms is not None or not computed else float(np.quantile(computed, _DEFAULT_SLOW_QUANTILE))
    over = [r.slow if r.compute_ms is None else int(limit is not None and r.compute_ms > limit) for r in requests]
    return np.array([_known(slow, r, baseline) for slow, r in zip(over, requests, strict=True)], dtype=np.int64)


def _numbered(requests: list[_Request]) -> tuple[Integers, int]:
    """Keys as numbers from 0 on, a fresh one for each request without a key."""
    numbers: dict[str, int] = {}
    found = np.empty(len(requests), dtype=np.int64)
    fresh = 0
    for place, request in enumerate(requests):
        if request.key is None:
            found[place] = -1 - fresh
            fresh += 1
        else:
            found[place] = numbers.setdefault(request.key, len(numbers))
    without = found < 0
    found[without] = len(numbers) - 1 - found[without]
    return found, len(numbers) + fresh


def _share(outcomes: Integers) -> float:
    known = outcomes[outcomes != UNKNOWN]
    return float(known.mean()) if len(known) else 0.0
