"""How long a thread was ready to run and had no processor, by the kernel's own count: nobody's fault but the machine's.

``/proc/self/task/<thread>/schedstat`` holds nanoseconds on a processor, nanoseconds of waiting for one, and turns. A
sleep, a lock or a read is in neither of the first two. A wait is in it once it is over.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["RunQueue"]


class RunQueue:
    """What one thread of this process, by its native id, has waited in it; 0.0 where the kernel does not count."""

    def __init__(self, thread: int) -> None:
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def waited_s(self) -> float:
        """Since the thread began. May be asked by any thread."""
        if self._file is None:
            return 0.0
        try:
            return int(os.pread(self._file, 96, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):  # the thread has ended, or the kernel counts in another form
            return 0.0

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)
