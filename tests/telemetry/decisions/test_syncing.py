"""What is called durable is: the file, and the folder that has its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gateway.telemetry.decisions.syncing import Mark, Syncer


def test_a_new_segments_name_is_durable_before_its_records_are_called_so(tmp_path: Path) -> None:
    """Its folder is synced once, after the file and before the mark; a fault of either is told, and tried again
    with the next."""
    synced: list[str] = []
    failing = [True]

    def fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if folder and failing[0]:
            raise OSError(5, "Input/output error")
        synced.append("folder" if folder else "file")
        os.fsync(descriptor)

    first = Mark(0, 0, b"", 0.0)
    syncer = Syncer(first, tmp_path, fsync=fsync)
    with (tmp_path / "00000001.log").open("wb") as one, (tmp_path / "00000002.log").open("wb") as two:
        syncer.ask(one.fileno(), Mark(1, 1, b"", 0.0))
        assert syncer.wait(60)
        assert (syncer.done, synced) == (first, ["file"])
        assert "Input/output error" in str(syncer.fault)
        failing[0] = False
        for mark, file in ((Mark(1, 2, b"", 0.0), one), (Mark(1, 3, b"", 0.0), one), (Mark(2, 4, b"", 0.0), two)):
            syncer.ask(file.fileno(), mark)
            assert syncer.wait(60)
            assert (syncer.done, syncer.fault) == (mark, None)
    assert synced == ["file", "file", "folder", "file", "file", "folder"]
    syncer.close()
