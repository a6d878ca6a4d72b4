"""What runtimes say went wrong has an error of its own here, each kind of it."""

from __future__ import annotations

import pytest

from gateway.errors import IntegrityError, ModelError
from gateway.messages import VersionRef
from gateway.serving.failures import failure_of
from runtimes import base


def test_a_failure_names_the_version_and_what_was_said() -> None:
    """The kind tells the type, the rest is for the reader."""
    failure = failure_of(VersionRef("digits", 3), "integrity", "a byte is another")
    assert (type(failure), str(failure)) == (IntegrityError, "digits/3: a byte is another")


@pytest.mark.parametrize("kind", sorted({one.kind for one in base.RuntimeFailure.__subclasses__()}))
def test_every_kind_that_a_runtime_can_tell_is_known(kind: str) -> None:
    """A kind of failure without an error would be the model's fault in every log."""
    assert (type(failure_of(VersionRef("digits", 3), kind, "")) is ModelError) == (kind == "model-error")


def test_a_kind_that_nobody_knows_is_the_models_fault() -> None:
    """A child is not believed: what it says must not break the gateway."""
    assert type(failure_of(VersionRef("digits", 3), "moon phase", "")) is ModelError
