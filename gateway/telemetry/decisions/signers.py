"""Whether the checkpoints beside a log are of keys that the log itself names: one that was replaced is no proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.checkpoints import DECISIONS, Checkpoint, VerifyingKey
from gateway.errors import InvalidInput

__all__ = ["signing_faults"]


def signing_faults(
    named: Sequence[tuple[int, str]], public: VerifyingKey | None, notes: Sequence[str]
) -> Iterator[str]:
    """``named``: the keys that the log names, each with the line that does; ``notes``: those beside the log. Where what
    named an earlier key was retired, its notes are left alone."""
    if not named:
        return
    if public is not None and str(public) not in {key for _, key in named}:
        yield (
            f"the key {public.id.hex()} is none that this log was signed by (it names {_ids(named)}): the key was "
            "replaced, or is another gateway's"
        )
    keys = [key for _, text in named if (key := _parsed(text)) is not None]
    strange = [note for note in notes if not any(_opens(key, note) for key in keys)]
    if wrong := [size for note in strange if (size := _size(note)) is None or size >= named[0][0]]:
        yield (
            f"{len(wrong)} checkpoints beside the log, the last of record {wrong[-1]}, are signed by no key that it "
            f"names ({_ids(named)}): they were altered, or the key was replaced"
        )


def _ids(named: Sequence[tuple[int, str]]) -> str:
    return ", ".join(dict.fromkeys("".join(key.split("+")[1:2]) for _, key in named))


def _parsed(text: str) -> VerifyingKey | None:
    try:
        return VerifyingKey.parse(text, DECISIONS)
    except InvalidInput:
        return None


def _opens(key: VerifyingKey, note: str) -> bool:
    try:
        key.open(note)
    except InvalidInput:
        return False
    return True


def _size(note: str) -> int | None:
    try:
        return Checkpoint.parse(note.partition("\n\n")[0] + "\n", DECISIONS).size
    except InvalidInput:
        return None
