"""Drift: whether what a version is given, or answers, has moved from its reference, by counts in frozen bins.

``cells`` say what is counted, ``evidence`` and ``arms`` bet on it, ``starts`` say since when, ``judging`` decides by a
budget of false alarms, ``sizes`` tell how large, ``blame`` whose fault: all pure. ``watch`` runs them over the counts
that all replicas share.
"""
