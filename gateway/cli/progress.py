"""Between the registry's progress (bytes done, bytes in all) and a bar on the screen."""

from __future__ import annotations

from collections.abc import Callable

from gateway.cli.output import Meter, Steps

__all__ = ["stepwise"]


def stepwise(steps: Steps, label: str) -> Callable[[int, int], None]:
    """A bar that begins when the total is known, and moves by what came since. Work of several parts (fetched, then
    stored) has a bar for each: one begins again where less is done than before."""
    meter: Meter | None = None
    seen = 0

    def progress(done: int, total: int) -> None:
        nonlocal meter, seen
        if meter is None or done < seen:
            meter, seen = steps(label, total), 0
        meter(max(0, done - seen))
        seen = done

    return progress
