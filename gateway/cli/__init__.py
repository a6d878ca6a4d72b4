"""The ``turnout`` command: one file per group of commands.

How this package is laid out:

    entry             which commands are needed; from an error to one line and an exit status
    root              all of them, put together
    serve             runs a gateway
    demo              tells the story of one
    top               shows how one is, in the terminal
    quickstart        what ``make serve`` does before it serves
    register          makes a version
    model_commands    models, show, lineage, verify, archive, alias, promote
    route_commands    routes, apply, diff, weights, rollback, lift, history, restore
    audit_commands    audit: show, verify, checkpoint, key, export
    keeper_commands   tokens, backup, restore-backup, gc
    connection        which backend: a gateway, or a home
    backend           the verbs as an interface
    http_backend      the verbs against a running gateway, through its admin_client
    local_backend     the verbs straight on the store of a home
    route_files, upload, backup, examples    what commands read and write
    output, progress, failures               what commands say
"""

from __future__ import annotations

from gateway.cli.entry import main

__all__ = ["main"]
