"""Signed notes: their form, their keys, and what is no such note."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.checkpoints import AUDIT, DECISIONS, Checkpoint, SigningKey, VerifyingKey, read_notes
from gateway.errors import InvalidInput, SettingsError

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
POINT = Checkpoint(42, "ab" * 32, 1_700_000_000)


def test_a_note_has_the_form_of_signed_notes_and_opens_with_its_key_alone() -> None:
    """Origin, size, head, time, an empty line and a signature line; key ids are those of C2SP."""
    note = KEY.sign(POINT)
    text, _, signature = note.partition("\n\n")
    assert text.split("\n")[:2] == [AUDIT.origin, "42"]
    assert text.split("\n")[3] == "time 2023-11-14T22:13:20Z"
    assert signature.startswith(f"— {AUDIT.origin} ")
    assert KEY.public.open(note) == POINT
    assert VerifyingKey.parse(str(KEY.public)).open(note) == POINT
    with pytest.raises(InvalidInput, match="not signed by the key"):
        OTHER.public.open(note)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_note_that_differs_in_any_character_is_refused(data: st.DataObject) -> None:
    """Forged size, head, time, name or signature: none opens as another checkpoint."""
    note = KEY.sign(POINT)
    at = data.draw(st.integers(0, len(note) - 2))
    put = data.draw(st.characters(codec="utf-8").filter(lambda c: c != note[at]))
    try:
        opened = KEY.public.open(note[:at] + put + note[at + 1 :])
    except InvalidInput:
        return
    assert opened == POINT  # base64's unused bits may differ; what is signed may not


@pytest.mark.parametrize("text", ["", "turnout/audit", "a+b+c", f"{AUDIT.origin}+00000000+AQ==", str(KEY.public)[:-4]])
def test_what_is_no_public_key_is_said_to_be_none(text: str) -> None:
    """With the command that prints one."""
    with pytest.raises(InvalidInput, match="turnout audit key"):
        VerifyingKey.parse(text)


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    """Mode 0600; the next start finds the same; a file that is no key stops it with its name."""
    key = SigningKey.of(tmp_path)
    assert stat.S_IMODE((tmp_path / AUDIT.key_file).stat().st_mode) == 0o600
    assert str(SigningKey.of(tmp_path).public) == str(key.public)
    (tmp_path / AUDIT.key_file).write_text("nonsense")
    with pytest.raises(SettingsError, match=AUDIT.key_file):
        SigningKey.of(tmp_path)


def test_a_file_of_notes_is_read_one_by_one_and_a_cut_one_spoils_none(tmp_path: Path) -> None:
    """As a full disk or a crash leaves it, in the middle or at the end."""
    first, second = KEY.sign(POINT), KEY.sign(replace(POINT, size=43))
    notes, rest = read_notes(f"{first}\n{second[:40]}\n{second}\n{first[:20]}")
    assert [KEY.public.open(note).size for note in notes] == [42, 43]
    assert rest


def test_a_note_of_one_log_is_none_of_another() -> None:
    """The same key signs another origin: a checkpoint of the audit log proves nothing of the decisions."""
    other = SigningKey(KEY.key, DECISIONS)
    note = other.sign(replace(POINT, log=DECISIONS))
    assert other.public.open(note).log is DECISIONS
    with pytest.raises(InvalidInput, match="not signed by the key"):
        KEY.public.open(note)
    assert read_notes(note, DECISIONS)[0]
