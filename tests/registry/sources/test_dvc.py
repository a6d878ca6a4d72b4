"""Sources in DVC: a real Git repository, a real pipeline, real remotes; what comes out is what one commit says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.errors import InvalidRegistration, SourceUnavailable
from gateway.registry.lineage.kinds import read_kinds
from gateway.registry.sources import Source, SourceAccess, SourceLimits, opened, resolve_source
from gateway.registry.sources.clients.dvc_client.place import Place, parse
from loadtests.s3_server import S3Server
from tests.listening import nobody

pytestmark = pytest.mark.timeout(600)  # each question starts a client, and projects are made first

MODEL = "models/fraud"


@dataclass(frozen=True)
class Project:
    """A repository with its remote beside it, which moves along when both are copied."""

    repo: Path
    remote: Path
    commits: tuple[str, str]

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.repo), *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def stored(self, md5: str) -> Path:
        """An object of the remote, made writable."""
        path = self.remote / "files" / "md5" / md5[:2] / md5[2:]
        path.chmod(0o644)
        return path

    def python(self, code: str, *arguments: str) -> None:
        """Runs code with DVC and GTO in the repository, in a process of its own."""
        subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.repo,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**_environment(self.repo.parent), **_KEYS},
        )


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "site"), "HOME": str(folder)}


def made(folder: Path, remote: str) -> tuple[str, str]:
    """The project's commits. ``remote`` is read from within ``.dvc``."""
    script = Path(__file__).parent / "dvc_project.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "repo"), remote],
        env=_environment(folder),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = done.stdout.split()
    return one, two


