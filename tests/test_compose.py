"""compose.yaml and what it mounts, as far as can be told without a Docker engine: by schemas and programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from loadtests.redis_server import RedisServer, find_redis

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
COLLECTOR = yaml.safe_load((ROOT / "config" / "otel" / "collector.yaml").read_text(encoding="utf-8"))


def test_the_compose_file_is_one() -> None:
    """By the schema of the Compose specification, as check-jsonschema carries it."""
    words = ["--builtin-schema", "vendor.compose-spec", str(ROOT / "compose.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *words], check=False, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_watched_and_open_to_this_machine_alone(name: str) -> None:
    """An image of one release; a question whether it is well, where its image can ask one; no port abroad."""
    service = SERVICES[name]
    assert "build" in service or re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", service["image"]), service.get(
        "image"
    )
    assert "healthcheck" in service or name == "collector"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service["restart"] == "unless-stopped"


def test_there_is_no_secret_in_it() -> None:
    """Nothing that grants anything to whoever has read the repository."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|secret|api_?key)\S*\s*[:=]\s*\S", text)


def test_all_that_is_mounted_is_there() -> None:
    """A path that is missing would be made by Docker, as an empty folder."""
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    for source, *_ in (mount.split(":") for mount in mounts):
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], source


def test_services_are_known_to_one_another_by_the_names_that_their_files_use() -> None:
    """The scrape file, Grafana's sources and the collector name hosts: each is a service here."""
    files = ["prometheus/prometheus.yml", "otel/collector.yaml", "grafana/provisioning/datasources/turnout.yaml"]
    texts = [(ROOT / "config" / name).read_text(encoding="utf-8") for name in files]
    lines = [line.split("#")[0] for text in texts for line in text.splitlines()]
    hosts = {host for line in lines for host in re.findall(r"(?:http://|[\"'\s])([a-z]+):\d{4,5}\b", line)}
    assert hosts == {"gateway", "collector", "prometheus", "jaeger"}
    assert hosts <= SERVICES.keys()
    environment = SERVICES["gateway"]["environment"]
    assert environment["TURNOUT_TELEMETRY__OTLP_ENDPOINT"].startswith("http://collector:4318/")
    assert environment["TURNOUT_STORE__URL"].startswith("redis://redis:")


def test_the_collectors_pipelines_name_parts_that_it_has() -> None:
    """Its own program is not to be had here: receivers, processors and exporters are defined, and none for nothing."""
    service = COLLECTOR["service"]
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in service["pipelines"].values() for name in pipeline[kind]}
        assert used == COLLECTOR[kind].keys()
    assert set(service["extensions"]) == COLLECTOR["extensions"].keys()
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in service["pipelines"].values())
    protocols = COLLECTOR["receivers"]["otlp"]["protocols"]
    assert [protocols[name]["endpoint"].rpartition(":")[2] for name in ("grpc", "http")] == ["4317", "4318"]


@pytest.mark.skipif(find_redis() is None, reason="no redis-server here: apt-get install redis-server")
def test_redis_takes_its_file_and_is_durable_by_it(tmp_path: Path) -> None:
    """A real one, told otherwise first: the file, which comes last, wins. Only its folder is another."""
    text = (ROOT / "config" / "redis" / "redis.conf").read_text(encoding="utf-8")
    file = tmp_path / "redis.conf"
    file.write_text(text.replace("dir /data", f"dir {tmp_path}"), encoding="utf-8")
    with (
        RedisServer(tmp_path, fsync="no", options=("--include", str(file))) as running,
        redis.Redis.from_url(running.url, decode_responses=True) as client,
    ):
        said = client.config_get("append*", "maxmemory-policy", "no-appendfsync-on-rewrite")
    assert said["appendonly"] == "yes"
    assert said["appendfsync"] == "always"
    assert said["maxmemory-policy"] == "noeviction"
    assert said["no-appendfsync-on-rewrite"] == "no"


def test_the_gateways_environment_is_one_that_it_takes() -> None:
    """A name that is no setting would stop it at its start."""
    given = SERVICES["gateway"]["environment"]
    program = "from gateway.settings import Settings as S; s = S(); print(s.store.url, s.telemetry.otlp_endpoint)"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=99, env={**clean, **given}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [given["TURNOUT_STORE__URL"], given["TURNOUT_TELEMETRY__OTLP_ENDPOINT"]]


def test_the_image_has_the_extras_that_it_needs() -> None:
    """Those that the compose file asks for are there, and those of its own settings among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(SERVICES["gateway"]["build"]["args"]["EXTRAS"].split(","))
    assert extras <= project["optional-dependencies"].keys()
    assert {"otlp", "decisions"} <= extras
