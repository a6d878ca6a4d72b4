"""W3C Trace Context: the grammar to the letter, the caller's sampling kept, nothing bad passed on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.trace_context import Contexts, TraceContext, child, parse

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_a_traceparent_is_read() -> None:
    """The specification's own example."""
    assert parse(GOOD) == TraceContext(TRACE_ID, SPAN_ID, sampled=True)
    assert parse(f"  {GOOD}\t") == TraceContext(TRACE_ID, SPAN_ID, sampled=True)


@pytest.mark.parametrize(
    ("flags", "sampled", "random"),
    [
        ("00", False, False),
        ("01", True, False),
        ("02", False, True),
        ("03", True, True),
        ("f1", True, False),
        ("fe", False, True),
    ],
)
def test_flags_are_bits_and_unknown_ones_are_ignored(flags: str, sampled: bool, random: bool) -> None:
    """Level 2 knows two of the eight."""
    found = parse(f"00-{TRACE_ID}-{SPAN_ID}-{flags}")
    assert found == TraceContext(TRACE_ID, SPAN_ID, sampled, random=random)
    assert found is not None
    assert found.traceparent.endswith(f"-0{sampled + 2 * random}")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        GOOD.upper(),
        GOOD.replace("-", "_"),
        GOOD + "-extra",
        GOOD + "-",
        GOOD[:-1],
        GOOD + "0",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}g-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID[:-1]}\u0661-{SPAN_ID}-01",
        f"{GOOD},{GOOD}",
        f"{GOOD}\n",
        "01" + GOOD[2:] + "-" + "x" * 1_000,
    ],
)
def test_anything_else_counts_as_absent(header: str | None) -> None:
    """A broken header starts a new trace; it never fails a request."""
    assert parse(header, "vendor=1") is None


def test_a_later_version_is_read_by_what_this_one_knows() -> None:
    """It may be longer, if what follows is set off by a dash; what is written on is version 00."""
    for header in (f"cc-{TRACE_ID}-{SPAN_ID}-01", f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes"):
        found = parse(header)
        assert found is not None
        assert found.traceparent == GOOD
    assert parse(f"cc-{TRACE_ID}-{SPAN_ID}-01.what") is None


@pytest.mark.parametrize(
    ("header", "passed_on"),
    [
        (None, ""),
        ("", ""),
        ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
        ("rojo=00f067aa0ba902b7 ,\tcongo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("a=1,,b=2,", "a=1,b=2"),
        ("tenant@system=1", "tenant@system=1"),
        ("0a/b*c-d_e=v a l", "0a/b*c-d_e=v a l"),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a", ""),
        ("a=", ""),
        ("a=b=c", ""),
        ("a=\u00e9", ""),
        ("a=" + "x" * 257, ""),
        ("a" * 257 + "=1", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
        (",".join(f"k{number}=1" for number in range(32)), ",".join(f"k{number}=1" for number in range(32))),
        ("a=" + "x" * 250 + ",b=" + "x" * 250 + ",c=" + "x" * 50, ""),
    ],
)
def test_a_tracestate_is_passed_on_whole_or_not_at_all(header: str | None, passed_on: str) -> None:
    """A bad one is dropped; the trace itself goes on."""
    found = parse(GOOD, header)
    assert found is not None
    assert found.state == passed_on


def test_a_child_keeps_trace_sampling_and_state_under_an_id_of_its_own() -> None:
    """The caller's span becomes the parent."""
    caller = TraceContext(TRACE_ID, SPAN_ID, sampled=True, state="a=1", random=True)
    ours = child(caller)
    assert (ours.trace_id, ours.sampled, ours.state, ours.parent_span_id, ours.random) == (
        TRACE_ID, True, "a=1", SPAN_ID, True,
    )  # fmt: skip
    assert ours.span_id != SPAN_ID
    assert child(caller).span_id != ours.span_id


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_callers_sampling_wins_over_the_ratio(ratio: float) -> None:
    """Parent-based: a trace is kept whole or not at all."""
    for flag, sampled in (("00", False), ("01", True)):
        ours = Contexts(ratio).accept(f"00-{TRACE_ID}-{SPAN_ID}-{flag}", "a=1")
        assert (ours.trace_id, ours.parent_span_id, ours.sampled, ours.state) == (TRACE_ID, SPAN_ID, sampled, "a=1")


def test_a_new_trace_is_sampled_by_the_ratio() -> None:
    """None at 0, all at 1, and its share between (within five sigma of 4,000 draws)."""
    assert not any(Contexts(0.0).new().sampled for _ in range(100))
    assert all(Contexts(1.0).new().sampled for _ in range(100))
    sampled = sum(Contexts(0.25).new().sampled for _ in range(4_000))
    assert abs(sampled - 1_000) < 5 * (4_000 * 0.25 * 0.75) ** 0.5


@given(st.floats(0, 1))
def test_sampling_compares_the_ids_lower_half_with_the_ratio(ratio: float) -> None:
    """As a number, whatever form they are compared in: services with equal ratios agree."""
    contexts = Contexts(ratio)
    for ours in (contexts.new() for _ in range(20)):
        assert ours.sampled is (int(ours.trace_id[16:], 16) < round(ratio * 2**64))


def test_ids_do_not_repeat_from_one_block_to_the_next() -> None:
    """They are made a hundred at a time."""
    made = [Contexts(0.0), Contexts(0.0)]
    contexts = [contexts.new() for contexts in made for _ in range(1000)]
    assert len({one.trace_id for one in contexts}) == len({one.span_id for one in contexts}) == 2000


def test_a_broken_header_starts_a_new_trace() -> None:
    """With no parent, and ids that are well formed and new each time."""
    contexts = [Contexts(0.0).accept("nonsense", "a=1") for _ in range(100)]
    assert len({context.trace_id for context in contexts}) == 100
    for context in contexts:
        assert (context.parent_span_id, context.state) == (None, "")
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-02", context.traceparent)


@given(st.text(max_size=120), st.text(max_size=600))
def test_no_header_makes_parsing_raise(traceparent: str, tracestate: str) -> None:
    """Whatever bytes a client sends."""
    parse(traceparent, tracestate)
    assert parse(GOOD, tracestate) is not None


@given(st.floats(0, 1))
def test_what_is_written_is_read_back(ratio: float) -> None:
    """Format and parse are inverse."""
    ours = Contexts(ratio).new()
    assert parse(ours.traceparent) == ours
