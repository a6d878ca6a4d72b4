"""What MLflow is told of its versions: what changed here, once, by one replica, and later where it did not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.control.coordination import Alone
from gateway.control.mlflow_standing import Naming
from gateway.control.mlflow_writer import MlflowWriter
from gateway.control.model_control import model_key
from gateway.control.store import AuditEntry, Change
from gateway.errors import SourceUnavailable
from gateway.registry.catalogue import ModelDocument
from tests.control.scene import MODEL, Scene, digest, scene, until

SERVER = "http://mlflow.example:5000"
NAMING = Naming(aliases={"best": "best-of-turnout"}, routes={MODEL: "production"})


def _imported(version: int, system: str = "mlflow") -> Mapping[str, Any]:
    url = f"{SERVER}/#/models/fraud/versions/{version}"
    return {
        "system": system,
        "name": "fraud",
        "version": str(version),
        "url": url,
        "alias": None,
        "files": "x",
        "at": 1,
    }


class Stage:
    """A scene whose model is version 11, 12, 13 of MLflow's ``fraud``; ``told`` is what MLflow heard."""

    def __init__(self, made: Scene, clock: ManualClock, folder: Path) -> None:
        self.scene = made
        self.clock = clock
        self.down = False
        self.told: list[Sequence[Mapping[str, Any]]] = []
        self.refused: list[str] = []
        self._folder = folder
        self.writer = self.fresh()

    def fresh(self) -> MlflowWriter:
        """As a gateway has it that starts."""
        return MlflowWriter(
            store=self.scene.store,
            coordination=Alone(self._folder, self.clock),
            reconciler=self.scene.plane.reconciler,
            naming=NAMING,
            tell=self._tell,
            clock=self.clock,
            retry_s=30.0,
        )

    async def _tell(self, writes: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        if self.down:
            raise SourceUnavailable("MLflow does not answer")
        self.told.append(writes)
        return self.refused

    async def settle(self) -> None:
        """Until the reconciler has what the store has, then one tick."""
        revision = (await self.scene.store.snapshot()).revision
        await until(lambda: self.scene.plane.reconciler.desired.revision >= revision)
        await self.writer.tick()


@asynccontextmanager
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, versions=0) as made:
        model = ModelDocument(MODEL)
        for number in (1, 2, 3):
            imported = _imported(number + 10) if number < 3 else _imported(13, "dvc")
            model, _ = model.add_version(digest(number), created_at=0.0, imported=imported)
        entry = AuditEntry("test", "register", MODEL)
        await made.store.commit([Change(model_key(MODEL), model.to_json(), 0)], entry)
        await made.put({1: 100})
        yield Stage(made, clock, tmp_path / "mlflow")


async def test_what_stands_here_is_told_once(tmp_path: Path) -> None:
    """The route's known good as an alias, what the version is on the route as a tag; then nothing until it changes."""
    async with stage(tmp_path) as here:
        await here.settle()
        await here.settle()
        expected = {
            "server": SERVER,
            "name": "fraud",
            "aliases": {"production": "11"},
            "dropped": {},
            "tags": {"11": {f"turnout.route.{MODEL}": "known good"}},
        }
        assert here.told == [[expected]]
        assert here.writer.statistics().waiting == 0


async def test_an_alias_that_moves_here_moves_there_under_its_name_there(tmp_path: Path) -> None:
    """Set, moved, dropped; a version of another system has no alias in MLflow."""
    async with stage(tmp_path) as here:
        await here.settle()
        models = here.scene.plane.models
        await models.set_alias(MODEL, "best", 2, actor="test")
        await here.settle()
        assert here.told[-1][0]["aliases"] == {"best-of-turnout": "12"}
        await models.set_alias(MODEL, "best", 3, actor="test")
        await here.settle()
        assert (here.told[-1][0]["aliases"], here.told[-1][0]["dropped"]) == ({}, {"best-of-turnout": "12"})


async def test_a_rollback_puts_the_alias_back_and_tags_what_was_left(tmp_path: Path) -> None:
    """Whoever had moved the alias in MLflow to the version that failed: it points at the known good again."""
    async with stage(tmp_path) as here:
        await here.scene.put({1: 50, 2: 50})
        await here.settle()
        await here.scene.plane.routes.rollback(MODEL, to=1, reason="worse", actor="test")
        await here.settle()
        written = here.told[-1][0]
        assert written["aliases"] == {"production": "11"}
        assert written["tags"]["12"] == {f"turnout.route.{MODEL}": "rolled back: worse"}


async def test_what_mlflow_did_not_hear_is_told_when_it_is_back(tmp_path: Path) -> None:
    """Nothing here waits for it; the audit log has what was told, and nothing of what was not."""
    async with stage(tmp_path) as here:
        here.down = True
        await here.settle()
        assert (here.told, here.writer.statistics().waiting) == ([], 1)
        assert "MLflow does not answer" in here.writer.statistics().problem
        here.down = False
        await here.writer.tick()
        assert not here.told  # it is given time
        here.clock.advance(31.0)
        await here.writer.tick()
        assert len(here.told) == 1
        actions = [one.entry.action for one in await here.scene.store.audit()]
        assert actions.count("mlflow-told") == 1


async def test_what_mlflow_refuses_is_recorded_and_not_asked_again(tmp_path: Path) -> None:
    """As of a model that was deleted there: asking every thirty seconds would tell it nothing, ever."""
    async with stage(tmp_path) as here:
        here.refused = ["fraud: Registered Model with name=fraud not found"]
        await here.settle()
        here.clock.advance(31.0)
        await here.settle()
        assert len(here.told) == 1
        (entry,) = [one.entry for one in await here.scene.store.audit() if one.entry.action == "mlflow-told"]
        assert entry.detail["refused"] == here.refused


async def test_a_new_leader_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    """What was told stands in the store: an alias that people moved in MLflow since is not moved back by a restart."""
    async with stage(tmp_path) as here:
        await here.settle()
        here.writer = here.fresh()
        await here.settle()
        assert len(here.told) == 1
