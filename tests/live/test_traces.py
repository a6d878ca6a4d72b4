"""Traces of a live gateway, as a collector gets them: real protobuf over HTTP and gRPC, one process and several."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, controlled, heard, misbehave, self_naming
from tests.telemetry.otlp_receiver import OtlpReceiver, Received

ROOT = "POST /predict/{route}"
NEVER_SLOW = {"slow_ms": 600_000}
"""Slow answers are traced though nobody drew them, and on a busy machine any may be slow."""
OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


def gateway(home: Path, receiver: OtlpReceiver | None, *, workers: int = 1, **telemetry: Any) -> LiveGateway:
    exporter = telemetry.setdefault("trace_exporter", "otlp")
    if receiver is not None:
        telemetry.setdefault("otlp_endpoint", receiver.endpoint(exporter))
    return LiveGateway(home, settings={"telemetry": telemetry, "server": {"workers": workers}})


def ask(gateway: LiveGateway, **headers: str) -> Any:
    return gateway.client.post("/predict/digits", json={"inputs": [ROW]}, headers=headers)


def traced(answer: Any) -> str:
    """The trace id of the ``traceparent`` that came back."""
    return str(answer.headers["traceparent"].split("-")[1])


def caller(*, sampled: bool = True) -> tuple[str, str, dict[str, str]]:
    """A trace id, the caller's span, and the header that says both."""
    trace_id, span_id = f"{random.getrandbits(128):032x}", f"{random.getrandbits(64):016x}"
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-0{int(sampled)}"}


def durations(gateway: LiveGateway, which: str = "request") -> list[tuple[float, float, Any]]:
    """Of each bucket of a histogram that has an exemplar: its bounds, and the exemplar."""
    text = gateway.client.get("/metrics", headers=OPEN_METRICS).text
    found = []
    for family in text_string_to_metric_families(text):
        if family.name != f"gateway_{which}_duration_seconds":
            continue
        lower = 0.0
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                lower = 0.0 if bound == 0.0001 else lower
                if sample.exemplar is not None:
                    found.append((lower, bound, sample.exemplar))
                lower = bound
    return found


