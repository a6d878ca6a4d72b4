"""A version's answers to many batches, given in a process of its own, and kept on disk to be read once more."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from gateway.errors import IntegrityError
from gateway.messages import Array, Arrays, Signature
from gateway.registry.disk import explained
from gateway.registry.inspection import TrialFailed, end_group, tail_of
from runtimes import boot
from runtimes.answering import read_frame, write_frame
from runtimes.base import LoadSpec

__all__ = ["Answering", "Measured", "Spool"]

_ROWS = 256
"""Rows that the version is given at once: as much as many a runtime takes at its best, and little memory."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of one batch, run again and again, and the process's memory after it; None where the system tells none."""

    wall_s: tuple[float, ...]
    processor_s: tuple[float, ...]
    resident_bytes: int | None
    peak_bytes: int | None


class Answering:
    """A process that has the version loaded. Use as a context; it is gone on leaving, with all that it started.

    TrialFailed with the version's own words, or when it takes longer than ``timeout_s`` over its loading or one batch.
    ``what`` it is asked, for those words.
    """

    def __init__(
        self,
        spec: LoadSpec,
        signature: Signature,
        interpreter: str | None,
        timeout_s: float,
        *,
        what: str = "the reference data",
    ) -> None:
        self._what = what
        self._request = {**spec.to_json(), "signature": signature.to_json()}
        self._interpreter = interpreter
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        command = boot.command("answering", ["--parent", str(os.getpid())], interpreter=self._interpreter)
        if self._interpreter is not None:
            command.insert(1, "-E")  # PYTHONPATH and PYTHONHOME would point it at this interpreter's packages
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, process_group=0
            )
            self._exchange({"spec": self._request}, None)
        except BaseException as error:
            self.__exit__(None, None, None)
            if isinstance(error, OSError):
                raise TrialFailed(
                    f"interpreter {command[0]} cannot be started: {error.strerror}", "no-answer"
                ) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            end_group(self._child)
        if self._said is not None:
            self._said.close()

    def ask(self, inputs: Arrays) -> dict[str, Array]:
        """The version's outputs for a batch, which it is given in smaller ones."""
        rows = len(next(iter(inputs.values())))
        parts = [
            self._exchange({}, {name: array[begin : begin + _ROWS] for name, array in inputs.items()})
            for begin in range(0, rows, _ROWS)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}

    def once(self, inputs: Arrays) -> dict[str, Array]:
        """The outputs for a batch that is given as it is, as that of a version that is not batched must be."""
        return self._exchange({}, inputs)

    def measure(self, inputs: Arrays, calls: int) -> Measured:
        """The batch as it is, ``calls`` times over, with the clocks of the version's own process."""
        told, _ = self._told({"calls": calls}, inputs)
        memory = [told.get(name) for name in ("resident_bytes", "peak_bytes")]
        return Measured(tuple(map(float, told["wall_s"])), tuple(map(float, told["processor_s"])), memory[0], memory[1])

    def _exchange(self, head: dict[str, Any], tensors: Arrays | None) -> dict[str, Array]:
        return self._told(head, tensors)[1]

    def _told(self, head: dict[str, Any], tensors: Arrays | None) -> tuple[dict[str, Any], dict[str, Array]]:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None or self._said is None:
            raise TrialFailed("the version's process is gone", "no-answer")
        # A child that hangs is ended, which ends the read.
        watch = threading.Timer(self._timeout_s, child.kill)
        watch.start()
        try:
            write_frame(child.stdin, head, tensors)
            answer = read_frame(child.stdout)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrialFailed(
                f"the version broke off over {self._what}: {error}{tail_of(self._said)}", "no-answer"
            ) from error
        finally:
            watch.cancel()
        if answer is None:
            raise TrialFailed(
                f"the version's process ended over {self._what}, or did not answer a batch within "
                f"{self._timeout_s:g} s{tail_of(self._said)}",
                "no-answer",
            )
        told, outputs = answer
        if "error" in told:
            kind, message = str(told["error"]["kind"]), str(told["error"]["message"])
            if kind == "integrity":
                raise IntegrityError(message)
            raise TrialFailed(f"the version does not take {self._what}: {message}", kind)
        return told, outputs


class Spool:
    """Answers, asked for once and kept in a temporary file: usually far smaller than what they answer."""

    def __init__(self, answering: Answering, signature: Signature) -> None:
        self._answering = answering
        self._names = [spec.name for spec in signature.outputs]
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        with explained("keep the version's answers in a temporary file"):
            self._file = tempfile.TemporaryFile(prefix="turnout-answers-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def ask(self, inputs: Arrays) -> dict[str, Array]:
        outputs = self._answering.ask(inputs)
        if self._file is not None:
            with explained("keep the version's answers in a temporary file"):
                write_frame(self._file, {}, outputs)
        return outputs

    def again(self) -> Iterator[dict[str, Array]]:
        """The same answers in the same order."""
        if self._file is None:
            return
        self._file.seek(0)
        while (frame := read_frame(self._file)) is not None:
            yield frame[1]
