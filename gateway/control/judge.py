"""When a version has failed outright: a pure rule over the evidence of one version on one route.

Four rules, all over outcomes of the version that was *chosen*, before a fallback hid its failure:

- ``hang``: its child did not answer in time while requests waited. A version that has lately
  answered many gets one restart first, since one poison request can look the same.
- ``crash-loop``: its children die, with no good batch between; or again and again all the same.
- ``error-burst``: enough requests failed, and they are a large share.
- ``deadline``: hardly anything is answered before its deadline, though it was given time.

``alike`` compares with the known good in the same seconds: when that breaks the same rule, or fails nearly as often,
then what is wrong is not the version's (a machine that is overloaded, an input that nobody can answer), and going back
would help nobody.

What a caller did wrong never counts: input that does not fit, a full queue, a deadline too short
for anybody, a client that left, the deaths by which one poison request is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from gateway.control.outcomes import Death, Evidence, Interval
from gateway.settings import GuardSettings

__all__ = ["GuardPolicy", "Verdict", "alike", "judge"]


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """``min_requests`` must have failed (or been held up) before anything is done. ``burst_s``: the last moment, in
    which a version that was healthy shows that it no longer is. ``deaths``: with so many of any
    kind in a row a poison request, found by halving, is ruled out. ``patience_s``: a request that the version had for
    less missed a deadline too short for anybody. ``established``: so many good answers buy one restart after a hang.
    ``alike``: the known good fails alike when its share of failures is at least this part of the version's."""

    window_s: float = 5.0
    min_requests: int = 5
    error_share: float = 0.5
    late_share: float = 0.8
    patience_s: float = 0.5
    crashes: int = 3
    crash_window_s: float = 30.0
    burst_s: float = 1.0
    deaths: int = 10
    established: int = 50
    alike: float = 0.8

    @classmethod
    def of(cls, settings: GuardSettings) -> GuardPolicy:
        return cls(
            window_s=settings.window_s,
            min_requests=settings.min_requests,
            error_share=settings.error_share,
            crashes=settings.crashes,
            crash_window_s=settings.crash_window_s,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    rule: str
    reason: str


def judge(evidence: Evidence, policy: GuardPolicy, now: float) -> Verdict | None:
    """The first rule that the evidence breaks; None when there is none, or not enough of it yet."""
    recent = [interval for interval in evidence.intervals if interval.start > now - policy.window_s]
    good, failed, late = (sum(getattr(i, name) for i in recent) for name in ("good", "failed", "late"))
    deaths = [death for death in evidence.deaths if death.at > now - policy.crash_window_s]
    return (
        _hang(deaths, good, policy, now)
        or _crash_loop(deaths, policy)
        or _error_burst(recent, policy, now)
        or _deadline(good, failed, late, policy)
    )


def alike(verdict: Verdict, evidence: Evidence, known_good: Evidence, policy: GuardPolicy, now: float) -> bool:
    """Whether the known good shows the same in the same seconds."""
    other = judge(known_good, policy, now)
    if other is not None and other.rule == verdict.rule:
        return True
    if verdict.rule not in ("error-burst", "deadline"):
        return False
    _, share = _bad(evidence, policy, now)
    bad, share_there = _bad(known_good, policy, now)
    return bad >= policy.min_requests and share_there >= policy.alike * share


def _bad(evidence: Evidence, policy: GuardPolicy, now: float) -> tuple[int, float]:
    """Requests that failed or were late within the window, and their part of all."""
    recent = [interval for interval in evidence.intervals if interval.start > now - policy.window_s]
    bad = sum(interval.failed + interval.late for interval in recent)
    total = bad + sum(interval.good for interval in recent)
    return bad, bad / total if total else 0.0


def _hang(deaths: list[Death], good: int, policy: GuardPolicy, now: float) -> Verdict | None:
    hangs = [death for death in deaths if death.cause == "hang" and not death.isolating]
    hangs = [death for death in hangs if death.at > now - policy.window_s]
    held_up = sum(death.waiting for death in hangs)
    needed = 2 if good >= policy.established else 1
    if held_up < policy.min_requests or len(hangs) < needed or (needed == 2 and not hangs[-1].chained):
        return None
    times = "once" if len(hangs) == 1 else f"{len(hangs)} times"
    return Verdict("hang", f"it hung {times} and held up {held_up} requests")


def _crash_loop(deaths: list[Death], policy: GuardPolicy) -> Verdict | None:
    own = [death for death in deaths if not death.isolating]
    if not any(death.cause != "load" for death in own):
        return None  # it never came up: nothing of it has served, and its route knows
    in_a_row = sum(1 for death in _in_a_row(deaths) if not death.isolating)
    span = f"{policy.crash_window_s:g} s"
    if in_a_row >= policy.crashes:
        return Verdict("crash-loop", f"its process died {in_a_row} times within {span} with no good batch between")
    if len(list(_in_a_row(deaths))) >= policy.deaths:
        return Verdict("crash-loop", f"its process died {policy.deaths} times in a row within {span}")
    if len(own) >= 2 * policy.crashes:
        return Verdict("crash-loop", f"its process died {len(own)} times within {span}")
    return None


def _in_a_row(deaths: list[Death]) -> Iterator[Death]:
    """The last deaths, newest first, between which no batch came back well."""
    newest_first = list(reversed(deaths))
    chained = list(takewhile(lambda death: death.chained, newest_first))
    yield from newest_first[: len(chained) + 1]


def _error_burst(recent: list[Interval], policy: GuardPolicy, now: float) -> Verdict | None:
    """Over the whole window, for versions with few requests; and over the last moment, so that the good answers of
    the seconds before do not hide for long that a version has turned bad: then either twice the failures are
    asked for, or that nothing has gone well lately (at 10 requests a second, of which 5% fail anyway, five
    failures in a row come by chance once in weeks, five of ten within hours)."""
    ends = now - policy.burst_s / 2
    lately_good = any(interval.good for interval in recent if interval.start > ends)
    least_now = 2 * policy.min_requests if lately_good else policy.min_requests
    for span_s, least in ((policy.window_s, policy.min_requests), (policy.burst_s, least_now)):
        within = [interval for interval in recent if interval.start > now - span_s]
        failed = sum(interval.failed for interval in within)
        requests = failed + sum(interval.good + interval.late for interval in within)
        if failed >= least and failed >= policy.error_share * requests:
            return Verdict("error-burst", f"{failed} of {requests} requests failed within {span_s:g} s")
    return None


def _deadline(good: int, failed: int, late: int, policy: GuardPolicy) -> Verdict | None:
    requests = good + failed + late
    if late < policy.min_requests or late + failed < policy.late_share * requests:
        return None
    return Verdict("deadline", f"{late} of {requests} requests missed their deadline within {policy.window_s:g} s")
