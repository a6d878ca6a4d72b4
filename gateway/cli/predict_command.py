"""``turnout predict``: a file of rows in, a file of answers out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.batch.plan import FORMATS, BatchOptions
from gateway.cli.connection import perform
from gateway.cli.output import JsonOption, Output
from gateway.control.batch_control import Batch

__all__ = ["commands"]

commands = typer.Typer()

_FILES = ", ".join(FORMATS)


@commands.command("predict")
def predict_file(
    *,
    version: Annotated[
        str,
        typer.Argument(metavar="MODEL/3|MODEL@alias", help="The version: fraud/3, fraud@champion, fraud@sha256:..."),
    ],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help=f"Rows: {_FILES}.")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help=f"Answers: {_FILES}.")],
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="COLUMN", help="Carried through, and each row has a decision record by it."),
    ] = None,
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="COLUMN", help="Carried through, no feature; may be given several times."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B,C", help="The features, in the order of the only input.")
    ] = None,
    batch_rows: Annotated[
        int | None, typer.Option("--batch-rows", metavar="N", min=1, help="Rows given to the version at once.")
    ] = None,
    missing: Annotated[
        str, typer.Option("--missing", metavar="refuse|nan", help="What a missing value becomes in inputs of floats.")
    ] = "refuse",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an OUTPUT that is there, at the end.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Have a file of rows answered by a version, as it answers online. Cut off, the same command goes on."""
    output = Output.standard(machine=json)
    options = BatchOptions(
        key=key,
        ids=tuple(ids or ()),
        columns=tuple(name.strip() for name in columns.split(",")) if columns else (),
        batch_rows=batch_rows,
        missing=missing,
        overwrite=overwrite,
    )
    batch = Batch(version, source, target, options)
    with output.steps(counted=True) as steps:
        receipt = perform(lambda backend: backend.predict(batch, steps))
    if json:
        output.json(receipt)
        return
    _show(output, receipt)


def _show(output: Output, receipt: Mapping[str, Any]) -> None:
    rows, resumed = receipt["rows"], receipt["resumed_rows"]
    state = ", was done already" if receipt.get("already") else f", {resumed} of them before" if resumed else ""
    logged = receipt["recorded"] == "decision-log"
    output.fields(
        [
            ("version", f"{receipt['version']}  {receipt['digest']}"),
            ("rows", f"{rows}{state}"),
            ("output", f"{receipt['output']['path']}  sha256:{receipt['output']['sha256']}"),
            ("recorded", "in the decision log" if logged else "in the receipt beside the output"),
        ]
    )