_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Shared: nobody changes it."""
    folder = tmp_path_factory.mktemp("dvc")
    return Project(folder / "repo", folder / "remote", made(folder, "../../remote"))


@pytest.fixture
def own(project: Project, tmp_path: Path) -> Project:
    """A copy for tests that change it."""
    shutil.copytree(project.repo.parent, tmp_path / "own", symlinks=True)
    return Project(tmp_path / "own" / "repo", tmp_path / "own" / "remote", project.commits)


@pytest.fixture
def access(tmp_path: Path) -> SourceAccess:
    return SourceAccess(folder=tmp_path / "fetching", timeout_s=100, resolve_timeout_s=100)


def _read(source: Source) -> dict[str, bytes]:
    return {file.name: file.path.read_bytes() for file in source.files}


def test_a_folder_of_a_commit_comes_with_what_its_stages_say(project: Project, access: SourceAccess) -> None:
    """Bytes as the pipeline made them; commit, tree, code, data, parameters, commands and metrics beside them."""
    with opened(f"dvc:{project.repo}:{MODEL}", access=access) as source:
        assert _read(source) == {path.name: path.read_bytes() for path in (project.repo / MODEL).iterdir()}
        assert (source.entry, source.format) == ("model.py", "python")
        provenance = source.provenance
    assert provenance is not None
    assert dict(provenance.identity) == {
        "system": "dvc",
        "name": f"{project.repo}:{MODEL}",
        "version": project.commits[1],
        "digest": _locked(project)["stages"]["train"]["outs"][0]["md5"],
        "algorithm": "md5",
        "url": str(project.repo),
    }
    assert provenance.alias == "HEAD"
    kinds = read_kinds(provenance.lineage)
    assert (kinds.code.commit, kinds.code.tree) == (project.commits[1], project.git("rev-parse", "HEAD^{tree}"))
    assert kinds.code.clean is True
    assert kinds.code.files.keys() == {"prepare.py", "train.py", "serving.py"}
    assert kinds.code.entry_point is not None
    assert kinds.code.entry_point.command == ("python", "train.py")
    assert {row.name: row.digest for row in kinds.data} == {
        "data/raw.csv": f"md5:{_md5(project.repo / 'data/raw.csv')}",
        "data/train.csv": f"md5:{_md5(project.repo / 'data/train.csv')}",
    }
    assert dict(kinds.parameters.values) == {"train.shrink": 0.9, "prepare.test_rows": 100}
    assert dict(kinds.parameters.seeds) == {"train.seed": 7}
    assert [(row.metric, row.dataset) for row in provenance.evaluation] == [
        ("accuracy", f"md5:{_md5(project.repo / 'data/test.csv')}"),
        ("test.rows", f"md5:{_md5(project.repo / 'data/test.csv')}"),
    ]
    assert not list((access.folder or Path()).iterdir()), "the folder of the fetch is gone with it"


def _locked(project: Project) -> Any:

    return yaml.safe_load((project.repo / "dvc.lock").read_text())


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_two_commits_are_two_versions_that_differ_in_their_data(project: Project, access: SourceAccess) -> None:
    """A revision may be a commit, a shortened one, a branch or a tag; only what can move is an alias."""
    one, two = project.commits
    with opened(f"dvc:{project.repo}@{one}:{MODEL}", access=access) as first:
        older = first.provenance
        bytes_before = _read(first)
    with opened(f"dvc:{project.repo}@main:{MODEL}", access=access) as second:
        newer = second.provenance
        assert _read(second)["centroids.json"] != bytes_before["centroids.json"]
        assert _read(second)["model.py"] == bytes_before["model.py"]
    assert older is not None
    assert newer is not None
    assert (older.identity["version"], older.alias) == (one, None)
    assert (newer.identity["version"], newer.alias) == (two, "main")
    assert older.lineage["data"] != newer.lineage["data"]
    assert older.lineage["parameters"] == newer.lineage["parameters"]
    assert resolve_source(f"dvc:{project.repo}@{one[:10]}:{MODEL}", access).identity == older.identity


def test_names_of_gto_are_commits_and_paths(own: Project, access: SourceAccess) -> None:
    """As ``gto show`` has it: a stage that was withdrawn names nothing, though its tag is still there."""
    for name, alias in (("fraud@v1.0.0", None), ("fraud#prod", "prod"), ("fraud@latest", "latest")):
        found = resolve_source(f"dvc:{own.repo}:{name}", access)
        assert (found.identity["version"], found.identity["name"], found.alias) == (
            "v1.0.0",
            f"{own.repo}:fraud",
            alias,
        )
    with opened(f"dvc:{own.repo}:fraud#prod", access=access) as source:
        assert source.provenance is not None
        assert source.provenance.lineage["code"]["commit"] == own.commits[0]
    own.python("import gto.api; gto.api.unassign('.', 'fraud', stage='prod', version='v1.0.0')")
    assert "fraud#prod#1" in own.git("tag")
    with pytest.raises(InvalidRegistration, match=r"has no fraud#prod in force"):
        resolve_source(f"dvc:{own.repo}:fraud#prod", access)
    with pytest.raises(InvalidRegistration, match=r"no artifact 'nobody'|nobody@v1.0.0"):
        resolve_source(f"dvc:{own.repo}:nobody@v1.0.0", access)


def test_a_tree_with_changes_that_no_commit_holds_is_refused(own: Project, access: SourceAccess) -> None:
    """What lies there must be what the commit says, unless a commit is named."""
    place = f"dvc:{own.repo}:{MODEL}"
    (own.repo / "train.py").write_text("print('changed')")
    with pytest.raises(InvalidRegistration, match=r"changes that no commit holds \(train.py\).*@HEAD"):
        resolve_or_fetch(place, access)
    own.git("checkout", "-q", "train.py")
    (own.repo / "other.csv.dvc").write_text("outs: []")
    with pytest.raises(InvalidRegistration, match=r"other.csv.dvc"):
        resolve_or_fetch(place, access)
    (own.repo / "other.csv.dvc").unlink()
    (own.repo / "scratch.txt").write_text("a file of nobody's interest")
    (own.repo / MODEL / "centroids.json").write_text("[[9, 9], [0, 0]]")
    with pytest.raises(InvalidRegistration, match=r"centroids.json: what lies in .* not what the commit says"):
        resolve_or_fetch(place, access)
    with opened(f"dvc:{own.repo}@HEAD:{MODEL}", access=access) as source:
        assert b"9, 9" not in _read(source)["centroids.json"]


def resolve_or_fetch(place: str, access: SourceAccess) -> None:
    with opened(place, access=access):
        pass


def test_a_remote_whose_file_was_changed_is_refused(own: Project, access: SourceAccess) -> None:
    """DVC takes the remote at its word; the hash is computed here."""
    centroids = _md5(own.repo / MODEL / "centroids.json")
    own.stored(centroids).write_text("[[1, 1], [0, 0]]")
    with pytest.raises(InvalidRegistration, match=rf"centroids.json: the remote's file has md5 .* says {centroids}"):
        resolve_or_fetch(f"dvc:{own.repo}:{MODEL}", access)


def test_a_remote_whose_listing_of_a_folder_was_changed_is_refused(own: Project, access: SourceAccess) -> None:
    """A folder's listing is a file like any other: with another name in it, another file would be loaded."""
    folder = str(resolve_source(f"dvc:{own.repo}:{MODEL}", access).identity["digest"])
    listing = own.stored(folder)
    listing.write_text(listing.read_text().replace("centroids.json", "renamed.json"))
    with pytest.raises(InvalidRegistration, match=rf"listing of the folder has md5 .* says {folder}"):
        resolve_or_fetch(f"dvc:{own.repo}@HEAD:{MODEL}", access)


