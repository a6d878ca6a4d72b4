"""Shadows: versions that get a copy of some requests, when there is capacity to spare, and whose answers are compared.

    comparison  whether two answers to one request say the same. Pure
    given       an answered request, and what of it a copy keeps
    capacity    whether there is anything to spare
    lines       the copies that wait for one shadow of one route, bounded; when it may be asked again
    outcomes    what became of copies, told
    copies      takes copies of answered requests, runs them when nobody else wants the capacity, tells the outcome

A copy is taken when the client's answer exists, and never before; whatever becomes of it, no client notices.
"""
