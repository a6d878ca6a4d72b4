"""Kinds of work to measure: ``cost`` (processor time), ``calm`` (latency under pressure), ``overhead``, ``long``."""
