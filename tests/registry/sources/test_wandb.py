"""Sources in Weights & Biases: the unmodified SDK against a stand-in of the calls that it makes."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from gateway.errors import InvalidRegistration, SourceUnavailable
from gateway.registry.lineage.kinds import read_kinds
from gateway.registry.sources import Source, SourceAccess, opened, resolve_source
from gateway.registry.sources.clients.wandb_client.place import Place, parse
from loadtests.live_gateway import wait_until
from tests.listening import nobody
from tests.registry.sources.wandb_stand_in import API_KEY, Artifact, Run, WandbStandIn

pytestmark = pytest.mark.timeout(600)  # each question starts the SDK, wherever the machine is busy

PLACE = "wandb:acme/fraud/model"
FILES = {"model.py": b"class Model: ...", "weights/centroids.json": b"[[1, 2], [3, 4]]"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbStandIn]:
    """With a training data set, and a model that a run made of it; the SDK finds both address and key by itself."""
    with WandbStandIn() as running:
        data = running.add(Artifact("payments", 3, {"train.csv": b"a,b\n1,2\n"}, type="dataset"))
        run = Run(
            "r4n",
            config={"depth": 3, "rate": 0.1, "seed": 7, "layers": [8, 8], "never": float("nan")},
            summary={"accuracy": 0.91, "val": {"auc": 0.8}, "_step": 12, "curve": {"_type": "table"}},
            commit="6d8a5c1f",
            metadata={
                "git": {"remote": "https://host/acme/fraud.git", "commit": "6d8a5c1f"},
                "program": "train.py",
                "args": ["--fast"],
                "python": "3.11.7",
                "os": "Linux-6.1",
            },
            used=[data],
        )
        running.add(Artifact("model", 0, FILES, run=run, aliases={"prod"}))
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield running


@pytest.fixture
def access(tmp_path: Path) -> SourceAccess:
    return SourceAccess(folder=tmp_path / "fetching", timeout_s=100, resolve_timeout_s=100)


def _read(source: Source) -> dict[str, bytes]:
    return {file.name: file.path.read_bytes() for file in source.files}


def _fetch(place: str, access: SourceAccess) -> None:
    with opened(place, access=access):
        pass


def test_an_artifact_comes_with_the_run_that_logged_it(server: WandbStandIn, access: SourceAccess) -> None:
    """Files by their bytes; configuration, summary, commit, program and used artifacts as lineage; the alias beside."""
    with opened(f"{PLACE}:prod", access=access) as source:
        assert _read(source) == FILES
        assert (source.entry, source.format) == ("model.py", "python")
        provenance = source.provenance
    assert provenance is not None
    artifact, data = server.artifacts[1], server.artifacts[0]
    assert dict(provenance.identity) == {
        "system": "wandb",
        "name": "acme/fraud/model",
        "version": "v0",
        "digest": artifact.digest,
        "algorithm": "md5",
        "url": f"{server.url}/acme/fraud/artifacts/model/model/v0",
    }
    assert provenance.alias == "prod"
    kinds = read_kinds(provenance.lineage)
    assert (kinds.code.repository, kinds.code.commit) == ("https://host/acme/fraud.git", "6d8a5c1f")
    assert kinds.code.entry_point is not None
    assert kinds.code.entry_point.command == ("python", "train.py", "--fast")
    assert [(row.name, row.digest) for row in kinds.data] == [("acme/fraud/payments", f"md5:{data.digest}")]
    values = {name: list(value) if name == "layers" else value for name, value in kinds.parameters.values.items()}
    assert values == {"depth": 3, "rate": 0.1, "layers": [8, 8], "never": "nan"}
    assert dict(kinds.parameters.seeds) == {"seed": 7}
    assert (kinds.environment.python, kinds.environment.os) == ("3.11.7", "Linux-6.1")
    assert (kinds.run.id, kinds.run.system) == ("acme/fraud/r4n", "wandb")
    assert {row.metric: row.value for row in provenance.evaluation} == {"accuracy": 0.91, "val.auc": 0.8}
    assert not list((access.folder or Path()).iterdir()), "the folder of the fetch is gone with it"


def test_an_alias_is_resolved_without_a_file_being_asked_for(server: WandbStandIn, access: SourceAccess) -> None:
    """What a follower polls with: four questions, and no files. A version is no alias, since it never moves."""
    found = resolve_source(f"{PLACE}:prod", access)
    assert (found.identity["version"], found.alias) == ("v0", "prod")
    assert server.asked == ["Viewer", "GetDefaultEntity", "ServerFeaturesQuery", "ArtifactMembershipByName"]
    server.move("prod", server.add(Artifact("model", 1, {"model.py": b"new"})))
    assert resolve_source(f"{PLACE}:prod", access).identity["version"] == "v1"
    assert resolve_source(f"{PLACE}:v0", access).alias is None


def test_an_alias_that_moves_meanwhile_is_pinned_and_said(server: WandbStandIn, access: SourceAccess) -> None:
    """The version that it meant at first is taken as a whole."""
    newer = server.add(Artifact("model", 1, {"model.py": b"new"}))

    def moving(query: str) -> None:
        if query == "FetchArtifactManifest":
            server.move("prod", newer)

    server.before = moving
    with opened(f"{PLACE}:prod", access=access) as source:
        assert _read(source) == FILES
        assert source.provenance is not None
        assert source.provenance.identity["version"] == "v0"
        assert source.provenance.remarks == (
            "acme/fraud/model:prod moved to v1 while v0 was downloaded, which was taken",
        )


def test_a_manifest_with_a_wrong_digest_is_refused(server: WandbStandIn, access: SourceAccess) -> None:
    """The artifact's digest is of the manifest; one of them was changed."""
    artifact = server.artifacts[1]
    artifact.digest, right = "0" * 32, artifact.digest
    with pytest.raises(InvalidRegistration, match=rf"manifest's digest is {right}, and the artifact's is 0000"):
        _fetch(f"{PLACE}:prod", access)
    artifact.digest = right
    artifact.entries["model.py"] = {"digest": "AAAAAAAAAAAAAAAAAAAAAA==", "size": 16}
    with pytest.raises(InvalidRegistration, match=rf"and the artifact's is {right}"):
        _fetch(f"{PLACE}:prod", access)


