"""Tests against a whole gateway in a process of its own, over real sockets."""