def test_a_file_that_was_never_pushed_is_said_with_what_to_do(own: Project, access: SourceAccess) -> None:
    """``dvc push`` was forgotten."""
    own.stored(_md5(own.repo / MODEL / "model.py")).unlink()
    with pytest.raises(InvalidRegistration, match=r"model.py: .* no remote of the repository has it; run `dvc push`"):
        resolve_or_fetch(f"dvc:{own.repo}:{MODEL}", access)


def test_a_poisoned_cache_misleads_nobody(own: Project, access: SourceAccess) -> None:
    """The repository's own cache holds wrong bytes under the right name; the import has a cache of its own."""
    wanted = (own.repo / MODEL / "centroids.json").read_bytes()
    md5 = hashlib.md5(wanted, usedforsecurity=False).hexdigest()
    cached = own.repo / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    cached.chmod(0o644)
    cached.write_text("[[1, 1], [0, 0]]")
    with opened(f"dvc:{own.repo}@HEAD:{MODEL}", access=access) as source:
        assert _read(source)["centroids.json"] == wanted
    assert not list(own.repo.glob(".dvc/tmp/*")) or own.git("status", "--porcelain") == ""


def test_a_repository_without_a_remote_gives_what_its_own_cache_has(own: Project, access: SourceAccess) -> None:
    """As DVC itself does for a repository on this machine."""
    (own.repo / ".dvc" / "config").write_text("")
    own.git("commit", "-qam", "no remote")
    with opened(f"dvc:{own.repo}:{MODEL}", access=access) as source:
        assert _read(source).keys() == {"model.py", "centroids.json"}


def test_a_repository_elsewhere_is_fetched_as_one_commit(own: Project, access: SourceAccess) -> None:
    """Shallow for a branch or a tag, whole for a shortened commit; GTO's tags come along. Its remote is absolute."""
    (own.repo / ".dvc" / "config").write_text(f"[core]\n    remote = s\n['remote \"s\"']\n    url = {own.remote}\n")
    own.git("commit", "-qam", "an absolute remote")
    bare = own.repo.parent / "bare.git"
    own.git("clone", "-q", "--bare", str(own.repo), str(bare))
    head = own.git("rev-parse", "HEAD")
    for revision in ("", f"@{head[:9]}"):
        found = resolve_source(f"dvc:file://{bare}{revision}:{MODEL}", access)
        assert found.identity["version"] == head, revision
    assert resolve_source(f"dvc:{bare}:fraud#prod", access).identity["version"] == "v1.0.0"
    with opened(f"dvc:{bare}@main:{MODEL}", access=access) as source:
        assert _read(source).keys() == {"model.py", "centroids.json"}
    with pytest.raises(InvalidRegistration, match=r"no revision 'nowhere'"):
        resolve_source(f"dvc:{bare}@nowhere:{MODEL}", access)


def test_a_host_that_does_not_answer_is_unavailable_and_nothing_else(access: SourceAccess) -> None:
    """Who follows it waits; nothing is refused for good."""
    with nobody() as port, pytest.raises(SourceUnavailable, match=r"127.0.0.1"):
        resolve_source(f"dvc:http://127.0.0.1:{port}/models.git:{MODEL}", access)


def test_files_that_git_keeps_are_taken_too_and_links_are_not(own: Project, access: SourceAccess) -> None:
    """A folder may hold both; Git's own id is their hash. Tools' files are no part of a version."""
    (own.repo / "both").mkdir()
    (own.repo / "both" / "model.py").write_text("# kept in Git")
    (own.repo / "both" / "weights.bin").write_bytes(b"kept by DVC")
    own.python("from dvc.repo import Repo; r = Repo('.'); r.add('both/weights.bin'); r.push()")
    own.git("add", "both")
    own.git("commit", "-qm", "both")
    with opened(f"dvc:{own.repo}:both", access=access) as source:
        assert _read(source) == {"model.py": b"# kept in Git", "weights.bin": b"kept by DVC"}
        assert source.provenance is not None
        assert source.provenance.identity["algorithm"] == "sha256-of-listing"
    (own.repo / "both" / "link.py").symlink_to("/etc/hostname")
    own.git("add", "both")
    own.git("commit", "-qm", "a link")
    with pytest.raises(InvalidRegistration, match=r"both/link.py is a symbolic link"):
        resolve_or_fetch(f"dvc:{own.repo}:both", access)


