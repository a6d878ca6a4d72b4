"""Makes or checks one signature and ends, as ``gateway.registry.signing.signatures`` asks: model-signing is known here.

``python -E signing_client.py``: a request as JSON on standard input, ``{"do", "folder", "bundle"}`` (sign, verify)
and ``key``, the private key's file, or ``keys``, public keys as PEM text by name. The answer on standard output is
``{"by": name}`` or ``{"error": kind, "message"}``. What is signed is a folder with the manifest in it, as model-signing
signs any model, so that its own command line can check it too.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

if importlib.util.find_spec("OpenSSL") is None:
    # model-signing 1.1.1 imports pyOpenSSL for certificate chains and does not declare it. Keys need nothing of it.
    stand_in = types.ModuleType("OpenSSL")
    stand_in.crypto = types.ModuleType("OpenSSL.crypto")  # type: ignore[attr-defined]
    sys.modules |= {"OpenSSL": stand_in, "OpenSSL.crypto": stand_in.crypto}

import model_signing


def sign(request: dict[str, Any]) -> dict[str, Any]:
    key = Path(request["key"])
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key, password=request.get("password"))
    signer.sign(Path(request["folder"]), Path(request["bundle"]))
    return {}


def verify(request: dict[str, Any]) -> dict[str, Any]:
    """The first key that fits."""
    reasons = []
    place = Path(request["bundle"]).with_name("author.pub")
    for name, key in request["keys"].items():
        place.write_text(key)
        try:
            checker = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=place)
            checker.verify(Path(request["folder"]), Path(request["bundle"]))
        except Exception as error:  # noqa: BLE001 - a bundle from anywhere: whatever it breaks, it is no signature
            reasons.append(f"{name}: {str(error).strip() or type(error).__name__:.200}")
        else:
            return {"by": name}
    return {"error": "unsigned", "message": "; ".join(reasons)}


def main() -> int:
    request = json.load(sys.stdin)
    try:
        answer = {"sign": sign, "verify": verify}[request["do"]](request)
    except Exception as error:  # noqa: BLE001 - the caller says it in its own words
        answer = {"error": "failed", "message": f"{str(error).strip() or type(error).__name__:.500}"}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
