"""Spans as a collector gets them: real exporters, real protobuf, over HTTP and gRPC."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.semconv._incubating.attributes import feature_flag_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes

from gateway import __version__
from gateway.errors import SettingsError
from gateway.events.records import ShadowRecord
from gateway.messages import VersionRef
from gateway.settings import Settings, load_settings
from gateway.telemetry.tracing.configured import export_options
from gateway.telemetry.tracing.exporters import Delivering, Seldom, exporter_for
from gateway.telemetry.tracing.message import Message, pack
from gateway.telemetry.tracing.options import ExportOptions
from gateway.telemetry.tracing.part import Traces, traces_part
from gateway.telemetry.tracing.sdk import KnownResource, SdkExporter
from gateway.telemetry.tracing.spans import batch_place
from gateway.telemetry.tracing.tree import Kept, Place
from tests.telemetry.otlp_receiver import OtlpReceiver
from tests.telemetry.records import DIGITS_3, PARENT_ID, SPAN_ID, TRACE_ID, batch, decision, request

EXPORTERS = {"otlp": "http", "otlp-grpc": "grpc"}


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


def part(options: ExportOptions) -> Traces:
    return traces_part(options.to_json())


def told(part: Traces, *, shadows: Any = (), **changes: Any) -> None:
    """One request in one batch."""
    record = request(
        **{"sampled": True, "batch": 7, "batch_rows": 3, "decode_s": 0.0001, "encode_s": 0.0001, **changes}
    )
    ran = batch(batch=7, ended_wall=1_700_000_000.2535, took_s=0.0025, release="idle", limit=32, engine="process")
    part.told("traces", pack(Message([Kept(record, "ratio")], [ran], shadows)))


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_collector_gets_the_tree_its_batch_and_their_links(
    receiver: OtlpReceiver, exporter: str, compression: str
) -> None:
    """Decoded by the protocol's own classes: ids, parents, kinds, times, links, the event, the state, the resource."""
    options = ExportOptions(
        exporter, "replica-1", endpoint=receiver.endpoint(exporter), headers={"X-Key": "k"}, compression=compression
    )
    traces = part(options)
    copy = ShadowRecord("digits", 1, 17, DIGITS_3, VersionRef("digits", 5), "agrees", 1, ended_wall=1_700_000_000.3)
    told(
        traces,
        parent_span_id=PARENT_ID,
        trace_state="vendor=1",
        shadows=[copy._replace(trace=f"00-{TRACE_ID}-{SPAN_ID}-01")],
    )
    assert traces.flush(60)
    found = receiver.tree(TRACE_ID, stages=5)
    root = found["POST /predict/{route}"]
    assert (root.span_id, root.parent_id, root.server, root.state) == (SPAN_ID, PARENT_ID, True, "vendor=1")
    assert (root.start_ns, root.end_ns) == (1_700_000_000_250_000_000, 1_700_000_000_254_000_000)
    assert {span.parent_id for name, span in found.items() if name != root.name} == {SPAN_ID}
    assert [name for name, _ in found["decide"].events] == ["feature_flag.evaluation"]
    place = batch_place("replica-1", 7)
    assert found["queue"].links == found["compute"].links == [place]
    [ran] = [span for span in receiver.spans if span.name == "batch"]
    assert ((ran.trace_id, ran.span_id), ran.links) == (place, [(TRACE_ID, SPAN_ID)])
    [shadow] = [span for span in receiver.spans if span.name == "shadow"]
    assert (shadow.parent_id, shadow.links) == ("", [(TRACE_ID, SPAN_ID)])
    assert root.resource["service.name"] == "turnout"
    assert root.resource["service.version"] == __version__
    assert root.resource["service.instance.id"] == "replica-1"
    assert receiver.headers["x-key"] == "k"
    assert exporter == "otlp-grpc" or receiver.headers.get("content-encoding", "none") == compression
    assert traces.ask("traces", {})["exported"] == 8
    traces.close()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_installed_exporters_take_bytes(exporter: str) -> None:
    """By ways that no version promises. Where this fails, traces arrive all the same, at five times the price: look at
    what the library has become, and at ``gateway.telemetry.tracing.exporters``."""
    found = exporter_for(ExportOptions(exporter, "replica-1"))
    assert isinstance(found, Delivering)
    found.shutdown()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_exporter_with_other_insides_gets_the_sdks_spans(
    receiver: OtlpReceiver, exporter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another version may have them: it encodes for itself, and the collector gets the same."""
    kind = import_module(f"opentelemetry.exporter.otlp.proto.{EXPORTERS[exporter]}.trace_exporter").OTLPSpanExporter
    before = kind.export

    def export(self: SpanExporter, spans: Any) -> Any:
        return before(self, spans)

    monkeypatch.setattr(kind, "export", export)
    options = ExportOptions(exporter, "replica-1", endpoint=receiver.endpoint(exporter), compression="gzip")
    assert not isinstance(exporter_for(options), Delivering)
    traces = part(options)
    told(traces)
    assert traces.flush(60)
    assert set(receiver.tree(TRACE_ID, stages=5)) >= {"POST /predict/{route}", "decode", "decide", "queue", "compute"}
    assert exporter == "otlp-grpc" or receiver.headers["content-encoding"] == "gzip"
    assert traces.ask("traces", {})["exported"] == 7
    traces.close()


def otherwise_inside(exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another version may be: what is named is there, and wants another argument."""
    module = import_module(f"opentelemetry.exporter.otlp.proto.{EXPORTERS[exporter]}.trace_exporter")
    kind = module.OTLPSpanExporter
    if exporter == "otlp-grpc":

        def translated(self: Any, data: Any, _resource: None) -> Any:
            return module.encode_spans(data)

        def called(self: Any, data: Any) -> SpanExportResult:
            self._client.Export(request=self._translate_data(data, None), metadata=self._headers, timeout=60)
            return SpanExportResult.SUCCESS

        monkeypatch.setattr(kind, "_translate_data", translated)
        monkeypatch.setattr(kind, "_export", called)
        return

    def export(self: Any, spans: Any) -> SpanExportResult:
        found = self._client.export(module.encode_spans(spans).SerializeToString(), deadline_s=60)
        return SpanExportResult.SUCCESS if found.success else SpanExportResult.FAILURE

    made = kind.__init__

    def created(self: Any, *given: Any, **named: Any) -> None:
        made(self, *given, **named)
        before = self._client.export

        def sent(body: bytes, *, deadline_s: float) -> Any:
            return before(body) if deadline_s else None

        self._client.export = sent

    monkeypatch.setattr(kind, "__init__", created)
    monkeypatch.setattr(kind, "export", export)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_no_span_is_lost_to_an_exporter_whose_insides_want_another_argument(
    receiver: OtlpReceiver, exporter: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It shows at the first delivery: these spans go as the SDK encodes them, and so do all others, also those with new
    headers. It is said once."""
    otherwise_inside(exporter, monkeypatch)
    options = ExportOptions(
        exporter, "replica-1", endpoint=receiver.endpoint(exporter), headers={"X-Key": "old"}, compression="gzip"
    )
    assert isinstance(exporter_for(options), Delivering)
    traces = part(options)
    told(traces, span_id="nonsense")
    told(traces)
    assert traces.flush(60)
    assert set(receiver.tree(TRACE_ID, stages=5)) >= {"POST /predict/{route}", "decode", "decide", "queue", "compute"}
    traces.told("secrets", {"otlp_headers": {"X-Key": "new"}, "sinks": {}})
    told(traces)
    assert traces.flush(60)
    assert receiver.headers["x-key"] == "new"
    assert exporter == "otlp-grpc" or receiver.headers["content-encoding"] == "gzip"
    counts = traces.ask("traces", {})
    assert (counts["exported"], counts["dropped"]["not-delivered"]) == (14, 7)
    assert caplog.text.count("has other insides") == 1
    traces.close()


def test_an_encoder_that_is_gone_costs_no_span_either(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked for resource and scope, at the start; the exporter may know where it went."""
    monkeypatch.delattr(import_module("opentelemetry.exporter.otlp.proto.common.trace_encoder"), "encode_spans")
    traces = part(ExportOptions("otlp", "replica-1", endpoint=receiver.http_endpoint, compression="gzip"))
    told(traces)
    assert traces.flush(60)
    assert "compute" in receiver.tree(TRACE_ID, stages=5)
    assert traces.ask("traces", {})["exported"] == 7
    assert caplog.text.count("has other insides") == 1
    traces.close()


def test_an_error_of_the_kind_that_other_insides_raise_is_seen_where_the_client_catches_it(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HTTP client catches what its transport raises."""
    client = import_module("opentelemetry.exporter.otlp.common.http")._OTLPHTTPClient

    def submitted(self: Any, data: Any, timeout: float) -> Any:
        raise TypeError("expected a request, got bytes")

    monkeypatch.setattr(client, "_submit", submitted)
    raised = exporter_for(ExportOptions("otlp", "replica-1", endpoint=receiver.http_endpoint))
    assert isinstance(raised, Delivering)
    with pytest.raises(TypeError, match="expected a request"):
        raised.deliver(b"", 1)
    raised.shutdown()


def test_an_exporter_that_took_bytes_before_gets_them_also_after_an_error(receiver: OtlpReceiver) -> None:
    """What it raises then comes from elsewhere; these spans are lost, and counted."""
    delivering = exporter_for(ExportOptions("otlp", "replica-1", endpoint=receiver.http_endpoint))
    assert isinstance(delivering, Delivering)
    failures = [TypeError("of the client's own making")]

    class Failing:
        def deliver(self, body: bytes, spans: int) -> bool:
            if receiver.exports and failures:
                raise failures.pop()
            return delivering.deliver(body, spans)

        def plain(self) -> SpanExporter:
            raise NotImplementedError

        def shutdown(self) -> None:
            delivering.shutdown()

    traces = Traces(SdkExporter(Failing(), gateway="replica-1"), Place("replica-1"))
    for _ in range(3):
        told(traces)
        assert traces.flush(60)
    counts = traces.ask("traces", {})
    assert (counts["exported"], counts["dropped"]["not-delivered"]) == (14, 7)
    traces.close()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_request_whose_span_has_no_id_is_lost_alone(receiver: OtlpReceiver, exporter: str) -> None:
    """With its stages, which hang under it, and its batch, which links to it; its neighbours go out."""
    traces = part(ExportOptions(exporter, "replica-1", endpoint=receiver.endpoint(exporter)))
    told(traces, span_id="nonsense")
    told(traces)
    assert traces.flush(60)
    assert {span.name for span in receiver.spans if span.trace_id == TRACE_ID} >= {"decode", "compute"}
    counts = traces.ask("traces", {})
    assert (counts["dropped"]["not-delivered"], counts["exported"]) == (7, 7)
    traces.close()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_spans_after_a_rotation_go_out_with_the_new_headers(receiver: OtlpReceiver, exporter: str) -> None:
    """The SDK takes headers once, so it is another exporter; no span is lost on the way to it."""
    traces = part(
        ExportOptions(exporter, "replica-1", endpoint=receiver.endpoint(exporter), headers={"Authorization": "old"})
    )
    for said in ("old", "new", "newer"):
        if said != "old":
            traces.told("secrets", {"otlp_headers": {"Authorization": said}, "sinks": {}})
        told(traces)
        assert traces.flush(60)
        assert receiver.headers["authorization"] == said
    assert traces.ask("traces", {})["exported"] == 21
    assert not any(traces.ask("traces", {})["dropped"].values())
    traces.close()


def test_headers_that_no_exporter_could_be_made_with_are_tried_again(receiver: OtlpReceiver) -> None:
    """Its certificate may be away for the moment; the one before goes on until then."""
    options, away = ExportOptions("otlp", "replica-1", endpoint=receiver.http_endpoint), [FileNotFoundError("ca.pem")]

    def made(headers: Mapping[str, str]) -> SpanExporter | Delivering:
        if away:
            raise away.pop()
        return exporter_for(options._replace(headers=headers))

    exporter = SdkExporter(exporter_for(options), gateway="replica-1", anew=made)
    exporter.renew({"authorization": "new"})
    with pytest.raises(FileNotFoundError):
        exporter.export([])
    assert exporter.export([])
    assert receiver.headers["authorization"] == "new"
    exporter.close()


def test_a_secret_with_spaces_around_it_is_a_header_and_stands_in_no_error(
    receiver: OtlpReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP client refuses such a value, and names it."""
    (tmp_path / "key").write_text(" Bearer s3cret\t\n")
    headers = {"authorization": {"file": tmp_path / "key"}}
    said = settings(tmp_path, trace_exporter="otlp", otlp_endpoint=receiver.http_endpoint, otlp_headers=headers)
    options = export_options(said, gateway="replica-1")
    assert options is not None
    traces = part(options)
    told(traces)
    assert traces.flush(60)
    traces.close()
    assert "s3cret" not in caplog.text
    assert receiver.headers["authorization"] == "Bearer s3cret"
    (tmp_path / "key").write_text(" \t\n")
    with pytest.raises(SettingsError, match="nothing but spaces"):
        export_options(said, gateway="replica-1")


def test_attributes_that_others_named_have_the_names_that_they_gave(receiver: OtlpReceiver) -> None:
    """Against the constants of the package of semantic conventions, deprecated ones not among them."""
    traces = part(ExportOptions("otlp", "replica-1", endpoint=receiver.http_endpoint))
    told(
        traces, code=500, error="ModelError", decision=decision()._replace(flag=("beta", "on", "flagd"), flag_age_s=1.0)
    )
    traces.flush(60)
    root = receiver.tree(TRACE_ID)["POST /predict/{route}"]
    known = {
        value
        for module in (feature_flag_attributes, error_attributes, http_attributes, server_attributes, url_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    } - {"feature_flag.variant", "feature_flag.evaluation.reason"}
    assert {name for name in root.attributes if not name.startswith("turnout.")} <= known
    assert root.attributes["feature_flag.result.reason"] in {
        value.value for value in feature_flag_attributes.FeatureFlagResultReasonValues
    }
    assert root.error == "ModelError"
    traces.close()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_collector_that_is_not_there_costs_a_count(exporter: str) -> None:
    """The exporter's tries are over with its time-out; the spans are lost, and nothing else."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        traces = part(ExportOptions(exporter, "replica-1", endpoint=endpoint, timeout_s=0.2))
        told(traces)
        assert traces.flush(60)
        assert traces.ask("traces", {})["dropped"]["not-delivered"] == 7
        traces.close()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_collector_that_refuses_costs_a_count(receiver: OtlpReceiver, exporter: str) -> None:
    """And what comes once it takes them again arrives."""
    traces = part(ExportOptions(exporter, "replica-1", endpoint=receiver.endpoint(exporter)))
    receiver.broken.set()
    told(traces)
    assert traces.flush(60)
    receiver.broken.clear()
    told(traces)
    assert traces.flush(60)
    counts = traces.ask("traces", {})
    assert (counts["dropped"]["not-delivered"], counts["exported"]) == (7, 7)
    traces.close()


@pytest.mark.parametrize(
    "hostile", ["x" * 8192, "a=1,a=2", "=", "a=\x00", "ä=1", ",".join(f"k{n}=v" for n in range(99))]
)
def test_a_state_that_is_none_is_left_out_and_its_span_arrives(receiver: OtlpReceiver, hostile: str) -> None:
    """Had one come through the door that the door should have dropped."""
    traces = part(ExportOptions("otlp", "replica-1", endpoint=receiver.http_endpoint))
    told(traces, trace_state=hostile, request_id="\ud800" + "x" * 8192)
    assert traces.flush(60)
    root = receiver.tree(TRACE_ID)["POST /predict/{route}"]
    assert len(root.state) < 600
    assert len(root.attributes["turnout.request_id"]) <= 500
    traces.close()


def test_an_exporter_without_a_collector_says_so_once_a_minute() -> None:
    """Not at each of its tries; and again after a clock that was set back."""
    seldom = Seldom()
    lines = [logging.makeLogRecord({"created": created}) for created in (100.0, 101.0, 159.0, 160.0, 161.0, 90.0)]
    assert [seldom.filter(line) for line in lines] == [True, False, False, True, False, True]
    exporter_for(ExportOptions("otlp", "replica-1"))
    exporter_for(ExportOptions("otlp", "replica-1"))
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    assert [type(one) for one in logger.filters] == [Seldom]


def test_a_resource_whose_hash_is_known_sorts_as_the_sdks_own() -> None:
    """Equal to it, with the same hash: exporters group spans by both."""
    said = {"service.name": "turnout", "service.version": __version__}
    known, own = KnownResource(said, "https://schema"), Resource(said, "https://schema")
    assert hash(known) == hash(own)
    assert {own: "found"}[known] == "found"
    assert known != KnownResource(said, "")


def test_the_global_provider_is_left_alone() -> None:
    """Whoever embeds the gateway may have set their own."""
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_the_console_is_an_exporter_too() -> None:
    """On standard error, since logs own standard output."""
    assert isinstance(exporter_for(ExportOptions("console", "replica-1")), ConsoleSpanExporter)


def settings(folder: Path, **telemetry: Any) -> Settings:
    return load_settings(
        overrides={"home": folder, **{f"telemetry.{name}": value for name, value in telemetry.items()}}
    )


def test_settings_become_options_and_secrets_are_read_once(tmp_path: Path) -> None:
    """From a file, less its line break; and they are not in what a log would show of them."""
    (tmp_path / "key").write_text("Bearer s3cret\n")
    said = settings(
        tmp_path,
        trace_exporter="otlp",
        otlp_endpoint="https://collector:4318",
        otlp_headers={"authorization": {"file": tmp_path / "key"}},
    )
    options = export_options(said, gateway="replica-1")
    assert options is not None
    assert options.headers == {"authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(options)
    assert ExportOptions.from_json(options.to_json()) == options
    assert export_options(settings(tmp_path), gateway="replica-1") is None


@pytest.mark.parametrize(
    ("telemetry", "said"),
    [
        ({"otlp_endpoint": "collector:4318"}, "expected http://HOST:PORT"),
        ({"otlp_endpoint": "http://me:word@collector"}, "a password in it"),
        ({"trace_exporter": "otlp-grpc", "otlp_endpoint": "http://c:4317/v1/traces"}, "gRPC does not take"),
        ({"otlp_headers": {"a b": {"env": "X"}}}, "otlp_headers"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(
    tmp_path: Path, telemetry: dict[str, Any], said: str
) -> None:
    """With what was expected instead."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"home: {tmp_path}\ntelemetry: {telemetry!r}\n")
    with pytest.raises(SettingsError, match=said):
        load_settings(path)


def test_what_is_not_there_is_named_at_the_start(tmp_path: Path) -> None:
    """A secret, and a certificate: not at the first span."""
    missing = settings(tmp_path, trace_exporter="otlp", otlp_headers={"a": {"file": tmp_path / "none"}})
    with pytest.raises(SettingsError, match=r"telemetry\.otlp_headers\.a"):
        export_options(missing, gateway="replica-1")
    missing = settings(tmp_path, trace_exporter="otlp", otlp_certificate=tmp_path / "none")
    with pytest.raises(SettingsError, match="otlp_certificate"):
        export_options(missing, gateway="replica-1")
