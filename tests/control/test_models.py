"""Models: registration ends in the catalogue or not at all, aliases, archive, and what gc may free."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from gateway.control.memory_store import MemoryStore
from gateway.errors import Conflict, InvalidRegistration, StoreUnavailable, UnknownModel, UnknownVersion
from gateway.registry.registration import RegistrationOptions
from tests.control.scene import MODEL, Scene, scene, until

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}],
}


def artifact(folder: Path, number: int) -> Path:
    path = folder / f"v{number}.echo.json"
    path.write_text(json.dumps({"outputs": {"y": number}}))
    return path


def options(folder: Path, **changes: object) -> RegistrationOptions:
    signature = folder / "signature.json"
    signature.write_text(json.dumps(SIGNATURE))
    return RegistrationOptions(signature=signature, prove=False, **changes)  # type: ignore[arg-type]


async def register(stage: Scene, folder: Path, number: int, **changes: object) -> dict[str, object]:
    source = artifact(folder, number)
    return await stage.plane.models.register("echo", source, options(folder, **changes), actor="olga")


async def test_registration_gives_numbers_in_order_and_the_same_bytes_the_same_version(tmp_path: Path) -> None:
    """With an audit record for what is new, and none for what is not."""
    async with scene(tmp_path / "home", versions=0) as stage:
        first = await register(stage, tmp_path, 1, tags={"team": "a"})
        second = await register(stage, tmp_path, 2)
        again = await register(stage, tmp_path, 1)
        assert [row["version"] for row in (first, second, again)] == [1, 2, 1]
        assert [row["created"] for row in (first, second, again)] == [True, True, False]
        assert again["digest"] == first["digest"] != second["digest"]
        assert len(await stage.audited("register")) == 2
        view = await stage.plane.models.version("echo", "1")
        assert view["manifest"]["format"] == "echo"
        assert (view["tags"], view["digest"]) == ({"team": "a"}, first["digest"])
        assert [model["name"] for model in await stage.plane.models.list()] == ["echo"]


async def test_of_many_registrations_at_once_each_gets_a_number_of_its_own(tmp_path: Path) -> None:
    """Compare-and-set on the catalogue: none is lost."""
    async with scene(tmp_path / "home", versions=0) as stage:
        opts = options(tmp_path)
        sources = [artifact(tmp_path, number) for number in range(1, 9)]
        made = await asyncio.gather(
            *(stage.plane.models.register("echo", source, opts, actor="olga") for source in sources)
        )
        assert sorted(row["version"] for row in made) == list(range(1, 9))


async def test_registrations_leave_threads_to_others(tmp_path: Path) -> None:
    """Forty at once, each held up in its thread: two are under way, and somebody else's work gets a thread."""
    async with scene(tmp_path / "home", versions=0) as stage:
        opts, started, go_on = options(tmp_path), set[int](), threading.Event()

        def progress(done: int, total: int) -> None:
            started.add(threading.get_ident())
            go_on.wait(100)

        calls = [
            asyncio.ensure_future(
                stage.plane.models.register("echo", artifact(tmp_path, n), opts, actor="olga", progress=progress)
            )
            for n in range(40)
        ]
        try:
            await until(lambda: len(started) == 2)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "answered"), 60) == "answered"
            assert len(started) == 2
        finally:
            go_on.set()
        assert sorted(row["version"] for row in await asyncio.gather(*calls)) == list(range(1, 41))


async def test_a_registration_that_the_store_does_not_take_registers_nothing(tmp_path: Path) -> None:
    """Its blobs are nobody's, and gc frees them; the same registration later is a new version 1."""
    store = MemoryStore()
    async with scene(tmp_path / "home", store=store, versions=0) as stage:
        store.fail("unplugged")
        with pytest.raises(StoreUnavailable):
            await register(stage, tmp_path, 1)
        store.fail(None)
        assert await stage.plane.models.list() == []
        kept = await stage.plane.models.collect(apply=True)
        assert (kept["freed_bytes"], kept["recent"] > 0) == (0, True)
        gone = await stage.plane.models.collect(apply=True, grace_s=-1e12)
        assert gone["freed_bytes"] > 0
        assert (await register(stage, tmp_path, 1))["version"] == 1
        assert (await stage.plane.models.collect(apply=True, grace_s=-1e12))["freed_bytes"] == 0


