"""Sinks of the decision log besides its files: each follows the files on a thread of its own, from where it was."""
