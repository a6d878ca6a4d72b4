"""Where Grafana finds Prometheus, Jaeger and the boards: its provisioning files, as values.

The addresses are those of the services in compose.yaml.
"""

from __future__ import annotations

from typing import Any

from dashboards.panels import PROMETHEUS

__all__ = ["BOARDS_FOLDER", "JAEGER", "board_provider", "datasources"]

JAEGER = "turnout-jaeger"

BOARDS_FOLDER = "/etc/grafana/dashboards"
"""Where compose.yaml mounts config/grafana/dashboards."""


def datasources() -> dict[str, Any]:
    """Exemplars carry their trace's id under ``trace_id``: a click on one opens it in Jaeger."""
    exemplars = [{"name": "trace_id", "datasourceUid": JAEGER, "urlDisplayLabel": "Trace"}]
    prometheus = {
        "name": "Prometheus",
        "type": "prometheus",
        "uid": PROMETHEUS.uid,
        "access": "proxy",
        "url": "http://prometheus:9090",
        "isDefault": True,
        "editable": False,
        "jsonData": {"httpMethod": "POST", "timeInterval": "15s", "exemplarTraceIdDestinations": exemplars},
    }
    jaeger = {
        "name": "Jaeger",
        "type": "jaeger",
        "uid": JAEGER,
        "access": "proxy",
        "url": "http://jaeger:16686",
        "editable": False,
        "jsonData": {"nodeGraph": {"enabled": True}},
    }
    return {"apiVersion": 1, "datasources": [prometheus, jaeger]}


def board_provider() -> dict[str, Any]:
    provider = {
        "name": "turnout",
        "folder": "Turnout",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": BOARDS_FOLDER},
    }
    return {"apiVersion": 1, "providers": [provider]}
