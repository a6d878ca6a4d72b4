"""Commands whose processes end with the one that started them, also when that is killed outright."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["tied"]

_SHELL = """\
exec 3<&0
trap : TERM
(read _ <&3; kill -9 -$$) &
"$@" 3<&- </dev/null &
child=$!
wait $child; wait $child
"""
"""The shell is the first of a process group, and ends with its child; its helper ends them all at the end of the
input. Its own SIGTERM is the child's business, whose end it waits for."""


def tied(command: Sequence[str]) -> list[str]:
    """For ``Popen(…, stdin=PIPE, process_group=0)``: the kernel closes that pipe when its holder dies, whatever of."""
    return ["/bin/sh", "-c", _SHELL, "tied", *command]
