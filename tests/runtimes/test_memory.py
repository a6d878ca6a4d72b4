"""Shared memory: what its seals forbid to the other side."""

from __future__ import annotations

import fcntl
import mmap
import os

import pytest

from runtimes.memory import Memory


def test_the_child_can_neither_write_inputs_nor_resize_anything():
    """The seals hold: no writable mapping, no write, no truncation (which would be a SIGBUS in the gateway)."""
    for writable in (False, True):
        memory = Memory.create("test", 5000, writable_by_child=writable)
        assert memory.size_bytes == 8192
        fd = os.dup(memory.fd)
        memory.forget_fd()
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        if writable:
            mmap.mmap(fd, 8192).close()
        else:
            with pytest.raises(PermissionError):
                mmap.mmap(fd, 8192)
            with pytest.raises(PermissionError):
                os.write(fd, b"x")
        attached = Memory.attach(fd, writable=writable)
        memory.buffer[:5] = b"hello"
        assert attached.buffer[:5] == b"hello"
        attached.close()
        memory.close()


def test_a_memory_that_could_shrink_is_not_attached():
    """Nor what is no memory at all."""
    fd = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with pytest.raises(ValueError, match="not sealed"):
        Memory.attach(fd, writable=False)
    with pytest.raises(OSError, match="Invalid argument"):
        Memory.attach(os.open("/dev/null", os.O_RDONLY), writable=False)
