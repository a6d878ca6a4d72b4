"""How people name versions on the command line: ``digits/3``, ``digits@champion``, ``digits@sha256:…``."""

from __future__ import annotations

from gateway.cli.failures import USAGE, CommandFailed
from gateway.errors import RegistryError
from gateway.registry.names import check_model_name, split_reference

__all__ = ["numbered", "reference"]


def reference(text: str) -> tuple[str, str | None]:
    """Model and selector; ``digits`` alone has none. CommandFailed for what is neither."""
    try:
        if "/" not in text and "@" not in text:
            return check_model_name(text), None
        return split_reference(text)
    except RegistryError as error:
        raise CommandFailed(str(error), status=USAGE) from None


def numbered(text: str) -> tuple[str, int]:
    """Model and number. CommandFailed for a version that is named in another way."""
    model, selector = reference(text)
    if selector is None or not selector.isdecimal():
        raise CommandFailed(f"{text!r}: expected a version by number, like digits/3", status=USAGE)
    return model, int(selector)
