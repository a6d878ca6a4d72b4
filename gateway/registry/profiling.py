"""Computes a profile in a process of its own, behind everybody else: ``python -m gateway.registry.profiling``.

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
from gateway.registry.profile import SEED, compute_profile
from runtimes.base import LoadSpec
from runtimes.process import be_nice, die_with

__all__ = ["computed_elsewhere", "main"]

_REFUSED = 2
_TAIL_CHARACTERS = 2000


def computed_elsewhere(
    path: Path,
    signature: Signature,
    spec: LoadSpec | None,
    *,
    interpreter: str | None = None,
    timeout_s: float = 120.0,
    seed: int = SEED,
) -> bytes:
    """``compute_profile`` in a child, with the same errors. The child is gone on return, with all that it started."""
    request = {
        "path": str(path),
        "signature": signature.to_json(),
        "spec": None if spec is None else spec.to_json(),
        "interpreter": interpreter,
        "timeout_s": timeout_s,
        "seed": seed,
        "parent": os.getpid(),
    }
    command = [sys.executable, "-m", "gateway.registry.profiling"]
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
    if child.returncode == _REFUSED:
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


def main() -> int:
    request = json.load(sys.stdin)
    die_with(request["parent"])
    be_nice()
    spec = None if request["spec"] is None else LoadSpec.from_json(request["spec"])
    try:
        data = compute_profile(
            Path(request["path"]),
            Signature.from_json(request["signature"]),
            spec,
            interpreter=request["interpreter"],
            timeout_s=request["timeout_s"],
            seed=request["seed"],
        )
    except TrialFailed as fault:
        told = {"kind": fault.kind, "message": str(fault)}
    except InvalidRegistration as fault:
        told = {"kind": "refused", "message": str(fault)}
    except IntegrityError as fault:
        told = {"kind": "integrity", "message": str(fault)}
    except RegistryError as fault:
        told = {"kind": "registry", "message": str(fault)}
    else:
        sys.stdout.buffer.write(data)
        return 0
    sys.stdout.write(json.dumps(told))
    return _REFUSED


if __name__ == "__main__":
    sys.exit(main())
