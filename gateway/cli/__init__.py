"""The ``turnout`` command: one file per group of commands.

How this package is laid out:

    root              puts the commands together; from an error to one line and an exit status
    serve, demo       run a gateway; tell the story of one
    model_commands    register, models, show, lineage, verify, archive, alias, promote
    route_commands    routes, apply, diff, weights, rollback, lift, history, restore
    keeper_commands   tokens, audit, backup, restore-backup, gc
    backend           the verbs, and the choice between the two that have them
    http_backend      the verbs against a running gateway
    local_backend     the verbs straight on the store of a home
    output            tables for people, JSON for machines, progress on a terminal
"""

from __future__ import annotations
