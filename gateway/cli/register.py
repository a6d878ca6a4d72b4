"""``turnout register``: a source and what belongs to it become a version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.backend import Registration
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output

__all__ = ["commands"]

commands = typer.Typer()


@commands.command("register")
def register_version(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name; made if it is new.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A .onnx, .pt2, .pt, .skops, .pkl or .py file, a folder, or mlflow:…, dvc:…, wandb:…, https:…, s3:…",
        ),
    ],
    entry: Annotated[
        str | None, typer.Option("--entry", metavar="FILE", help="The file of a folder that is loaded.")
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="onnx, torch, sklearn, python or echo.")
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature", metavar="FILE", help="JSON: inputs and outputs, where the format does not tell them."
        ),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(
            "--example",
            metavar="FILE",
            help="One request's inputs (JSON or .npz); tells the signature and warms the version.",
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="DATA", help="Reference data that drift is measured against.")
    ] = None,
    golden: Annotated[
        Path | None, typer.Option("--golden", metavar="FILE", help="Inputs with the answers that they must get.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", metavar="DATA", help="Evaluation: metric records kept in the manifest.")
    ] = None,
    lineage: Annotated[
        Path | None,
        typer.Option("--lineage", metavar="FILE", help="JSON: code, data, parameters, environment, parent."),
    ] = None,
    environment: Annotated[
        Path | None,
        typer.Option(
            "--environment",
            metavar="LOCK",
            help="Pinned packages (pip freeze, pip-compile, uv) that the version's process has for its own.",
        ),
    ] = None,
    own_environment: Annotated[
        bool,
        typer.Option("--own-environment/--no-own-environment", help="The one that the source brings, where it does."),
    ] = True,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="K=V", help="A tag; may be given several times.")
    ] = None,
    placement: Annotated[
        str | None, typer.Option("--placement", metavar="PLACE", help="process (default) or inline.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="Compute threads.")] = None,
    max_rows: Annotated[int | None, typer.Option("--max-rows", metavar="N", min=1, help="Rows of one batch.")] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="TYPE", help="fp32 (as stored), fp16 or bf16: what a torch model runs in."),
    ] = None,
    compile_it: Annotated[
        bool, typer.Option("--compile", help="Run the model through torch.compile (at load; takes a compiler).")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Capture a CUDA graph for each batch size of the warm-up.")
    ] = False,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry/--no-retry", help="May a batch run again after a crash? No, if its effects must not repeat."
        ),
    ] = True,
    json: JsonOption = False,
) -> None:
    """Register a version of a model. The same bytes and options again give the same version."""
    output = Output.standard(machine=json)
    registration = Registration(
        model=model,
        source=source,
        entry=entry,
        format=format_name,
        signature=signature,
        example=example,
        reference=reference,
        golden=golden,
        evaluation=evaluation,
        lineage=lineage,
        environment=environment,
        own_environment=own_environment,
        tags=_tags(tag or []),
        placement=placement,
        device=device,
        threads=threads,
        max_rows=max_rows,
        precision=precision,
        compile=compile_it,
        cuda_graphs=cuda_graphs,
        retry=retry,
    )
    with output.steps() as steps:
        found = perform(lambda backend: backend.register(registration, steps), creates=True)
    if json:
        output.json(found)
        return
    state = "registered" if found["created"] else "was registered already"
    output.line(f"{found['model']}/{found['version']} {state}: {found['digest']}")
    for remark in found.get("remarks", ()):
        output.note(remark)


def _tags(pairs: Sequence[str]) -> dict[str, str]:
    tags = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CommandFailed(f"--tag {pair!r}: expected KEY=VALUE, like --tag team=vision", status=USAGE)
        tags[key] = value
    return tags
