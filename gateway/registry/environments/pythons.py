"""Which Python an environment is made of: the one that its lock file names, among those that are here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.errors import InvalidRegistration

__all__ = ["find_python"]

_ASK = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
_PATIENCE_S = 30.0


def find_python(wanted: str | None, named: Mapping[str, Path]) -> tuple[Path, str]:
    """The interpreter and its whole version. Only ``major.minor`` must agree: a lock file names the patch release that
    its author happened to have. ``named``: the settings' own, by ``major.minor``.

    InvalidRegistration when none is here.
    """
    own = ".".join(map(str, sys.version_info[:3]))
    if wanted is None:
        return Path(sys.executable), own
    series = _series(wanted)
    if series in named:
        return _answering(named[series], series)
    if series == _series(own):
        return Path(sys.executable), own
    found = shutil.which(f"python{series}")
    if found is None:
        raise InvalidRegistration(
            f"the lock file wants Python {wanted}, and no python{series} is on this machine's PATH; install it, name "
            f"it in the settings (registry.environments.pythons: {{'{series}': /path/to/python}}), or lock for "
            f"{_series(own)}"
        )
    return _answering(Path(found), series)


def _series(version: str) -> str:
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    if found is None or found[2] is None:
        raise InvalidRegistration(f"the lock file wants Python {version!r}; expected a version like 3.11")
    return f"{found[1]}.{found[2]}"


def _answering(python: Path, series: str) -> tuple[Path, str]:
    command = [str(python), "-I", "-c", _ASK]
    try:
        said = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=False).stdout.decode().strip()
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise InvalidRegistration(f"{python}, which is to be Python {series}, cannot be started: {error}") from error
    if not re.fullmatch(r"\d+\.\d+\.\d+", said) or _series(said) != series:
        raise InvalidRegistration(
            f"{python} was expected to be Python {series}; it says it is {said[:40] or 'nothing'}; check its path"
        )
    return python, said