def counted(gateway: LiveGateway, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(gateway.client.get("/metrics", headers=OPEN_METRICS).text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def batches(spans: list[Received]) -> dict[tuple[str, str], Received]:
    return {(span.trace_id, span.span_id): span for span in spans if span.name == "batch"}


@pytest.mark.parametrize(("workers", "exporter"), [(1, "otlp"), (2, "otlp-grpc")])
def test_a_collector_finds_the_tree_of_a_request_its_batch_and_its_exemplar(
    tmp_path: Path, receiver: OtlpReceiver, workers: int, exporter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's trace goes on: its span is the parent, its state is kept, its flag is honoured though the ratio is
    nought. The stages lie within the request and do not overlap; the batch and the request name each other.
    OpenTelemetry's variables change nothing: an operator who reads the settings knows where spans go, and how."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-environment=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/nowhere")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "another")
    with gateway(tmp_path / "home", receiver, workers=workers, trace_exporter=exporter) as running:
        self_naming(running, "digits", 1)
        split = [{"version": 1, "weight": 100}]
        running.put_route("digits", {"model": "digits", "split": split, "limits": NEVER_SLOW})
        wait_until(lambda: heard(running), what="the route in every worker")
        trace_id, parent, headers = caller()
        answer = ask(running, **headers, tracestate="vendor=1, other=2")
        assert (answer.status_code, traced(answer)) == (200, trace_id)
        ask(running, **caller(sampled=False)[2])

        tree = receiver.tree(trace_id, stages=5)
        root = tree[ROOT]
        assert f"00-{trace_id}-{root.span_id}-01" == answer.headers["traceparent"]
        assert (root.parent_id, root.state, root.attributes["turnout.sampled_by"]) == (
            parent,
            "vendor=1,other=2",
            "parent",
        )
        stages = [tree[name] for name in ("decode", "decide", "queue", "compute", "encode")]
        assert {stage.parent_id for stage in stages} == {root.span_id}
        moments = [root.start_ns, *(at for stage in stages for at in (stage.start_ns, stage.end_ns)), root.end_ns]
        assert moments == sorted(moments)
        assert root.resource["service.name"] == "turnout"
        assert "x-environment" not in receiver.headers
        [place] = tree["compute"].links
        batch = receiver.wait_for(lambda spans: batches(spans).get(place))
        assert batch.links == [(trace_id, root.span_id)]
        assert batch.attributes["turnout.batch"] == tree["queue"].attributes["turnout.batch"]
        names = ("turnout.batch.release", "turnout.batch.rows", "turnout.engine", "turnout.device")
        assert [batch.attributes[name] for name in names] == ["idle", 1, "process", "cpu"]
        assert batch.start_ns <= tree["compute"].start_ns <= tree["compute"].end_ns <= batch.end_ns

        [(lower, upper, exemplar)] = wait_until(lambda: durations(running), what="the request's exemplar")
        assert exemplar.labels == {"trace_id": trace_id}
        assert lower < exemplar.value <= upper
        assert abs(exemplar.value - (root.end_ns - root.start_ns) / 1e9) < 2e-6
        for which, seconds in (
            ("queue", root.attributes["turnout.queue_s"]),
            ("compute", batch.attributes["turnout.compute_s"]),
        ):
            found = partial(durations, running, which)
            [(lower, upper, exemplar)] = wait_until(found, what=f"the exemplar of {which}")
            assert (exemplar.labels, exemplar.value) == ({"trace_id": trace_id}, pytest.approx(seconds))
            assert lower < exemplar.value <= upper
        assert len([span for span in receiver.spans if span.server]) == 1


def test_a_full_batch_links_to_each_of_its_requests(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """Eight clients at once on a version that takes its time: what waits rides together, under one batch span, once;
    each of its links is a request whose ``compute`` links back."""
    with gateway(tmp_path / "home", receiver, trace_ratio=1.0) as running:
        self_naming(running, "digits", 1, delay_ms=200)
        running.put_route("digits", {"model": "digits", "split": [{"version": 1, "weight": 100}]})
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: ask(running), range(24)))
        traces = {traced(answer) for answer in answers}
        assert [answer.status_code for answer in answers] == [200] * 24

        def all_here(spans: list[Received]) -> bool:
            linked = {trace for batch in batches(spans).values() for trace, _ in batch.links}
            ended = [{span.trace_id for span in spans if span.name == name} for name in ("compute", "encode")]
            return linked == traces and all(traces <= each for each in ended)

        assert receiver.wait_for(all_here)
        found = [span for span in receiver.spans if span.name == "batch"]
        assert len({span.span_id for span in found}) == len(found)
        assert max(len(batch.links) for batch in found) > 1
        computes = {span.trace_id: span for span in receiver.spans if span.name == "compute"}
        for batch in found:
            assert len(batch.links) == batch.attributes["turnout.batch.items"] == batch.attributes["turnout.batch.rows"]
            for trace, _ in batch.links:
                assert computes[trace].links == [(batch.trace_id, batch.span_id)]


def test_failed_and_slow_requests_arrive_though_nobody_drew_them(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """Ratio nought: the usual ones leave nothing, an error and a slow one a trace and an exemplar, and a fallback both
    attempts."""
    with gateway(tmp_path / "home", receiver) as running:
        self_naming(running, "digits", 1)
        control = controlled(running, "digits", 2)
        split = [{"version": 2, "weight": 100}, {"version": 1, "weight": 0}]
        running.put_route("digits", {"model": "digits", "split": split, "limits": {"slow_ms": 300}})
        asked = [ask(running) for _ in range(5)]
        usual = {traced(answer) for answer in asked if answer.elapsed.total_seconds() < 0.3}  # whoever saw them so
        misbehave(control, delay_ms=400)
        slow = ask(running)
        misbehave(control, fail="model")
        failed = ask(running)
        running.put_route("digits", {"model": "digits", "split": split, "fallback": 1})
        rescued = ask(running)
        assert [answer.status_code for answer in (slow, failed, rescued)] == [200, 500, 200]

        assert receiver.tree(traced(slow))[ROOT].attributes["turnout.sampled_by"] == "slow"
        tree = receiver.tree(traced(failed))
        assert (tree[ROOT].attributes["turnout.sampled_by"], tree[ROOT].error) == ("error", "ModelError")
        tree = receiver.tree(traced(rescued))
        assert (tree[ROOT].attributes["turnout.sampled_by"], tree[ROOT].error) == ("fallback", None)
        assert (tree["attempt"].error, tree["attempt"].attributes["turnout.version"]) == ("ModelError", 2)
        assert tree["compute"].attributes["turnout.version"] == 1
        assert tree["attempt"].end_ns <= tree["compute"].start_ns
        assert not usual & {span.trace_id for span in receiver.spans}

        def shown() -> set[str]:
            return {exemplar.labels["trace_id"] for _, _, exemplar in durations(running)}

        wait_until(lambda: traced(slow) in shown(), what="the slow one's exemplar")
        assert not usual & shown()
        kept = partial(counted, running, "gateway_traces_kept_total", sampled_by="error")
        wait_until(lambda: kept() == 1, what="the kept trace, counted")


def test_each_exemplar_of_several_workers_is_a_request_of_its_bucket(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """Half of all requests are traced, by two workers, of three versions that take 1, 15 and 60 ms: each exemplar names
    a trace that was exported, of a request that was answered, and that took what the exemplar says."""
    with gateway(tmp_path / "home", receiver, workers=2, trace_ratio=0.5) as running:
        for number, delay_ms in ((1, 1), (2, 15), (3, 60)):
            self_naming(running, "digits", number, delay_ms=delay_ms)
        split = [{"version": number, "weight": 1} for number in (1, 2, 3)]
        running.put_route("digits", {"model": "digits", "split": split, "limits": NEVER_SLOW})
        wait_until(lambda: heard(running), what="the route in every worker")
        answers = {traced(answer): answer for answer in (ask(running) for _ in range(60))}
        assert {answer.status_code for answer in answers.values()} == {200}
        sampled = {trace for trace, answer in answers.items() if answer.headers["traceparent"].endswith(("1", "3"))}

        roots = receiver.wait_for(
            lambda spans: len(found := {s.trace_id: s for s in spans if s.server}) >= len(sampled) and found
        )
        assert roots.keys() == sampled
        wait_until(lambda: len(durations(running)) >= 3, what="exemplars")
        shown = durations(running)
        for lower, upper, exemplar in shown:
            root = roots[exemplar.labels["trace_id"]]
            assert lower < exemplar.value <= upper
            assert abs(exemplar.value - (root.end_ns - root.start_ns) / 1e9) < 2e-6
            assert root.attributes["turnout.version"] == int(answers[root.trace_id].headers["x-model-version"])


def test_a_dead_collector_costs_spans_and_no_request(tmp_path: Path) -> None:
    """Nobody listens: all are answered, what could not be delivered is counted, and the end is not held up."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with gateway(tmp_path / "home", None, trace_ratio=1.0, otlp_endpoint=endpoint, otlp_timeout_s=0.3) as running:
            self_naming(running, "digits", 1)
            running.put_route("digits", {"model": "digits", "split": [{"version": 1, "weight": 100}]})
            assert {ask(running).status_code for _ in range(100)} == {200}
            wait_until(lambda: counted(running, "gateway_spans_dropped_total") >= 600, what="700 lost spans, counted")
            assert ask(running).status_code == 200
            assert running.terminate(within_s=90) == 0


def test_traces_outlive_the_process_that_makes_their_spans(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """Killed by whatever it was: no request notices, and those after it are traced by the next one."""
    with gateway(tmp_path / "home", receiver, trace_ratio=1.0) as running:
        self_naming(running, "digits", 1)
        running.put_route("digits", {"model": "digits", "split": [{"version": 1, "weight": 100}]})
        receiver.tree(traced(ask(running)))
        before = wait_until(running.recorder, what="a recorder")
        before.kill()
        assert {ask(running).status_code for _ in range(20)} == {200}
        wait_until(lambda: (now := running.recorder()) is not None and now.pid != before.pid, what="another recorder")
        answer = ask(running)
        assert receiver.tree(traced(answer))[ROOT].attributes["http.response.status_code"] == answer.status_code == 200


def test_hostile_context_costs_its_sender_the_context_and_nobody_else_anything(
    tmp_path: Path, receiver: OtlpReceiver
) -> None:
    """A ``tracestate`` and ``baggage`` of 8 KB, members that are none, a ``traceparent`` of another grammar: all are
    answered; what is valid goes on, what is not is left out."""
    with gateway(tmp_path / "home", receiver, trace_ratio=1.0) as running:
        self_naming(running, "digits", 1)
        running.put_route("digits", {"model": "digits", "split": [{"version": 1, "weight": 100}]})
        trace_id, _, headers = caller()
        large = ",".join(f"k{number}={'v' * 200}" for number in range(40))
        for state in (large, "=,=,=", "a=1,a=2", "\xff\xfe", "k=" + "v" * 8192):
            answer = running.client.post(
                "/predict/digits",
                json={"inputs": [ROW]},
                headers=[
                    (b"traceparent", headers["traceparent"].encode()),
                    (b"tracestate", state.encode("latin-1")),
                    (b"baggage", large.encode()),
                ],
            )
            assert answer.status_code == 200
        assert ask(running, traceparent="00-" + "0" * 32 + "-" + "0" * 16 + "-01").status_code == 200
        roots = receiver.wait_for(lambda spans: len(found := [s for s in spans if s.server]) >= 6 and found)
        assert [(root.trace_id == trace_id, root.state) for root in roots] == [(True, "")] * 5 + [(False, "")]


def test_the_collectors_credentials_are_rotated_while_it_runs(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """The file is written anew; spans from then on go out with what it says."""
    token = tmp_path / "token"
    token.write_text("old", encoding="utf-8")
    headers = {"x-key": {"file": str(token)}}
    with gateway(tmp_path / "home", receiver, trace_ratio=1.0, otlp_headers=headers) as running:
        self_naming(running, "digits", 1)
        running.put_route("digits", {"model": "digits", "split": [{"version": 1, "weight": 100}]})
        ask(running)
        wait_until(lambda: receiver.headers.get("x-key") == "old", what="spans")
        token.write_text("new", encoding="utf-8")
        wait_until(lambda: ask(running) and receiver.headers.get("x-key") == "new", what="spans with the new one")
