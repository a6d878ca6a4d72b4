"""Where model code's prints go."""

from __future__ import annotations

import io

from runtimes.output import PrefixedOutput


def test_lines_carry_the_versions_name_once_they_are_whole() -> None:
    """Pieces of a line wait for its end."""
    target = io.StringIO()
    output = PrefixedOutput(target, "digits/3")
    print("hello", end=" ", file=output)
    print("there\nand", file=output)
    assert target.getvalue() == "[digits/3] hello there\n[digits/3] and\n"


def test_a_flood_is_held_back_and_counted() -> None:
    """A model that prints for every row must not fill the disk; what it said first is kept, and no line is endless."""
    target = io.StringIO()
    output = PrefixedOutput(target, "m/1", lines=3, seconds=3600.0)
    print("x" * 100_000, file=output)
    for number in range(1000):
        print(number, file=output)
    lines = target.getvalue().splitlines()
    assert len(lines[0]) < 5000
    assert lines[1:] == ["[m/1] 0", "[m/1] 1"]