def test_what_was_imported_from_another_repository_keeps_its_locked_commit(
    own: Project, access: SourceAccess, tmp_path: Path
) -> None:
    """``dvc import`` writes ``rev_lock``: it is the version's parent, and its bytes are checked as all others are."""
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "-C", str(other), "init", "-q", "-b", "main"], check=True)
    for name, value in (("user.email", "a@example.com"), ("user.name", "Ada")):
        subprocess.run(["git", "-C", str(other), "config", name, value], check=True)
    there = Project(other, own.remote, own.commits)
    there.python(
        "import sys; from dvc.repo import Repo; r = Repo.init('.');"
        f"r.imp(sys.argv[1], '{MODEL}', out='taken', rev='fraud@v1.0.0')",
        str(own.repo),
    )
    there.git("add", "-A")
    there.git("commit", "-qm", "imported")
    with opened(f"dvc:{other}:taken", access=access) as source:
        assert _read(source).keys() == {"model.py", "centroids.json"}
        assert source.provenance is not None
        parent = source.provenance.lineage["parent"]
    assert parent["rev_lock"] == own.commits[0]
    assert (parent["repository"], parent["path"], parent["rev"]) == (str(own.repo), MODEL, "fraud@v1.0.0")


def test_a_repository_may_hold_several_projects(own: Project, access: SourceAccess, tmp_path: Path) -> None:
    """Named by the repository's top or by the project's folder, it is one model, with the project's own remote."""
    mono = tmp_path / "mono"
    mono.mkdir()
    shutil.copytree(own.repo, mono / "fraud", ignore=shutil.ignore_patterns(".git", "cache", "tmp"))
    shutil.copytree(own.remote, mono / "stored")
    (mono / "fraud" / ".dvc" / "config").write_text(
        "[core]\n    remote = s\n['remote \"s\"']\n    url = ../../stored\n"
    )
    (mono / ".gitignore").write_text("stored\n")
    top = Project(mono, mono / "stored", own.commits)
    for words in (["init", "-q", "-b", "main"], ["config", "user.email", "a@b.c"], ["config", "user.name", "A"]):
        top.git(*words)
    top.git("add", "-A")
    top.git("commit", "-qm", "one of several")
    with opened(f"dvc:{mono}:fraud/{MODEL}", access=access) as source:
        files, whole = _read(source), source.provenance
    with opened(f"dvc:{mono / 'fraud'}:{MODEL}", access=access) as source:
        assert _read(source) == files
        part = source.provenance
    assert files.keys() == {"model.py", "centroids.json"}
    assert whole is not None
    assert part is not None
    assert whole.identity["digest"] == part.identity["digest"]
    assert {row["name"] for row in part.lineage["data"]} == {"fraud/data/raw.csv", "fraud/data/train.csv"}
    assert part.lineage["parameters"] == whole.lineage["parameters"]


def test_a_listing_that_leads_out_of_its_folder_writes_nothing_there(
    own: Project, access: SourceAccess, tmp_path: Path
) -> None:
    """Whoever writes commits can make every hash fit; names are still checked before a byte is written."""
    outside = tmp_path / "outside.txt"
    data = b"planted"
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    rows = [{"md5": md5, "relpath": "../" * 12 + str(outside).lstrip("/")}, {"md5": md5, "relpath": "model.py"}]
    listing = json.dumps(rows, sort_keys=True).encode()
    folder = hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
    for name, body in ((md5, data), (folder, listing)):
        path = own.remote / "files" / "md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    (own.repo / "planted.dvc").write_text(
        f"outs:\n- md5: {folder}\n  size: 14\n  nfiles: 2\n  hash: md5\n  path: planted\n"
    )
    own.git("add", "planted.dvc")
    own.git("commit", "-qm", "planted")
    with pytest.raises(InvalidRegistration):
        resolve_or_fetch(f"dvc:{own.repo}:planted", access)
    assert not outside.exists()


