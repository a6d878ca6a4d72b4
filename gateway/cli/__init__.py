"""The ``turnout`` command: one file per group of commands."""
