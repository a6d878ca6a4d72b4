"""Versions out of a real MLflow server: its flavors, what it knows of them, and what it must not get away with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.errors import InvalidRegistration, SourceUnavailable
from gateway.registry.blobs import BlobStore
from gateway.registry.registration import Permissions, Prepared, RegistrationOptions, prepare_version
from gateway.registry.sources import SourceAccess, opened, resolve_source, tell_mlflow
from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.mlflow_server import COMMIT, MlflowServer

pytestmark = pytest.mark.timeout(600)  # the server and the training start first, wherever the machine is busy

KINDS = ("columns", "arrays", "graph", "program", "coded", "pickled")


@pytest.fixture(scope="module")
def trained(mlflow_server: MlflowServer) -> Mapping[str, Any]:
    """Kind to what its model answers to some rows, as MLflow's own ``predict`` says."""
    found: Mapping[str, Any] = mlflow_server.train(*KINDS)
    mlflow_server.set_alias("columns", "champion", 1)
    return found


@pytest.fixture(scope="module")
def gateway(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    settings = {
        "registry": {"mlflow": {"tracking_uri": mlflow_server.url}},
        "runtimes": {"allow_pickle": ["arrays", "pickled"]},
    }
    with LiveGateway(tmp_path_factory.mktemp("gateway") / "home", settings=settings) as running:
        running.client.timeout = httpx.Timeout(300.0)
        yield running


@pytest.fixture
def access(mlflow_server: MlflowServer, tmp_path: Path) -> SourceAccess:
    return SourceAccess(settings={"mlflow": {"tracking_uri": mlflow_server.url}}, folder=tmp_path / "fetched")


def _prepared(place: str, access: SourceAccess, home: Path, **options: Any) -> Prepared:
    allowed = Permissions(access=access)
    said = RegistrationOptions(own_environment=False, **options)
    return prepare_version("columns", place, said, BlobStore(home), permissions=allowed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_answers_as_the_model_of_mlflow_does(
    kind: str, mlflow_server: MlflowServer, trained: Mapping[str, Any], gateway: LiveGateway
) -> None:
    """skops on a data frame, a pickle on arrays, ONNX with weights beside it, an exported torch program, and pyfunc out
    of code and out of a pickle: registered by name over HTTP, put on a route, asked what MLflow was asked."""
    asked = {"source": f"mlflow:models:/{kind}/1", "own_environment": False}
    made = gateway.admin("POST", f"/models/{kind}/versions", asked, expect=201, timeout=300.0)
    assert (made["imported"]["name"], made["imported"]["version"]) == (kind, "1")
    gateway.put_route(kind, {"model": kind, "split": [{"version": made["version"], "weight": 100}]})
    loaded = lambda: gateway.resident().get(f"{kind}/{made['version']}", {}).get("state") == "active"  # noqa: E731
    wait_until(loaded, within_s=300.0, what="the version in service")
    answer = gateway.client.post(f"/predict/{kind}", json={"inputs": trained[kind]["inputs"]}, timeout=60.0)
    assert answer.status_code == 200, answer.text
    outputs = answer.json()["outputs"]
    assert outputs.keys() == trained[kind]["outputs"].keys()
    for name, expected in trained[kind]["outputs"].items():
        if isinstance(expected[0], str):
            assert outputs[name] == expected
        else:
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-6)


def test_what_mlflow_knows_of_a_version_becomes_its_lineage(
    trained: Mapping[str, Any], access: SourceAccess, tmp_path: Path
) -> None:
    """Commit, parameters, dataset, requirements, run, metrics, who it is there; the alias is no part of the version."""
    with opened("mlflow:models:/columns@champion", access=access) as source:
        assert source.provenance is not None
        lineage, evaluation = source.provenance.lineage, source.provenance.evaluation
        assert source.provenance.alias == "champion"
        assert source.provenance.environment is not None
        lock = source.provenance.environment.read_text()
        assert source.provenance.remarks == ("metric broken is nan in MLflow, which is no figure; it was left out",)
    assert (lineage["code"]["commit"], lineage["code"]["repository"]) == (COMMIT, "https://git/x")
    values = lineage["parameters"]["values"]
    assert (values["C"], values["max_iter"], lineage["parameters"]["seeds"]) == ("1.0", "500", {"random_state": "7"})
    dataset = lineage["data"][0]
    assert (dataset["name"], dataset["rows"], dataset["context"]) == ("iris", 150, "training")
    assert dataset["digest"]
    assert lineage["environment"]["packages"]["scikit-learn"] == version("scikit-learn")
    assert lineage["run"]["system"] == "mlflow"
    assert lineage["run"]["id"]
    assert "holdout_accuracy" in {record.metric for record in evaluation}
    assert lock.startswith("# python 3.")
    assert f"scikit-learn=={version('scikit-learn')}\n" in lock


def test_the_same_version_by_alias_by_number_and_again_is_one_version(
    trained: Mapping[str, Any], access: SourceAccess, tmp_path: Path
) -> None:
    """What is true of the import only (alias, time) is in the catalogue, not in the digest."""
    by_alias = _prepared("mlflow:models:/columns@champion", access, tmp_path / "home")
    by_number = _prepared("mlflow:models:/columns/1", access, tmp_path / "home")
    assert by_alias.manifest.digest == by_number.manifest.digest
    assert (by_alias.imported or {})["alias"] == "champion"
    assert (by_number.imported or {})["alias"] is None
    source = by_number.manifest.lineage.source
    assert (source["system"], source["name"], source["version"]) == ("mlflow", "columns", "1")
    assert source["url"].endswith("/#/models/columns/versions/1")


_IN_DVC = """
import pathlib, shutil, subprocess, sys
from dvc.repo import Repo
folder, original = pathlib.Path(sys.argv[1]), sys.argv[2]
git = lambda *words: subprocess.run(["git", "-C", str(folder), *words], check=True)
folder.mkdir()
git("init", "-q")
Repo.init(str(folder)).close()
remote = "[core]\\n    remote = store\\n['remote \\"store\\"']\\n    url = ../../remote\\n"
(folder / ".dvc" / "config").write_text(remote)
shutil.copy(original, folder)
with Repo(str(folder)) as repo:
    repo.add(str(folder / pathlib.Path(original).name))
    repo.push()
git("add", "-A")
git("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "a model")
"""


def test_the_same_bytes_from_a_file_from_mlflow_and_from_dvc_are_stored_once(
    trained: Mapping[str, Any], access: SourceAccess, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """Three versions, since each says where it comes from; the same digest and one copy of their file."""
    imported = _prepared("mlflow:models:/columns/1", access, tmp_path / "home").manifest
    model = trained["columns"]["uri"].removeprefix("models:/")
    original = next(mlflow_server.artifacts.rglob(f"{model}/artifacts/model.skops"))
    repository = tmp_path / "repository"
    made = [sys.executable, "-c", _IN_DVC, str(repository), str(original)]
    quiet = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    done = subprocess.run(made, check=False, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    signature = tmp_path / "signature.json"
    signature.write_text(json.dumps(imported.signature.to_json()))
    others = [
        _prepared(place, access, tmp_path / "home", signature=signature).manifest
        for place in (str(original), f"dvc:{repository}:model.skops")
    ]
    assert [manifest.files for manifest in others] == [imported.files] * 2
    assert len({manifest.digest for manifest in (imported, *others)}) == 3
    stored = [entry for entry in BlobStore(tmp_path / "home").entries() if entry.size_bytes == original.stat().st_size]
    assert len(stored) == 1


def test_a_logged_model_and_a_runs_model_are_found_by_their_own_names(
    trained: Mapping[str, Any], access: SourceAccess, mlflow_server: MlflowServer
) -> None:
    """``models:/m-…`` and ``runs:/RUN/model``, which MLflow 3 keeps in one place: the same files."""
    uri = trained["columns"]["uri"]
    with opened(f"mlflow:{uri}", access=access) as source:
        assert source.provenance is not None
        run, bytes_ = source.provenance.lineage["run"]["id"], source.files[0].path.read_bytes()
        assert source.provenance.identity["version"] == uri.removeprefix("models:/")
    with opened(f"mlflow:runs:/{run}/model", access=access) as source:
        assert source.files[0].path.read_bytes() == bytes_
        assert source.provenance is not None
        assert source.provenance.identity["name"] == f"runs:/{run}/model"


def test_an_alias_is_resolved_cheaply_and_follows_what_is_done_there(
    trained: Mapping[str, Any], access: SourceAccess, mlflow_server: MlflowServer
) -> None:
    """Nothing is fetched; identity and alias are those that an import would have."""
    mlflow_server.set_alias("graph", "best", 1)
    found = resolve_source("mlflow:models:/graph@best", access)
    assert (found.identity["name"], found.identity["version"], found.alias) == ("graph", "1", "best")
    assert access.folder is not None
    assert not access.folder.exists() or not list(access.folder.iterdir())


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("models:/nobody@champion", "not found"),
        ("models:/columns@nobody", "not found"),
        ("models:/columns/77", "not found"),
        ("models:/columns/Production", "stages are deprecated"),
        ("models:columns", "is no name of MLflow's"),
        ("runs:/" + "0" * 32 + "/model", "not found"),
        ("models:/m-" + "0" * 32, "not found"),
    ],
)
def test_what_mlflow_does_not_have_is_refused_in_words(
    place: str, words: str, trained: Mapping[str, Any], access: SourceAccess
) -> None:
    """With MLflow's own, where it has some."""
    with pytest.raises(InvalidRegistration, match=words), opened(f"mlflow:{place}", access=access):
        pass


def test_a_pickle_without_leave_is_refused_whatever_loads_it(
    trained: Mapping[str, Any], access: SourceAccess, tmp_path: Path
) -> None:
    """A scikit-learn model by its flavor, and a pyfunc whose class is in a pickle."""
    for name in ("arrays", "pickled"):
        with pytest.raises(InvalidRegistration, match=r"Loading a pickle runs whatever code"):
            _prepared(f"mlflow:models:/{name}/1", access, tmp_path / "home")
    assert not list((tmp_path / "home").glob("fetching-*"))


def test_a_version_overwritten_in_place_is_refused_and_names_the_one_that_keeps(
    trained: Mapping[str, Any], mlflow_server: MlflowServer, gateway: LiveGateway
) -> None:
    """MLflow keeps no digest of a version's files: whoever can write there can change what ``graph/1`` means."""
    asked = {"source": "mlflow:models:/graph/1", "own_environment": False}
    kept = gateway.admin("POST", "/models/kept/versions", asked, expect=201, timeout=300.0)
    model = trained["graph"]["uri"].removeprefix("models:/")
    data = next(mlflow_server.artifacts.rglob(f"{model}/artifacts/*.data"))
    before = data.read_bytes()
    data.write_bytes(bytes(reversed(before)))
    try:
        refused = gateway.admin("POST", "/models/kept/versions", asked, expect=422, timeout=300.0)
    finally:
        data.write_bytes(before)
    assert "graph version 1 was overwritten in place" in refused["detail"]
    assert f"imported as kept/{kept['version']}, which keeps them" in refused["detail"]
    again = gateway.admin("POST", "/models/kept/versions", asked, expect=200, timeout=300.0)
    assert again["digest"] == kept["digest"]


class _Between(BaseHTTPRequestHandler):
    """Passes calls on to MLflow; before the first download of a file, somebody does something there."""

    target = ""
    happening: Callable[[], object] | None = None

    def do_GET(self) -> None:
        between = type(self)
        if between.happening is not None and "/mlflow-artifacts/artifacts/" in self.path:
            happening, between.happening = between.happening, None
            happening()
        answer = httpx.get(f"{self.target}{self.path}", timeout=120.0)
        self.send_response(answer.status_code)
        self.send_header("content-type", answer.headers.get("content-type", ""))
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@contextmanager
def _meanwhile(server: MlflowServer, happening: Callable[[], object], folder: Path) -> Iterator[SourceAccess]:
    _Between.target, _Between.happening = server.url, happening
    with ThreadingHTTPServer(("127.0.0.1", 0), _Between) as between:
        thread = threading.Thread(target=between.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        uri = f"http://127.0.0.1:{between.server_port}"
        try:
            yield SourceAccess(settings={"mlflow": {"tracking_uri": uri}}, folder=folder)
        finally:
            between.shutdown()
            thread.join()
    assert _Between.happening is None, "nothing was downloaded"


def test_an_alias_that_moves_during_an_import_changes_nothing_of_it(
    trained: Mapping[str, Any], mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """It was resolved once: the version that it pointed at is imported, and the move is said."""
    mlflow_server.register_again("graph")
    mlflow_server.set_alias("graph", "moving", 1)
    move = lambda: mlflow_server.set_alias("graph", "moving", 2)  # noqa: E731 - what happens meanwhile
    with (
        _meanwhile(mlflow_server, move, tmp_path) as access,
        opened("mlflow:models:/graph@moving", access=access) as source,
    ):
        assert source.provenance is not None
        assert source.provenance.identity["version"] == "1"
        (remark,) = [text for text in source.provenance.remarks if "alias" in text]
    assert "pointed at version 1 of graph when the import began, and at 2 when it ended" in remark


def test_files_that_change_during_an_import_are_refused(
    trained: Mapping[str, Any], mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """Half of the old and half of the new would be no model of anybody's."""
    model = trained["graph"]["uri"].removeprefix("models:/")
    added = next(mlflow_server.artifacts.rglob(f"{model}/artifacts/MLmodel")).with_name("more.txt")
    try:
        with (
            _meanwhile(mlflow_server, lambda: added.write_text("more"), tmp_path) as access,
            pytest.raises(InvalidRegistration, match="changed in MLflow while they were downloaded"),
            opened("mlflow:models:/graph/1", access=access),
        ):
            pass
    finally:
        added.unlink(missing_ok=True)


def test_what_was_deleted_in_mlflow_does_not_keep_the_rest_from_being_told(
    trained: Mapping[str, Any], mlflow_server: MlflowServer, access: SourceAccess
) -> None:
    """A model, a version and an alias that MLflow does not take are named; the other writes are made."""
    writes = [
        {"name": "deleted", "aliases": {"champion": "1"}, "dropped": {}, "tags": {}},
        {
            "name": "graph",
            "aliases": {"v1": "1", "told": "1"},
            "dropped": {},
            "tags": {"77": {"turnout.route.x": "known good"}, "1": {"turnout.route.x": "known good"}},
        },
    ]
    refused = tell_mlflow(writes, access)
    assert [text.partition(":")[0] for text in refused] == ["deleted", "graph", "graph 77"]
    assert mlflow_server.aliases("graph")["told"] == "1"
    assert mlflow_server.tags("graph", 1)["turnout.route.x"] == "known good"


def test_a_server_that_is_gone_is_told_from_a_version_that_is_not_there(tmp_path: Path) -> None:
    """Whoever follows it comes back; nothing is concluded from silence."""
    access = SourceAccess(settings={"mlflow": {"tracking_uri": "http://127.0.0.1:9"}}, folder=tmp_path)
    with pytest.raises(SourceUnavailable, match=r"MLflow at http://127.0.0.1:9 does not answer"):
        resolve_source("mlflow:models:/columns@champion", access)


def test_where_no_mlflow_is_named_none_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own default is a new database in whatever folder it runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InvalidRegistration, match=r"set registry.mlflow.tracking_uri"):
        resolve_source("mlflow:models:/columns@champion", SourceAccess())
    assert not list(tmp_path.iterdir())


def test_an_interpreter_without_mlflow_says_what_to_install(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """MLflow's pins clash with others', so that it often lives in an interpreter of its own."""
    access = SourceAccess(interpreters={"mlflow": "/usr/bin/python3"}, folder=tmp_path)
    if shutil.which("/usr/bin/python3") is None:
        pytest.skip("no second Python here")
    with pytest.raises(InvalidRegistration, match=r"install turnout\[mlflow\], or name an interpreter"):
        resolve_source("mlflow:models:/columns@champion", access)


def _laughs() -> str:
    """Each line names the one before it ten times: thirty lines of YAML that are 10^30 items."""
    lines = ["- &laugh0 ha", *(f"- &laugh{n} [{', '.join([f'*laugh{n - 1}'] * 10)}]" for n in range(1, 30))]
    return "\n".join([*lines, "- &laughs [*laugh29]"])


def test_a_model_file_that_names_what_is_not_its_own_is_refused(
    trained: Mapping[str, Any], access: SourceAccess, mlflow_server: MlflowServer
) -> None:
    """MLmodel is the author's text: a path out of the folder, a nest without end, no mapping at all."""
    model = trained["columns"]["uri"].removeprefix("models:/")
    path = next(mlflow_server.artifacts.rglob(f"{model}/artifacts/MLmodel"))
    before = path.read_text()
    hostile = {
        before.replace(
            "pickled_model: model.skops", "pickled_model: ../../../mlflow.db"
        ): "not among the model's files",
        "[" * 100_000: "mlflow:models:/columns/1: ",
        "{flavors: {nonsense: {}}}": "its flavors are nonsense",
        "- 1": "no mapping",
        before.replace("pickled_model: model.skops", "pickled_model: *laughs").replace(
            "flavors:", f"jokes:\n{_laughs()}\nflavors:", 1
        ): "unfolds into over",
    }
    try:
        for text, words in hostile.items():
            path.write_text(text)
            with pytest.raises(InvalidRegistration, match=words), opened("mlflow:models:/columns/1", access=access):
                pass
    finally:
        path.write_text(before)


def test_files_of_this_machine_are_read_only_where_the_settings_allow(tmp_path: Path) -> None:
    """A server without artifacts of its own names folders; over the network not any folder is opened."""
    with MlflowServer(tmp_path / "mlflow", proxied=False) as server:
        server.train("graph")
        settings = {"mlflow": {"tracking_uri": server.url}}
        free = SourceAccess(settings=settings, folder=tmp_path / "fetched")
        with opened("mlflow:models:/graph/1", access=free) as source:
            assert source.format == "onnx"
        held = SourceAccess(settings=settings, folder=tmp_path / "fetched", directories=(tmp_path / "elsewhere",))
        with (
            pytest.raises(InvalidRegistration, match=r"registry.source_directories does not allow"),
            opened("mlflow:models:/graph/1", access=held),
        ):
            pass
        first = server.call("GET", "model-versions/get?name=graph&version=1")["model_version"]
        run = server.call("GET", f"runs/get?run_id={first['run_id']}")["run"]["info"]
        (Path(run["artifact_uri"].removeprefix("file://")) / "model").mkdir(parents=True)
        by_way = {"name": "graph", "source": f"runs:/{first['run_id']}/model", "run_id": first["run_id"]}
        made = server.call("POST", "model-versions/create", by_way)["model_version"]
        with (
            pytest.raises(InvalidRegistration, match=r"registry.source_directories does not allow"),
            opened(f"mlflow:models:/graph/{made['version']}", access=held),
        ):
            pass
