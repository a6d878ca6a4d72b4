"""Turnout: a model-serving gateway that decides which version answers, watches it, and goes back by itself.

How this package is laid out (who may import whom runs down the list only;
``tests/test_architecture.py`` holds the table as data):

    app, cli          the composition root and the commands: know everybody, nobody imports them
    examples          the models that a first start trains on real data
    figures           what the metrics are told of the parts, at each scrape
    liaison           what one part is told by another that may not know it, in its own words
    workers           several web processes on one port, and what passes between them and the node
    server            listening: sockets of our own, uvicorn on top of them
    web               HTTP: bytes in, bytes out; the one table from error to status
    decoding          large JSON bodies, decoded in a process of their own
    control           desired state: documents, store, reconciler, guard, audit, tokens
    batch             a file of rows in, a file of answers out, by the codec and runtime that answer online
    registry          immutable versions: manifests, blobs, catalogue
    recording         the recorder's process, which keeps what was answered, and the road to it
    telemetry         metrics, traces, drift; in the recorder request log, decisions with their sinks, truth
    dataplane         the story of a request: decide, lease, submit, respond
    shadowing         copies of requests for shadow versions, and what their answers say
    serving           a version at work: engine, batcher, handle, fleet
    routing, codec    pure: which version answers; bytes to arrays and back
    live_secrets, secret_reading, secret_command, secret_text    secrets, as they are now and never shown
    checkpoints, signatures, intervals    what proves a log's end, who sent a message, and how sure a figure is
    settings, settings_*, yaml_reading, environment    configuration: defaults, file, environment; a group of it a file
    trace_context, events, errors, messages, clock    the words everybody shares
    runtimes          the far side of the wall: model code in processes of its own
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["__version__", "is_compiled"]

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether the way of a request runs as C, as a wheel may hold it (``hatch_build.py``)."""
    found = find_spec("gateway.dataplane")
    return found is not None and not str(found.origin).endswith(".py")
