"""Environments: built once, whole or not at all, by real venv and pip; refused in words where they cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from gateway.errors import RegistryError, StorageFull
from gateway.registry.canonical import digest_of
from gateway.registry.environments import EnvironmentRefused, Environments, child_python
from gateway.registry.environments.building import Build
from gateway.settings_environments import EnvironmentSettings
from loadtests.live_gateway import command_line, wait_until
from tests.registry.environments.wheels import sha256_of, wheel

pytestmark = pytest.mark.timeout(600)  # real venvs, some of them twice in a test

LOCK = b"numpy==99.1\ntoy==1.0\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A numpy that has nothing in it but its name, and two versions of a toy."""
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "numpy", "99.1")
    for number in ("1.0", "2.0"):
        wheel(folder, "toy", number)
    wheel(folder, "large", "1.0", {"large/data.txt": "0123456789abcdef" * 500_000})
    return folder


@pytest.fixture(scope="module")
def settings(wheels: Path) -> EnvironmentSettings:
    return EnvironmentSettings(wheels=(wheels,), offline=True)


@pytest.fixture
def environments(tmp_path: Path, settings: EnvironmentSettings) -> Environments:
    return Environments(tmp_path / "environments", settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, settings: EnvironmentSettings) -> Path:
    """A folder with one environment in it, to be copied."""
    folder = tmp_path_factory.mktemp("built") / "environments"
    Environments(folder, settings).build(LOCK)
    return folder