def test_a_file_that_is_not_what_the_manifest_says_is_refused(server: WandbStandIn, access: SourceAccess) -> None:
    """The SDK compares no digest of what it downloads; here every file is hashed."""
    server.artifacts[1].files = {**FILES, "weights/centroids.json": b"[[9, 9], [9, 9]]"}
    with pytest.raises(InvalidRegistration, match=r"weights/centroids.json: the file's MD5 is .* manifest says"):
        _fetch(f"{PLACE}:prod", access)


def test_an_artifact_with_references_is_refused_by_name(server: WandbStandIn, access: SourceAccess) -> None:
    """W&B keeps neither the bytes nor a hash of what a reference points at."""
    artifact = server.artifacts[1]
    artifact.entries["big.bin"] = {"digest": "some-etag", "ref": "s3://bucket/big.bin", "size": 5}
    artifact.digest = artifact.own_digest()
    with pytest.raises(InvalidRegistration, match=r"holds references \(big.bin is s3://bucket/big.bin\).*add_file"):
        _fetch(f"{PLACE}:prod", access)


def test_an_entry_of_the_registry_is_the_artifact_that_it_links_to(server: WandbStandIn, access: SourceAccess) -> None:
    """Teams promote in a registry, whose versions are counted anew; the artifact is the same however it is found."""
    for name in ("fraud:prod", "fraud:v4"):
        server.links["wandb-registry-model", name] = server.artifacts[1]
    with opened("wandb:acme/wandb-registry-model/fraud:prod", access=access) as source:
        assert _read(source) == FILES
        provenance = source.provenance
    assert provenance is not None
    assert provenance.identity == resolve_source(f"{PLACE}:v0", access).identity
    assert provenance.alias == "prod"
    assert provenance.lineage["parameters"]["values"]["depth"] == 3


def test_an_artifact_hashed_with_xxh128_is_checked_with_it(server: WandbStandIn, access: SourceAccess) -> None:
    """Newer servers allow it, for manifest and files alike."""
    artifact = server.add(Artifact("model", 1, FILES, algorithm="MANIFEST_XXH128"))
    with opened(f"{PLACE}:v1", access=access) as source:
        assert _read(source) == FILES
        assert source.provenance is not None
        assert (source.provenance.identity["algorithm"], source.provenance.identity["digest"]) == (
            "xxh128",
            artifact.digest,
        )
    artifact.files = {**FILES, "model.py": b"class Other: ..."}
    with pytest.raises(InvalidRegistration, match=r"model.py: the file's XXH128 is"):
        _fetch(f"{PLACE}:v1", access)


def test_a_run_that_was_deleted_takes_the_lineage_along_and_not_the_files(
    server: WandbStandIn, access: SourceAccess
) -> None:
    """Said in a remark; so is an artifact that no run logged. One that was not logged to its end is refused."""
    server.runs.clear()
    with opened(f"{PLACE}:prod", access=access) as source:
        assert _read(source) == FILES
        assert source.provenance is not None
        assert "the run that logged it cannot be read" in source.provenance.remarks[0]
    server.add(Artifact("model", 1, FILES))
    with opened(f"{PLACE}:v1", access=access) as source:
        assert source.provenance is not None
        assert "it has no lineage" in source.provenance.remarks[0]
    server.artifacts[1].state = "PENDING"
    with pytest.raises(InvalidRegistration, match="was not logged to its end"):
        _fetch(f"{PLACE}:prod", access)


def test_secrets_of_a_configuration_are_not_kept(server: WandbStandIn, access: SourceAccess) -> None:
    """A manifest is for many eyes, and for ever."""
    run = server.runs["r4n"]
    run.config = {"depth": 3, "api_key": "s3cret", "store": {"password": "s3cret"}}
    run.metadata = {"git": {"remote": "https://ada:s3cret@host/acme/fraud.git"}, "program": "train.py"}
    with opened(f"{PLACE}:prod", access=access) as source:
        assert source.provenance is not None
        lineage = source.provenance.lineage
    assert "s3cret" not in repr(lineage)
    assert lineage["code"]["repository"] == "https://host/acme/fraud.git"


