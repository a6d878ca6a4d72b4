"""Finds a version's signature, and lets it answer once before it is taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.errors import InvalidRegistration
from gateway.messages import Arrays, Signature
from gateway.registry.examples import Example, to_canonical
from gateway.registry.inspection import Inspector, TrialFailed
from runtimes.base import LoadSpec
from runtimes.example import synthetic_inputs

__all__ = ["Tried", "try_version"]


@dataclass(frozen=True, slots=True)
class Tried:
    """``example`` is the given one in canonical form, one row of it if the version is batched."""

    signature: Signature
    example: bytes | None


def try_version(
    spec: LoadSpec, inspector: Inspector, *, example: Example | None, batched: bool | None, prove: bool
) -> Tried:
    """``spec.signature`` is what the operator said, if anything. TrialFailed when the version does not work.

    Without an example the proof's input is made up from the signature, as it will be at warm-up.
    """
    signature = spec.signature or _found(spec, inspector, example, batched)
    kept = None if example is None else to_canonical(_one_row(example.inputs(signature), signature))
    if prove:
        _prove(spec, signature, inspector, kept)
    return Tried(signature, kept)


def _found(spec: LoadSpec, inspector: Inspector, example: Example | None, batched: bool | None) -> Signature:
    """What the format tells; else what an example brings out."""
    if example is None:
        return inspector.ask(spec, None)
    if not _tells_little(spec):
        try:
            return inspector.ask(spec, None)
        except TrialFailed as failure:
            if failure.kind != "load-failed":
                raise
            # A Python file may leave its signature to the example; what is truly broken fails again below.
    return inspector.ask(spec, to_canonical(example.inputs(None)), batched=batched)


def _tells_little(spec: LoadSpec) -> bool:
    """Of scikit-learn and TorchScript, an example knows names and types better than the file."""
    return spec.format == "sklearn" or (spec.format == "torch" and not spec.entry.endswith(".pt2"))


def _prove(spec: LoadSpec, signature: Signature, inspector: Inspector, example: bytes | None) -> None:
    asked = replace(spec, signature=signature)
    if example is not None:
        inspector.ask(asked, example)
        return
    try:
        inspector.ask(asked, to_canonical(synthetic_inputs(signature, 1)))
    except TrialFailed as failure:
        if failure.kind == "invalid-input":  # it refuses values that nobody sent, which is an answer too
            return
        raise InvalidRegistration(
            f"{failure} (its input was made up from the signature; if that is unfit, give one with --example FILE)"
        ) from failure


def _one_row(inputs: Arrays, signature: Signature) -> Arrays:
    if not signature.batched:
        return inputs
    return {name: array[:1] for name, array in inputs.items()}
