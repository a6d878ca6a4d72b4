"""Traces: which requests are kept, their span trees, and the way to a collector.

    gateway                                              recorder
    observer   chooses (keeping) and hands over ─road─▶  part       makes spans (tree, conventions)
                                                         exporting  queue, thread, counts
                                                         sdk        encoding's bytes, or OpenTelemetry's classes
                                                         exporters  OpenTelemetry's transport

Only ``sdk`` and ``exporters`` import OpenTelemetry, and only where spans are exported.
"""