async def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    """Nothing is registered."""
    async with scene(tmp_path / "home", versions=0) as stage:
        with pytest.raises(InvalidRegistration):
            await stage.plane.models.register("echo", tmp_path / "nothing", options(tmp_path), actor="olga")
        with pytest.raises(UnknownModel, match="registered are none yet"):
            await stage.plane.models.get("echo")


async def test_an_alias_points_moves_and_goes(tmp_path: Path) -> None:
    """It resolves; it cannot point at what does not exist."""
    async with scene(tmp_path) as stage:
        models = stage.plane.models
        await models.set_alias(MODEL, "champion", 3, actor="olga")
        assert (await models.resolve(MODEL, "@champion")).number == 3
        view = await models.set_alias(MODEL, "champion", 4, actor="olga")
        assert view["aliases"] == {"champion": 4}
        with pytest.raises(UnknownVersion):
            await models.set_alias(MODEL, "champion", 99, actor="olga")
        assert (await models.drop_alias(MODEL, "champion", actor="olga"))["aliases"] == {}
        assert [entry.action for entry in await stage.audited("alias")] == ["alias", "alias"]


async def test_a_version_in_use_cannot_be_archived_and_an_archived_one_not_used(tmp_path: Path) -> None:
    """Arms at weight 0, rules, fallback, known good, an alias, an explicit load; one in quarantine alone is no use."""
    async with scene(tmp_path) as stage:
        models = stage.plane.models
        rules = [{"name": "r", "if": {"!": [0]}, "use": 3}]
        await stage.put({1: 100, 2: 0}, rules=rules, fallback=4, known_good=5)
        for number in (1, 2, 3, 4, 5):
            with pytest.raises(Conflict, match="route digits"):
                await models.archive(MODEL, number, actor="olga")
        await stage.plane.residents.load(f"{MODEL}/6", actor="olga")
        with pytest.raises(Conflict, match="explicit load"):
            await models.archive(MODEL, 6, actor="olga")
        await stage.put({1: 100}, known_good=1)
        await models.set_alias(MODEL, "old", 2, actor="olga")
        with pytest.raises(Conflict, match="@old"):
            await models.archive(MODEL, 2, actor="olga")
        view = await models.archive(MODEL, 3, actor="olga")
        assert [row["archived"] for row in view["versions"]] == [False, False, True, False, False, False]
        with pytest.raises(Conflict, match="archived"):
            await stage.put({1: 50, 3: 50})
        with pytest.raises(Conflict, match="archived"):
            await stage.plane.residents.load(f"{MODEL}/3", actor="olga")
        await stage.put({1: 50, 4: 50})
        await stage.plane.routes.rollback(MODEL, to=None, reason="", actor="olga")
        await stage.put({1: 100})
        await models.archive(MODEL, 4, actor="olga")
        assert (await stage.plane.routes.get(MODEL))["status"]["quarantined"]["4"]


async def test_archive_and_route_at_once_never_end_with_a_route_on_an_archived_version(tmp_path: Path) -> None:
    """Two documents, one truth: whoever is second is refused."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 100})
        for number in (2, 3, 4, 5):
            results = await asyncio.gather(
                stage.plane.models.archive(MODEL, number, actor="olga"),
                stage.plane.routes.set_weights(MODEL, {str(number): 100}, actor="otto"),
                return_exceptions=True,
            )
            assert sum(isinstance(result, Conflict) for result in results) == 1
            assert sum(isinstance(result, dict) for result in results) == 1
