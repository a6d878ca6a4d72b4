"""The far side of the wall: model code, run in a process of its own.

Knows arrays and one vendor a file, and never imports ``gateway``. Nothing heavy is
imported before ``runtimes.catalog`` is asked for a format.
"""
