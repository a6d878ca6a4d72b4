"""Traces: which requests are kept, their span trees, and the way to a collector.

    gateway                                              recorder
    observer   chooses (keeping) and hands over ─road─▶  part       makes spans (tree, conventions)
                                                         exporting  queue, thread, counts
                                                         sdk        OpenTelemetry's classes and exporters

Only ``sdk`` imports OpenTelemetry, and only where spans are exported.
"""
