"""What a catalogue of ten thousand versions costs: to list, to search, to show, and to add one more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from gateway.clock import SystemClock
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import AuditEntry, Change, DocumentKey
from gateway.control.store_access import store_path
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry, ModelDocument
from gateway.registry.manifest import EvaluationRecord, Lineage
from gateway.registry.registration import RegistrationOptions, prepare
from loadtests.live_gateway import LiveGateway
from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan

__all__ = ["catalogue"]

MODELS, VERSIONS = 100, 100
_CALLS = 10
_THREADS = 16
_SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}],
}


def catalogue(plan: Plan) -> Outcome:
    models, versions = (10, 20) if plan.rounds == 1 else (MODELS, VERSIONS)
    home = plan.folder / "catalogue-home"
    home.mkdir()
    began = time.perf_counter()
    asyncio.run(_fill(home, plan.folder, models, versions))
    filled_s = time.perf_counter() - began
    count = models * versions
    work = f"{count:,} versions of {models} models, over HTTP"
    with LiveGateway(home) as live:
        headers = {"authorization": f"Bearer {live.token}"}

        def ask(path: str, **more: str) -> Callable[[], httpx.Response]:
            return lambda: live.client.get(f"/admin{path}", headers=headers | more, timeout=300)

        first = _once(ask("/catalogue?metric=accuracy>=0.95&limit=100"))
        tag = ask("/models?brief=true&limit=100")().headers["etag"]
        asked = {
            "list: a page of 100 models, in few words": ask("/models?brief=true&limit=100"),
            "list again, unchanged (If-None-Match)": ask("/models?brief=true&limit=100", **{"if-none-match": tag}),
            "search: accuracy of at least 0.95": ask("/catalogue?metric=accuracy>=0.95&limit=100"),
            "search: trained on one data set": ask(f"/catalogue?data={_data(7)}&limit=100"),
            "search: name, tag and time": ask("/catalogue?name=model-04*&tag=team=b&registered_after=2024-01-01"),
            "show a version": ask("/models/model-042/versions/17" if models > 42 else "/models/model-004/versions/17"),
        }
        times = {name: [_once(call) for _ in range(_CALLS)] for name, call in asked.items()}
        whole = [_once(ask("/models")) for _ in range(3)]
        added = [_once(lambda number=number: _register(live, plan.folder, number)) for number in range(_CALLS)]
    with LiveGateway(plan.folder / "small-home") as small:
        alone = [_once(lambda number=number: _register(small, plan.folder, number)) for number in range(_CALLS)]
    figures = [Figure(work, name, tuple(taken), "ms", 100.0, 50.0) for name, taken in times.items()]
    figures.append(Figure(work, "register one more", tuple(added), "ms"))
    cold, warm = asyncio.run(_snapshots(home))
    size = store_path(home).stat().st_size
    rows = (
        ("the first search after the index was lost (ms)", f"{first:.0f}"),
        ("every model with every version, as old clients ask (ms)", f"{min(whole):.0f}"),
        ("registration in a home without versions (ms)", f"{sorted(alone)[len(alone) // 2]:.0f}"),
        ("snapshot of the store, first and again (ms)", f"{cold:.0f}, {warm:.1f}"),
        ("store file (MB)", f"{size / 1e6:.1f}"),
        ("index of manifests (MB)", f"{(home / 'manifest-facts').stat().st_size / 1e6:.1f}"),
    )
    ran = f"{count:,} versions, made in {filled_s:.0f} s; {_CALLS} calls of each kind"
    return Outcome(tuple(figures), (Table("Beside it", ("what", "took"), rows),), ran)


async def _fill(home: Path, folder: Path, models: int, versions: int) -> None:
    """Manifests in the blobs, a document a model in the store: what registrations leave, but for their history."""
    source, signature = folder / "model.echo.json", folder / "signature.json"
    source.write_text("{}")
    signature.write_text(json.dumps(_SIGNATURE))
    blobs = BlobStore(home)
    base = prepare("model", source, RegistrationOptions(signature=signature, prove=False), blobs)
    store = SqliteStore(store_path(home), clock=SystemClock())
    try:
        for number in range(models):
            name = f"model-{number:03d}"
            places = range(number * versions + 1, (number + 1) * versions + 1)
            manifests = (
                replace(base, model=name, lineage=_lineage(place), evaluation=_evaluation(place)) for place in places
            )
            with ThreadPoolExecutor(_THREADS) as pool:  # each waits for the disk
                digests = [one.digest for one in pool.map(blobs.put_bytes, (made.canonical() for made in manifests))]
            entries = [
                CatalogueEntry(version, digest, 1.7e9 + place * 60, {"team": "abc"[place % 3], "run": str(place)})
                for version, (place, digest) in enumerate(zip(places, digests, strict=True), 1)
            ]
            aliases = {"champion": versions, "challenger": versions // 2}
            body = ModelDocument(name, tuple(entries), aliases, next_number=versions + 1).to_json()
            await store.commit([Change(DocumentKey("model", name), body, 0)], AuditEntry("bench", "register", name))
    finally:
        await store.close()


def _lineage(place: int) -> Lineage:
    return Lineage(
        code={"repository": "https://example.org/fraud.git", "commit": f"{place * 2654435761 % 2**40:040x}"},
        data=[{"name": "transactions", "digest": _data(place % 50), "rows": 1_000_000}],
        parameters={"learning_rate": 0.1, "depth": place % 8, "seed": place},
        author="bench",
    )


def _evaluation(place: int) -> tuple[EvaluationRecord, ...]:
    accuracy = 0.9 + place % 1000 / 10_000
    return EvaluationRecord("accuracy", accuracy, 1000), EvaluationRecord("auc", accuracy + 0.01, 1000, "young")


def _data(number: int) -> str:
    return f"sha256:{number:064x}"


def _register(live: LiveGateway, folder: Path, number: int) -> httpx.Response:
    source = folder / f"{live.port}-{number}.echo.json"
    source.write_text(json.dumps({"outputs": {"y": number}}))
    body: dict[str, Any] = {"source": f"file:{source}", "signature": _SIGNATURE, "verify": False}
    headers = {"authorization": f"Bearer {live.token}"}
    return live.client.post("/admin/models/model-001/versions", json=body, headers=headers)


def _once(call: Callable[[], httpx.Response]) -> float:
    began = time.perf_counter()
    response = call()
    took = (time.perf_counter() - began) * 1000
    if response.status_code not in (200, 201, 304):
        raise RuntimeError(f"{response.request.url}: {response.status_code} {response.text[:300]}")
    return took


async def _snapshots(home: Path) -> tuple[float, float]:
    store = SqliteStore(store_path(home), clock=SystemClock())
    try:
        taken = []
        for _ in range(2):
            began = time.perf_counter()
            await store.snapshot()
            taken.append((time.perf_counter() - began) * 1000)
    finally:
        await store.close()
    return taken[0], taken[1]
