"""Sampled stacks become a table of functions, scaled by what each thread really spent."""

from __future__ import annotations

import pytest

from loadtests.stacks import Function, Stack, by_function, by_part, by_thread, parse, part_of, weigh

LINES = [
    "thread (10): MainThread;main (app.py:1);handle (gateway/web/predict.py:20);loads (json/__init__.py:3) 3",
    "thread (10): MainThread;main (app.py:1);handle (gateway/web/predict.py:25) 1",
    "thread (11): pool-0_0;Thread.run (threading.py:9);_worker (concurrent/futures/thread.py:8) 400",
    "",
]


def test_lines_of_one_function_are_added_up() -> None:
    """Where in a function a sample fell does not matter; callees count for their callers."""
    stacks = [stack for stack in parse(LINES) if stack.thread == 10]
    assert by_function(stacks) == [
        Function("loads (json/__init__.py)", 0.75, 0.75),
        Function("handle (gateway/web/predict.py)", 0.25, 1.0),
        Function("main (app.py)", 0.0, 1.0),
    ]


def test_an_idle_thread_weighs_what_it_spent_and_not_how_often_it_was_seen() -> None:
    """py-spy sees an idle pool's thread in every sample; its processor time is next to nothing."""
    stacks = weigh(parse(LINES), {10: 0.75, 11: 0.25})
    assert by_thread(stacks) == [("MainThread", 0.75), ("pool-0_0", 0.25)]
    loads = next(row for row in by_function(stacks) if row.name.startswith("loads"))
    assert loads.own == pytest.approx(0.75 * 0.75)


def test_a_thread_that_spent_nothing_is_left_out() -> None:
    """Also one that no reading knows, because it came later."""
    assert {stack.thread for stack in weigh(parse(LINES), {10: 1.0, 11: 0.0})} == {10}
    assert {stack.thread for stack in weigh(parse(LINES), {10: 1.0})} == {10}


def test_a_function_that_calls_itself_counts_once_for_each_sample() -> None:
    """Otherwise recursion would take more than all the time there is."""
    (walk,) = by_function([Stack(1, "main", ("walk (a.py)", "walk (a.py)", "walk (a.py)"), 2)])
    assert walk == Function("walk (a.py)", 1.0, 1.0)


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("decide (gateway/routing/decide.py)", "gateway/routing"),
        ("Dataplane.ask (gateway/dataplane.py)", "gateway"),
        ("receive (runtimes/packets.py)", "runtimes"),
        ("_amax (numpy/_core/_methods.py)", "numpy"),
        ("Runner.run (asyncio/runners.py)", "event loop, in C"),
        ("Condition.wait (threading.py)", "standard library"),
        ("__create_fn__.<locals>.__init__ (<string>)", "records being made (dataclasses, tuples)"),
        ("write (libc.so.6)", "C, named by --native"),
        ("Py_DECREF (object.h)", "C, named by --native"),
    ],
)
def test_a_function_belongs_to_a_part(function: str, part: str) -> None:
    """What a table of parts adds up."""
    assert part_of(function) == part
    assert by_part([Stack(1, "main", (function,), 1)]) == [(part, 1.0)]


@pytest.mark.parametrize("line", ["nonsense", "a;b 3", "thread (1): x;a many", "thread (1): x 3"])
def test_what_is_no_stack_is_said(line: str) -> None:
    """Another version of py-spy may write otherwise; a wrong table would be worse than none."""
    with pytest.raises(ValueError, match="not a folded stack"):
        list(parse([line]))