@pytest.fixture
def silent_index() -> Iterator[str]:
    """A package index that takes calls and never answers: whoever asks it hangs there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


def _left(environments: Environments, folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock-"))


def test_an_environment_is_built_once_for_each_lock_file(environments: Environments, tmp_path: Path) -> None:
    """Its Python has the packages and no others; the second who asks waits for nothing."""
    said: list[str] = []
    assert environments.interpreter(digest_of(LOCK)) is None
    python = environments.build(LOCK, progress=said.append)
    assert environments.build(LOCK, progress=said.append) == python == environments.interpreter(digest_of(LOCK))
    told = subprocess.check_output([python, "-c", "import toy, sys; print(toy.__version__, sys.prefix)"], text=True)
    assert told.split() == ["1.0", str(tmp_path / "environments" / digest_of(LOCK).removeprefix("sha256:"))]
    assert subprocess.run([python, "-c", "import psutil"], capture_output=True, check=False).returncode == 1
    assert len([line for line in said if line.startswith("making")]) == 1
    assert environments.check(digest_of(LOCK)) == ()
    assert [(entry.digest, entry.packages) for entry in environments.entries()] == [(digest_of(LOCK), 2)]


def test_hashes_of_the_lock_file_are_checked(environments: Environments, wheels: Path, tmp_path: Path) -> None:
    """A wheel with other bytes than those that were locked is not installed, and nothing is left of the try."""
    numpy, toy = (sha256_of(wheels / f"{name}-py3-none-any.whl") for name in ("numpy-99.1", "toy-1.0"))
    sound = f"numpy==99.1 --hash=sha256:{numpy}\ntoy==1.0 --hash=sha256:{toy}\n".encode()
    assert environments.build(sound).exists()
    wrong = sound.replace(toy.encode(), b"0" * 64)
    with pytest.raises(EnvironmentRefused, match=r"(?i)hash"):
        environments.build(wrong)
    assert _left(environments, tmp_path / "environments") == [digest_of(sound).removeprefix("sha256:")]


def test_what_cannot_be_met_is_refused_in_words(environments: Environments, tmp_path: Path) -> None:
    """A package that nobody has, a lock file without numpy, a Python that is not here: each by its name."""
    for lock, words in (
        (b"numpy==99.1\ntoy==7.0\n", r"toy==7\.0"),
        (b"toy==1.0\n", "do not have numpy"),
        (b"# python 3.2\nnumpy==99.1\n", r"wants Python 3\.2"),
    ):
        with pytest.raises(RegistryError, match=words):
            environments.build(lock)
    assert _left(environments, tmp_path / "environments") == []


def test_an_interpreter_that_the_settings_name_is_used(wheels: Path, tmp_path: Path) -> None:
    """And one that is another version than it is named for is refused."""
    series = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for pythons, words in (({"3.2": sys.executable}, "says it is"), ({"3.2": "/nowhere/python"}, "cannot be started")):
        named = EnvironmentSettings(wheels=(wheels,), offline=True, pythons={k: Path(v) for k, v in pythons.items()})
        with pytest.raises(RegistryError, match=words):
            Environments(tmp_path / "environments", named).build(b"# python 3.2\nnumpy==99.1\n")
    named = EnvironmentSettings(wheels=(wheels,), offline=True, pythons={series: Path(sys.executable)})
    assert Environments(tmp_path / "environments", named).build(f"{series}\nnumpy==99.1\n".encode()).exists()


def test_builders_in_threads_and_processes_build_once(
    environments: Environments, settings: EnvironmentSettings, tmp_path: Path
) -> None:
    """Whoever comes first builds; the others wait, and get the same."""
    script = (
        "import sys; from pathlib import Path; from gateway.registry.environments import Environments\n"
        "from gateway.settings_environments import EnvironmentSettings\n"
        f"settings = EnvironmentSettings.model_validate_json({settings.model_dump_json()!r})\n"
        f"e = Environments(Path({str(tmp_path / 'environments')!r}), settings)\n"
        f"print(e.build({LOCK!r}, progress=lambda line: print(line, file=sys.stderr)))\n"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        here = set(pool.map(lambda _: environments.build(LOCK, progress=said.append), range(3)))
    told = [other.communicate(timeout=300) for other in others]
    assert {str(path) for path in here} == {out.strip() for out, _ in told}
    lines = said + [line for _, err in told for line in err.splitlines()]
    assert len([line for line in lines if line.startswith("making")]) == 1


def test_a_build_that_was_killed_leaves_nothing_in_the_way(
    environments: Environments, settings: EnvironmentSettings, silent_index: str, tmp_path: Path
) -> None:
    """Its pip ends with it; the next builder, and gc, find a folder that nobody holds and remove it."""
    hanging = settings.model_copy(update={"offline": False, "indexes": (silent_index,)})
    script = (
        "from pathlib import Path; from gateway.registry.environments import Environments\n"
        "from gateway.settings_environments import EnvironmentSettings\n"
        f"settings = EnvironmentSettings.model_validate_json({hanging.model_dump_json()!r})\n"
        f"Environments(Path({str(tmp_path / 'environments')!r}), settings).build({LOCK!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as builder:
        child = wait_until(lambda: _pip_of(builder.pid), within_s=300, what="pip asks the index")
        os.kill(builder.pid, signal.SIGKILL)
        builder.wait()
    assert psutil.wait_procs([child], timeout=60)[1] == []
    folder = tmp_path / "environments"
    assert [name[:10] for name in _left(environments, folder)] == [".building-"]
    environments.sweep()
    assert _left(environments, folder) == []
    assert environments.build(LOCK).exists()


def test_a_build_that_takes_too_long_is_ended(settings: EnvironmentSettings, silent_index: str, tmp_path: Path) -> None:
    """With all that it started."""
    update = {"offline": False, "indexes": (silent_index,), "build_timeout_s": 0.5}
    environments = Environments(tmp_path / "environments", settings.model_copy(update=update))
    with pytest.raises(EnvironmentRefused, match="not built within"):
        environments.build(LOCK)
    assert _left(environments, tmp_path / "environments") == []
    wait_until(lambda: _pip_of(os.getpid()) is None, what="the end of all that it started")


def test_a_gateway_that_stops_does_not_wait_for_builds(
    settings: EnvironmentSettings, silent_index: str, tmp_path: Path
) -> None:
    """Closing ends the build that runs and the one that waits for its turn."""
    update = {"offline": False, "indexes": (silent_index,)}
    environments = Environments(tmp_path / "environments", settings.model_copy(update=update))
    with ThreadPoolExecutor(2) as pool:
        builds = [pool.submit(environments.build, lock) for lock in (LOCK, LOCK + b"large==1.0\n")]
        wait_until(lambda: _pip_of(os.getpid()), within_s=300, what="pip asks the index")
        environments.close()
        for build in builds:
            assert "shutting down" in str(build.exception(timeout=60))


def test_environments_take_no_more_disk_than_they_may(settings: EnvironmentSettings, tmp_path: Path) -> None:
    """Neither does one become too large, nor is another begun when the room is used up."""
    small = Environments(tmp_path / "environments", settings.model_copy(update={"max_bytes": 1_000_000}))
    with pytest.raises(StorageFull, match="max_bytes"):
        small.build(b"numpy==99.1\nlarge==1.0\n")
    assert _left(small, tmp_path / "environments") == []
    tight = Environments(tmp_path / "environments", settings.model_copy(update={"max_bytes": 1000}))
    roomy = Environments(tmp_path / "environments", settings)
    roomy.build(LOCK)
    with pytest.raises(StorageFull, match="turnout gc"):
        tight.build(b"numpy==99.1\n")


@pytest.mark.parametrize("damage", ["removed", "cut", "altered", "unsealed", "no python", "another version"])
def test_damage_is_seen_and_built_over(environments: Environments, built: Path, tmp_path: Path, damage: str) -> None:
    """A file that is gone or cut off is seen at each load, one with other bytes when the environment is checked."""
    shutil.copytree(built, tmp_path / "environments", symlinks=True)
    python = environments.build(LOCK)
    folder = python.parent.parent
    module = next(folder.glob("lib/python3*/site-packages/toy/__init__.py"))
    strike: dict[str, Callable[[], object]] = {
        "removed": module.unlink,
        "cut": lambda: module.write_text(""),
        "altered": lambda: module.write_text(module.read_text().replace("1", "8")),
        "unsealed": (folder / "environment.json").unlink,
        "no python": python.unlink,
        "another version": lambda: _rename_package(module.parents[1]),
    }
    strike[damage]()
    assert environments.check(digest_of(LOCK)) != ()
    if damage not in ("altered", "another version"):
        assert environments.interpreter(digest_of(LOCK)) is None
        assert environments.build(LOCK) == python
        assert environments.check(digest_of(LOCK)) == ()


def test_what_no_version_needs_is_removed_and_what_is_built_is_not(environments: Environments, tmp_path: Path) -> None:
    """One that is needed, or was built just now, or is being built by somebody, stays."""
    other = b"numpy==99.1\ntoy==2.0\n"
    for lock in (LOCK, other):
        environments.build(lock)
    now = max(entry.built_at for entry in environments.entries())
    assert environments.unneeded({digest_of(LOCK)}, now=now, grace_s=3600.0) == ()
    (found,) = environments.unneeded({digest_of(LOCK)}, now=now + 4000, grace_s=3600.0)
    assert found.digest == digest_of(other)
    assert environments.remove(found.digest) == found.size_bytes > 0
    assert environments.remove(found.digest) == 0
    assert _left(environments, tmp_path / "environments") == [digest_of(LOCK).removeprefix("sha256:")]


def test_a_record_that_is_none_counts_as_not_built(environments: Environments, tmp_path: Path) -> None:
    """Whatever stands in the folder: the environment is built again."""
    folder = tmp_path / "environments" / digest_of(LOCK).removeprefix("sha256:")
    folder.mkdir(parents=True)
    for text in ("", "[]", json.dumps({"size_bytes": "x", "python": 3, "packages": []})):
        (folder / "environment.json").write_text(text)
        assert environments.interpreter(digest_of(LOCK)) is None
        assert environments.entries() == ()
    assert environments.build(LOCK).exists()


def test_what_the_gateway_has_itself_is_not_built(tmp_path: Path) -> None:
    """Its own interpreter runs the version, as long as it has those packages; one of hashes is always built."""
    lock = f"# python {sys.version_info[0]}.{sys.version_info[1]}\nnumpy=={version('numpy')}\n".encode()
    environments = Environments(tmp_path / "environments", EnvironmentSettings(wheels=(tmp_path,), offline=True))
    python = environments.build(lock)
    assert (python, child_python(python)) == (Path(sys.executable), None)
    assert environments.interpreter(digest_of(lock)) == python
    assert environments.check(digest_of(lock)) == ()
    assert [(entry.own, entry.packages) for entry in environments.entries()] == [(True, 1)]
    (tmp_path / "environments" / digest_of(lock).removeprefix("sha256:") / "lock.txt").write_bytes(b"numpy==1.0\n")
    assert environments.interpreter(digest_of(lock)) is None
    assert [one.what for one in environments.check(digest_of(lock))] == ["environment"]
    for other in (lock.strip() + b" --hash=sha256:" + b"0" * 64, b"numpy==99.1\n"):
        with pytest.raises(EnvironmentRefused):
            environments.build(other)
    strict = EnvironmentSettings(wheels=(tmp_path,), offline=True, own=False)
    with pytest.raises(EnvironmentRefused):
        Environments(tmp_path / "strict", strict).build(lock)


def test_a_build_says_what_it_is(settings: EnvironmentSettings, tmp_path: Path) -> None:
    """Fit for an assertion."""
    environments = Environments(tmp_path / "environments", settings)
    build = Build(environments.read(LOCK), tmp_path / "here", settings, room_bytes=1, told=print)
    assert repr(build) == "<Build here [2 packages]>"
    assert repr(environments) == f"<Environments {tmp_path / 'environments'}>"
    assert threading.active_count() < 50


def _pip_of(pid: int) -> psutil.Process | None:
    for child in psutil.Process(pid).children(recursive=True):
        words = " ".join(command_line(child))
        if "pip" in words and "starting" not in words:
            return child
    return None


def _rename_package(site: Path) -> None:
    about = site / "toy-1.0.dist-info"
    text = (about / "METADATA").read_text()
    (about / "METADATA").write_text(text.replace("Version: 1.0", "Version: 7.0"))
