"""A web worker's process: started from this interpreter, ended with the node by the kernel."""

from __future__ import annotations

import socket

from gateway.recording.child import ChildProcess

__all__ = ["WebProcess"]

_MODULE = "gateway.workers.web"


class WebProcess(ChildProcess):
    def __init__(self, link: socket.socket) -> None:
        """``link``: the worker's end, which stays the caller's to close here. Raises OSError."""
        super().__init__(_MODULE, link)
