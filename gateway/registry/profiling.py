"""Has a profile computed in a process of its own, behind everybody else (``gateway.registry.profile_process``).

Gigabytes of reference data are read and counted, perhaps with pyarrow; neither the interpreter lock nor the memory of
the process that asked has to do with it. The request is JSON on standard input, the answer the profile's bytes, or with
exit status 2 ``{"kind", "message"}`` of what was wrong with the data or the version.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from gateway.errors import IntegrityError, InvalidRegistration, RegistryError
from gateway.messages import Signature
from gateway.registry.inspection import TrialFailed
from runtimes.base import LoadSpec

__all__ = ["REFUSED", "computed_elsewhere"]

REFUSED = 2
_TAIL_CHARACTERS = 2000


def computed_elsewhere(
    path: Path,
    signature: Signature,
    spec: LoadSpec | None,
    *,
    interpreter: str | None = None,
    timeout_s: float = 120.0,
) -> bytes:
    """``compute_profile`` in a child, with the same errors. The child is gone on return, with all that it started."""
    request = {
        "path": str(path),
        "signature": signature.to_json(),
        "spec": None if spec is None else spec.to_json(),
        "interpreter": interpreter,
        "timeout_s": timeout_s,
        "parent": os.getpid(),
    }
    command = [sys.executable, "-m", "gateway.registry.profile_process"]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0)
    try:
        out, said = child.communicate(json.dumps(request).encode())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.returncode == 0:
        return out
    if child.returncode == REFUSED:
        fault = json.loads(out)
        raise _raised(str(fault["kind"]), str(fault["message"]))
    words = said.decode("utf-8", "replace")[-_TAIL_CHARACTERS:].strip()
    raise RegistryError(f"the process that profiles {path} ended with status {child.returncode}: {words}")


def _raised(kind: str, message: str) -> RegistryError | IntegrityError:
    if kind == "integrity":
        return IntegrityError(message)
    if kind == "registry":
        return RegistryError(message)
    return InvalidRegistration(message) if kind == "refused" else TrialFailed(message, kind)