def test_more_than_is_taken_for_one_version_is_refused_before_it_is_fetched(
    project: Project, access: SourceAccess
) -> None:
    """The commit knows what it has."""
    with (
        pytest.raises(InvalidRegistration, match=r"at most 1 files|or 1 files"),
        opened(f"dvc:{project.repo}:{MODEL}", access=access, limits=SourceLimits(files=1)),
    ):
        pass


def test_a_repository_outside_the_folders_that_may_be_read_is_refused(project: Project, tmp_path: Path) -> None:
    """Over the network, a name of this machine reaches no further than ``file:`` does."""
    closed = SourceAccess(folder=tmp_path / "fetching", directories=(tmp_path,))
    with pytest.raises(InvalidRegistration, match=r"outside the folders that may be registered from"):
        resolve_source(f"dvc:{project.repo}:{MODEL}", closed)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/srv/models:m.onnx", Place("/srv/models", path="m.onnx")),
        ("/srv/models@v1.2:out/m.onnx", Place("/srv/models", "v1.2", "out/m.onnx")),
        ("https://host/o/r.git@feature/x:m", Place("https://host/o/r.git", "feature/x", "m")),
        ("https://host/@o/r@main:m", Place("https://host/@o/r", "main", "m")),
        ("git@host:o/r.git:m", Place("git@host:o/r.git", path="m")),
        ("git@host:o/r.git@abc:m", Place("git@host:o/r.git", "abc", "m")),
        ("ssh://git@host:22/r:fraud#prod", Place("ssh://git@host:22/r", artifact="fraud", stage="prod")),
        ("https://host/r:fraud@v1.2.0", Place("https://host/r", artifact="fraud", version="v1.2.0")),
        ("https://host/r:eu/x=fraud@latest", Place("https://host/r", artifact="eu/x=fraud", version="latest")),
        ("https://host/r:./fraud#prod", Place("https://host/r", path="fraud#prod")),
        ("file:///srv/r.git@main:m", Place("/srv/r.git", "main", "m")),
    ],
)
def test_a_name_says_repository_revision_and_path(text: str, place: Place) -> None:
    """Hosts, folders and tags may have an ``@`` of their own."""
    assert parse(text) == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://host/r.git", "names no file of a repository"),
        ("/srv/models:", "names no file"),
        ("/srv/models:../x", "leads out of the repository"),
        ("/srv/models:/etc/passwd", "leads out of the repository"),
        ("ext::sh -c evil:m", "no repository that is taken"),
        ("--upload-pack=evil:m", "no repository that is taken"),
        ("ftp://host/r:m", "ftp: is no transport"),
        ("https://ada:secret@host/r:m", "password in it"),
        ("https://host/r@--exec=x:m", "revision '--exec=x' is none that is taken"),
        ("https://host/r@a..b:m", "is none that is taken"),
        ("https://host/r@main:fraud@v1.2.0", "says the commit itself"),
    ],
)
def test_a_name_that_could_mean_something_else_is_refused(text: str, words: str) -> None:
    """Nothing of a name becomes an option of Git's, a program, or a secret that is kept."""
    with pytest.raises(ValueError, match=words) as refused:
        parse(text)
    assert "secret" not in str(refused.value)


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("moto")) as server:
        server.make_bucket("models")
        yield server


def test_a_remote_in_an_object_store_is_read_checked_and_missed(
    object_store: S3Server,
    own: Project,
    access: SourceAccess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S3 as moto has it: the same files come out; a changed object is refused; a store that is gone is unavailable."""
    for name, value in (_KEYS | {"AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    store = f"    url = s3://models/dvc\n    endpointurl = {object_store.url}\n"
    (own.repo / ".dvc" / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n{store}")
    own.python("from dvc.repo import Repo; Repo('.').push()")
    own.git("commit", "-qam", "a remote in an object store")
    shutil.rmtree(own.remote)
    place = f"dvc:{own.repo}:{MODEL}"
    with opened(place, access=access) as source:
        assert _read(source) == {path.name: path.read_bytes() for path in (own.repo / MODEL).iterdir()}
    centroids = _md5(own.repo / MODEL / "centroids.json")
    object_store.ask("PUT", f"models/dvc/files/md5/{centroids[:2]}/{centroids[2:]}", b"[[1, 1], [0, 0]]")
    with pytest.raises(InvalidRegistration, match=rf"the remote's file has md5 .* says {centroids}"):
        resolve_or_fetch(place, access)
    object_store.stop()
    with pytest.raises(SourceUnavailable):
        resolve_or_fetch(place, access)
