"""Computes one profile and ends: ``python -m gateway.registry.profile_process``, as ``profiling`` asks for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.errors import IntegrityError, InvalidRegistration, RegistryError
from gateway.messages import Signature
from gateway.registry.inspection import TrialFailed
from gateway.registry.profile import compute_profile
from gateway.registry.profiling import REFUSED
from runtimes.base import LoadSpec
from runtimes.process import be_nice, die_with

__all__ = ["main"]


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
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