def test_an_import_that_takes_too_long_leaves_no_process_behind(server: WandbStandIn, tmp_path: Path) -> None:
    """The SDK starts a process in a session of its own, which a signal to the group does not reach."""
    hanging, over = threading.Event(), threading.Event()

    def wait(query: str) -> None:
        if query == "FetchArtifactManifest":
            hanging.set()
            over.wait(300)

    server.before = wait
    for limit in (8, 100):  # the longer one for a machine so slow that the SDK had not asked yet
        impatient = SourceAccess(folder=tmp_path / "fetching", timeout_s=limit)
        with pytest.raises(SourceUnavailable, match=f"within {limit} s"):
            _fetch(f"{PLACE}:prod", impatient)
        if hanging.is_set():
            break
    over.set()
    assert hanging.is_set()
    wait_until(lambda: not _cores(server), within_s=100, what="the end of wandb-core")
    assert not list((tmp_path / "fetching").iterdir())


def _cores(server: WandbStandIn) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "wandb-core" and process.environ().get("WANDB_BASE_URL") == server.url:
                found.append(process.pid)
    return found


def test_a_name_that_leads_out_of_the_folder_writes_nothing_there(
    server: WandbStandIn, access: SourceAccess, tmp_path: Path
) -> None:
    """The manifest is the server's word."""
    outside = tmp_path / "outside.txt"
    name = "../" * 12 + str(outside).lstrip("/")
    server.artifacts.append(Artifact("model", 1, {"model.py": b"x", name: b"planted"}))
    with pytest.raises(InvalidRegistration):
        _fetch(f"{PLACE}:v1", access)
    assert not outside.exists()


def test_a_poisoned_cache_misleads_nobody(
    server: WandbStandIn, access: SourceAccess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK takes a cached file of the right size for the right one; an import has a cache of its own."""
    cache = tmp_path / "cache"
    for entry, poison in zip(
        server.artifacts[1].entries.values(), (b"class Evil: ...!", b"[[6, 6], [6, 6]]"), strict=True
    ):
        md5 = base64.b64decode(entry["digest"]).hex()
        path = cache / "artifacts" / "obj" / "md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(poison)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(cache))
    with opened(f"{PLACE}:prod", access=access) as source:
        assert _read(source) == FILES


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("wandb:acme/fraud/model:nowhere", "not found"),
        ("wandb:acme/elsewhere/model:prod", "project 'elsewhere' not found"),
        ("wandb:model:prod", "names no artifact"),
    ],
)
def test_what_is_not_there_is_said(server: WandbStandIn, access: SourceAccess, place: str, words: str) -> None:
    """A wrong name is no failure of the server's, so that nobody waits for it."""
    with pytest.raises(InvalidRegistration, match=words):
        resolve_source(place, access)


def test_a_wrong_key_is_refused_and_an_outage_is_waited_for(
    server: WandbStandIn, access: SourceAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows an alias goes on asking after the one, and not after the other."""
    server.outage = 503
    with pytest.raises(SourceUnavailable, match="503"):
        resolve_source(f"{PLACE}:prod", access)
    server.outage = None
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    with pytest.raises(InvalidRegistration, match=r"401.*WANDB_API_KEY"):
        resolve_source(f"{PLACE}:prod", access)
    with nobody() as port:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(SourceUnavailable, match="refused"):
            resolve_source(f"{PLACE}:prod", access)


def test_an_import_talks_to_nobody_but_the_server(
    server: WandbStandIn, access: SourceAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports of use and of errors would go out through the proxy, which nobody is let past."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        caught: list[bytes] = []
        watching = threading.Thread(target=_catch, args=(proxy, caught), daemon=True)
        watching.start()
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        _fetch(f"{PLACE}:prod", access)
        server.artifacts[1].digest = "0" * 32
        with pytest.raises(InvalidRegistration):
            _fetch(f"{PLACE}:prod", access)
        proxy.shutdown(socket.SHUT_RDWR)
        watching.join()
    assert caught == []
    assert not [name for name in server.asked if name.startswith("POST")], "nor reports to the server itself"


def _catch(proxy: socket.socket, caught: list[bytes]) -> None:
    while True:
        try:
            connection, _ = proxy.accept()
        except OSError:  # the test is over
            return
        with connection:
            caught.append(connection.recv(1000))


def test_a_name_says_entity_project_name_and_alias() -> None:
    """Without an alias, ``latest``, as W&B has it."""
    assert parse("acme/fraud/model:prod") == Place("acme", "fraud", "model", "prod")
    assert parse("acme/fraud/model") == Place("acme", "fraud", "model", "latest")
    assert parse("acme/fraud/model:v12").is_version
    for wrong in ("model:prod", "a/b/c/d:prod", "a//c:prod", "a/b/c:d/e", "a/b/c:d:e"):
        with pytest.raises(ValueError, match="names no artifact"):
            parse(wrong)
