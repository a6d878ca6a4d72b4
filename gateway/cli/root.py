"""All commands, put together. ``turnout serve`` does without most of them: see ``entry``."""

from __future__ import annotations

from gateway.cli import (
    artifact_commands,
    audit_commands,
    config_commands,
    decisions_commands,
    drift_command,
    explain_command,
    follow_command,
    gate_commands,
    gc_command,
    keeper_commands,
    lineage_commands,
    model_commands,
    predict_command,
    profile_command,
    record_command,
    register,
    reproduce_command,
    rollout_command,
    route_commands,
    search_command,
    serve,
    simulate,
    store_commands,
    target_commands,
    transfer_commands,
    truth_command,
    verify_command,
)
from gateway.cli.demo import command as demo
from gateway.cli.entry import frame

__all__ = ["application"]

application = frame()
for group in (
    serve,
    demo,
    register,
    model_commands,
    verify_command,
    artifact_commands,
    target_commands,
    record_command,
    lineage_commands,
    reproduce_command,
    profile_command,
    search_command,
    predict_command,
    route_commands,
    rollout_command,
    follow_command,
    gate_commands,
    explain_command,
    drift_command,
    truth_command,
    simulate,
    store_commands,
    transfer_commands,
    audit_commands,
    config_commands,
    decisions_commands,
    gc_command,
    keeper_commands,
):
    application.add_typer(group.commands)
