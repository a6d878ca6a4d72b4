"""The shared memory between gateway and child: memfds, passed over the channel's socket.

The gateway makes every memory and seals it, so that no child can pull it from under the gateway's
feet (a truncated mapping is a SIGBUS): inputs cannot be written by the child, outputs cannot change size.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os

import numpy as np

from runtimes.base import Array
from runtimes.signature import DATATYPES

__all__ = ["MAX_BYTES", "Memory"]

MAX_BYTES = 4 << 30
_F_SEAL_FUTURE_WRITE = 0x10  # fcntl has no name for it yet


class Memory:
    """One memfd and its mapping. ``close`` is idempotent; the gateway makes, the child attaches."""

    def __init__(self, fd: int | None, mapping: mmap.mmap) -> None:
        self._fd = fd
        self._mapping = mapping
        self.size_bytes = len(mapping)

    def __repr__(self) -> str:
        return f"<Memory [{self.size_bytes} bytes]>"

    @classmethod
    def create(cls, name: str, needed_bytes: int, *, writable_by_child: bool) -> Memory:
        """A sealed memory of the next power of two. ``OSError`` when the system refuses."""
        size = max(mmap.PAGESIZE, 1 << max(0, needed_bytes - 1).bit_length())
        if size > MAX_BYTES:
            raise ValueError(f"a batch of {needed_bytes} bytes is larger than the {MAX_BYTES} a slot can hold")
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            mapping = mmap.mmap(fd, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            # Mapped before it is sealed: our own mapping stays writable, and no later one can be.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals if writable_by_child else seals | _F_SEAL_FUTURE_WRITE)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, mapping)

    @classmethod
    def attach(cls, fd: int, *, writable: bool) -> Memory:
        """Maps what came over the socket, and closes the descriptor.

        ``ValueError`` for what is no memory, or could be made smaller under the mapping.
        """
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        try:
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK == 0:
                raise ValueError("a memory came that is not sealed against being made smaller")
            return cls(None, mmap.mmap(fd, os.fstat(fd).st_size, access=access))
        finally:
            os.close(fd)

    @property
    def buffer(self) -> mmap.mmap:
        return self._mapping

    def array(self, shape: tuple[int, ...], datatype: str, offset: int) -> Array:
        """An array on the memory, which stays mapped for as long as the array lives."""
        # ``np.ndarray(buffer=…)`` would hold the mapping by reference alone, which does not keep it from being
        # closed: a segmentation fault. ``frombuffer`` holds an export.
        return np.frombuffer(self._mapping, DATATYPES[datatype], math.prod(shape), offset).reshape(shape)

    def octets(self) -> Array:
        """The whole memory as one array, which is the ``base`` of every array cut from it, and of those cut from them:
        numpy goes down to the array that holds the export. A weak reference to it tells when none is left."""
        return np.frombuffer(self._mapping, np.uint8)

    @property
    def fd(self) -> int:
        """To be sent to the child, once; ``forget_fd`` after that."""
        if self._fd is None:
            raise ValueError("the descriptor of this memory was given up already")
        return self._fd

    def forget_fd(self) -> None:
        """Closes the descriptor; the mapping lives on."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def close(self) -> None:
        self.forget_fd()
        try:
            self._mapping.close()
        except BufferError:
            # Model code kept a view of its input: the mapping goes when that view does.
            return
