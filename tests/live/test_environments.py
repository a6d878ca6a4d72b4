"""Versions with packages of their own, side by side in one gateway, each in its environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_iris

from gateway.registry.canonical import digest_of
from gateway.registry.environments import Environments
from loadtests.live_gateway import LiveGateway, wait_until
from tests.registry.environments.wheels import installed_wheel, wheel

NUMPY = version("numpy")
SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch"]}],
}
CODE = f"""
import toy
SIGNATURE = {json.dumps(SIGNATURE)}
class Model:
    def predict(self, inputs):
        return {{"y": inputs["x"].sum(axis=1) * toy.FACTOR}}
"""


def lock(toy: str) -> str:
    return f"# python {sys.version_info[0]}.{sys.version_info[1]}\nnumpy=={NUMPY}\ntoy=={toy}\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """numpy as it is here, and two versions of a package that answers depend on."""
    folder = tmp_path_factory.mktemp("wheels")
    installed_wheel(folder, "numpy")
    for number, factor in (("1.0", 2.0), ("2.0", 10.0)):
        wheel(folder, "toy", number, {"toy/__init__.py": f"FACTOR = {factor}\n"})
    return folder


@pytest.fixture(scope="module")
def gateway(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    settings: Mapping[str, Any] = {"registry": {"environments": {"wheels": [str(wheels)], "offline": True}}}
    with LiveGateway(tmp_path_factory.mktemp("gateway") / "home", settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def versions(gateway: LiveGateway) -> dict[str, int]:
    """The same model file twice, with one lock file and with the other."""
    path = gateway.home.parent / "model.py"
    path.write_text(CODE)
    made = {}
    for toy in ("1.0", "2.0"):
        body = {"source": f"file:{path}", "environment": lock(toy)}
        made[toy] = int(gateway.admin("POST", "/models/toy/versions", body, expect=201, timeout=240.0)["version"])
        gateway.put_route(f"toy-{toy}", {"model": "toy", "split": [{"version": made[toy], "weight": 100}]})
    return made


def answer(gateway: LiveGateway, toy: str) -> float:
    return float(gateway.predict(f"toy-{toy}", [[1.0, 2.0]]).json()["outputs"]["y"][0])


def answers(gateway: LiveGateway, toy: str) -> bool:
    return gateway.predict(f"toy-{toy}", [[1.0, 2.0]]).status_code == 200


def test_two_versions_of_a_package_answer_side_by_side(gateway: LiveGateway, versions: dict[str, int]) -> None:
    """One model file, two lock files: two versions, each with its own package, in one gateway that has neither."""
    assert sorted(versions.values()) == [1, 2]
    assert (answer(gateway, "1.0"), answer(gateway, "2.0")) == (6.0, 30.0)
    manifest = gateway.admin("GET", "/models/toy/versions/2")["manifest"]
    assert "sha256:" + manifest["environment"]["sha256"] == digest_of(lock("2.0").encode())
    folders = {path.name for path in (gateway.home / "environments").iterdir() if not path.name.startswith(".")}
    assert folders == {digest_of(lock(toy).encode()).removeprefix("sha256:") for toy in versions}


def test_an_environment_that_cannot_be_built_is_refused_at_registration(
    gateway: LiveGateway, versions: dict[str, int]
) -> None:
    """In words, with nothing registered; traffic goes on. So is one for a version inside the gateway."""
    body = {"source": f"file:{gateway.home.parent / 'model.py'}", "environment": lock("3.0")}
    refused = gateway.admin("POST", "/models/toy/versions", body, expect=422, timeout=240.0)
    assert "toy==3.0" in refused["detail"]
    refused = gateway.admin("POST", "/models/toy/versions", {**body, "interpreter": sys.executable}, expect=422)
    assert "interpreter" in refused["detail"]
    unpinned = {**body, "environment": "numpy\n"}
    assert "line 1" in gateway.admin("POST", "/models/toy/versions", unpinned, expect=422)["detail"]
    assert len(gateway.admin("GET", "/models/toy")["versions"]) == 2
    assert answer(gateway, "1.0") == 6.0


def test_an_environment_that_is_gone_is_built_again_at_the_load(gateway: LiveGateway, versions: dict[str, int]) -> None:
    """A home restored without its environments, another replica: the lock file is with the version. One that lost a
    file serves on as long as its process lives, and is built anew at the next load as well."""
    folders = {
        toy: gateway.home / "environments" / digest_of(lock(toy).encode()).removeprefix("sha256:") for toy in versions
    }
    next(folders["1.0"].glob("lib/python3*/site-packages/toy/__init__.py")).unlink()
    shutil.rmtree(folders["2.0"])
    assert (answer(gateway, "1.0"), answer(gateway, "2.0")) == (6.0, 30.0)
    gateway.stop()
    gateway.start()
    for toy, expected in (("1.0", 6.0), ("2.0", 30.0)):
        wait_until(partial(answers, gateway, toy), within_s=200.0, what="the load")
        assert answer(gateway, toy) == expected
    assert all((folder / "environment.json").exists() for folder in folders.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_versions_of_scikit_learn_answer_side_by_side(tmp_path: Path) -> None:
    """One trained and loaded by the gateway's scikit-learn, one by an older release out of a real package index."""
    older = "1.8.0" if version("scikit-learn") != "1.8.0" else "1.7.2"
    have = {name: version(name) for name in ("numpy", "scipy", "joblib", "skops")}
    pins = [*(f"{name}=={number}" for name, number in have.items()), f"scikit-learn=={older}"]
    reached = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path / "tried"), pins[-1]]
    if subprocess.run(reached, capture_output=True, check=False, timeout=300).returncode:
        pytest.skip(f"no package index here has scikit-learn {older}")
    code = (
        "import sys, skops.io, sklearn; from sklearn.datasets import load_iris\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))\n"
        "skops.io.dump(model, sys.argv[1]); print(sklearn.__version__)\n"
    )
    example = tmp_path / "example.json"
    rows = load_iris().data[::30]
    example.write_text(json.dumps({"inputs": rows.tolist()}))
    text = "\n".join(pins) + "\n"
    python = Environments(tmp_path / "home" / "environments").build(text.encode())
    for interpreter, name in ((sys.executable, "here"), (python, "older")):
        command = [interpreter, "-c", code, str(tmp_path / f"{name}.skops")]
        trained = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        assert (trained == older) is (name == "older")
    with LiveGateway(tmp_path / "home", settings={"runtimes": {"preload": ["sklearn"]}}) as gateway:
        body = {"example": f"file:{example}"}
        here = {**body, "source": f"file:{tmp_path / 'here.skops'}"}
        there = {**body, "source": f"file:{tmp_path / 'older.skops'}", "environment": text}
        for asked in (here, there):
            gateway.admin("POST", "/models/iris/versions", asked, expect=201, timeout=300.0)
        split = [{"version": number, "weight": 50} for number in (1, 2)]
        gateway.put_route("iris", {"model": "iris", "split": split, "pin": "allowed"})
        for number in (1, 2):
            found = gateway.predict("iris", rows.tolist(), headers={"x-model-version": str(number)}).json()
            assert found["version"] == number
            assert [int(value) for value in next(iter(found["outputs"].values()))] == [0, 0, 1, 1, 2]
        assert gateway.descendants(str(python))
