"""The recorder: a process of its own that keeps what was answered, and the road to it, on which nobody waits."""
