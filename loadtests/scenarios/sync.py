"""A large version to an object store and back: 1 GB in 2,000 files, cut off twice by kill -9 in each direction."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.messages import Signature, TensorSpec
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.manifest import FileEntry, Manifest
from gateway.registry.transfer.records import VersionRecord
from loadtests.live_gateway import wait_until
from loadtests.measurement import Figure, Outcome, Table
from loadtests.s3_server import S3Server
from loadtests.scenarios.rounds import Plan

__all__ = ["sync"]

_FILES, _FILE_BYTES = 2000, 500_000
_SHARES = (0.2, 0.6)
"""Of all files, when the process is killed."""
_PARALLEL = 8
_PROGRAM = """
import json, sys
from pathlib import Path
from gateway.registry.blobs import BlobStore
from gateway.registry.remote.objects import ObjectPlace, ObjectStore
from gateway.registry.remote.remote_blobs import RemoteBlobs
from gateway.registry.sealing.forms import PLAIN
from gateway.registry.transfer.ends import BlobEnd, RemoteEnd
from gateway.registry.transfer.records import VersionRecord
from gateway.registry.transfer.transfer import transfer
home, url, options, record, way, parallel = sys.argv[1:]
objects = ObjectStore(ObjectPlace(url, json.loads(options), parallel=int(parallel)))
remote = RemoteEnd(RemoteBlobs(objects, Path(home) / "transfers", PLAIN))
ends = (BlobEnd(BlobStore(Path(home))), remote)
known = VersionRecord.from_bytes(Path(record).read_bytes(), record)
done = transfer(*(ends if way == "push" else ends[::-1]), [known], parallel=int(parallel))
print(json.dumps(done.to_json()), flush=True)
objects.close()
"""


def sync(plan: Plan) -> Outcome:
    """One run: what is sent twice, and whether anything partial could be seen, do not depend on the machine."""
    work = "sync: 1 GB in 2,000 files, local disk and S3 (moto's server, on this machine), cut twice by kill -9"
    files = _FILES if plan.rounds > 1 else _FILES // 10
    folder = plan.folder / "sync"
    folder.mkdir(parents=True)
    try:
        with S3Server(folder / "s3") as server:
            ways = _both_ways(folder, server, files)
    finally:
        shutil.rmtree(folder)
    figures, rows = [], []
    for way, found in ways.items():
        figures.append(Figure(work, f"{way}: files seen that were not whole", (float(found["partial"]),), "", 0, 0))
        figures.append(Figure(work, f"{way}: sent more than once, of all files", (found["again"],), "%", 2.0, 1.0))
        figures.append(Figure(work, f"{way}: all runs together", (found["seconds"],), "s"))
        rows.append((way, *(f"{value:.0f}" for value in found["cuts"]), f"{found['seconds']:.1f}", str(found["equal"])))
    head = ("way", "files at the first kill", "at the second", "all runs, s", "ends equal")
    return Outcome(tuple(figures), (Table("A sync that is cut off", head, tuple(rows)),), "one run")


def _both_ways(folder: Path, server: S3Server, files: int) -> Mapping[str, Mapping[str, Any]]:
    bucket, home, back = server.make_bucket("artifacts").removeprefix("s3://"), folder / "home", folder / "back"
    blobs = BlobStore(home)
    record = _version(blobs, files, folder)

    def sound(names: list[str]) -> int:
        """How many of the objects that can be seen are not what their names say."""
        some = [name for name in names if name.startswith("blobs/")][::7]
        return sum(hashlib.sha256(server.ask("GET", f"{bucket}/{n}")).hexdigest() != Path(n).name for n in some)

    def start(home: Path, way: str) -> subprocess.Popen[bytes]:
        words = [str(home), f"s3://{bucket}", json.dumps(dict(server.options)), str(record), way, str(_PARALLEL)]
        return subprocess.Popen([sys.executable, "-c", _PROGRAM, *words], stdout=subprocess.PIPE)

    there = BlobStore(back)
    pushed = _cut_twice(lambda: start(home, "push"), lambda: server.names(bucket), sound, files)
    equal = sorted(name for name in server.names(bucket) if name.startswith("blobs/"))
    wanted = sorted(f"blobs/sha256/{d[7:9]}/{d[7:]}" for d in blobs.digests())
    pulled = _cut_twice(
        lambda: start(back, "pull"),
        lambda: list(there.digests()),
        lambda names: sum(there.verify(name).state != "ok" for name in names),
        files,
    )
    return {
        "to S3": {**pushed, "equal": equal == wanted},
        "from S3": {**pulled, "equal": there.digests() == blobs.digests()},
    }


def _cut_twice(
    start: Callable[[], subprocess.Popen[bytes]],
    seen: Callable[[], list[str]],
    damaged: Callable[[list[str]], int],
    files: int,
) -> dict[str, Any]:
    cuts, partial, began = [], 0, time.monotonic()
    for share in _SHARES:
        running = start()
        wait_until(lambda enough=int(files * share): _rarely(seen) >= enough, within_s=900.0, what="files")
        running.send_signal(signal.SIGKILL)
        running.communicate()
        names = seen()
        partial += damaged(names)
        cuts.append(len(names))
    out, _ = start().communicate(timeout=900)
    done = json.loads(out)
    again = max(0, cuts[-1] - done["files_there"])
    return {
        "cuts": cuts,
        "partial": partial,
        "again": 100.0 * again / files,
        "seconds": time.monotonic() - began,
    }


def _rarely(seen: Callable[[], list[str]]) -> int:
    """Listing costs the server more than taking a file does."""
    time.sleep(1.0)
    return len(seen())


def _version(blobs: BlobStore, files: int, folder: Path) -> Path:
    """Its record's file; every file of it has bytes of its own."""
    entries = []
    for number in range(files):
        stored = blobs.put_bytes(os.urandom(_FILE_BYTES))
        entries.append(FileEntry(f"part-{number:04}.echo.json", stored.sha256, stored.size_bytes))
    tensor = TensorSpec("x", "FP32", ("batch", 4))
    manifest = Manifest("large", "echo", entries[0].name, tuple(entries), Signature((tensor,), (tensor,)))
    blobs.put_bytes(manifest.canonical())
    record = VersionRecord("large", CatalogueEntry(1, manifest.digest, 1000.0))
    place = folder / record.name
    place.parent.mkdir(parents=True)
    place.write_bytes(record.to_bytes())
    return place
