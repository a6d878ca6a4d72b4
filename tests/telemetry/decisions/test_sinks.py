"""Sinks of the decision log: everything arrives at least once, whatever the receiver does, and nothing waits for it."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from gateway.clock import SystemClock
from gateway.settings import SecretSource, SettingsError, SinkSettings
from gateway.telemetry.decisions.segments import listed, remove
from gateway.telemetry.decisions.sinks.choice import options_of
from gateway.telemetry.decisions.sinks.following import Sinks
from gateway.telemetry.decisions.upkeep import LogUpkeep, UpkeepOptions
from loadtests.redis_server import RedisServer
from tests.telemetry.decisions.follower import Receiving, Written, eventually, lines, receiving

QUICK = {"batch_records": 50, "timeout_s": 60.0, "from_start": True}
LABELS = {"instance": "one", "build": "0.1"}


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path / "home")
    yield made
    made.close()


@contextmanager
def following(written: Written, *sinks: dict[str, Any]) -> Iterator[Sinks]:
    chosen = [SinkSettings.model_validate({**QUICK, **sink}) for sink in sinks]
    made = Sinks(options_of(chosen), folder=written.folder, durable=written.durable, clock=SystemClock(), labels=LABELS)
    try:
        yield made
    finally:
        made.close()
        # Its last word is how far it has come, which the next one begins with.
        eventually(lambda: not any(pump._thread.is_alive() for pump in made._pumps))


def events(there: Receiving) -> list[dict[str, Any]]:
    return [event for body in there.bodies() for event in json.loads(body)]


def ids(there: Receiving) -> list[str]:
    return [event["id"] for event in events(there)]


def of(first: int, count: int) -> list[str]:
    return [f"d-{number}" for number in range(first, first + count)]


def standing(sinks: Sinks, place: int = 0) -> dict[str, Any]:
    return dict(sinks.statistics()[place])


# CloudEvents over HTTP


def test_decisions_come_as_batches_of_signed_cloud_events(written: Written, tmp_path: Path) -> None:
    """With the decision's id, the time of the request, the record as data, and what makes them this gateway's."""
    (tmp_path / "secret").write_text("not to be told\n")
    written.write(120)
    with receiving() as there:
        sink = {"name": "events", "kind": "cloudevents", "url": there.url + "/in", "secret": _file(tmp_path / "secret")}
        with following(written, sink) as sinks:
            eventually(lambda: len(events(there)) == 120)
            eventually(lambda: standing(sinks)["sent"] == 120)
            written.write(5)
            sinks.tick()
            eventually(lambda: len(events(there)) == 125)
        assert ids(there) == of(0, 125)
        assert [len(json.loads(body)) for body in there.bodies()][:3] == [50, 50, 20]
        first = events(there)[0]
        assert (first["specversion"], first["type"], first["source"]) == ("1.0", "io.turnout.decision", "/turnout/one")
        assert (first["time"], first["subject"]) == ("2023-11-14T22:13:20.000000Z", "digits")
        assert (first["data"]["version"], first["data"]["code"], "error" in first["data"]) == (3, 200, False)
        headers, body = there.got[0]
        assert headers["content-type"] == "application/cloudevents-batch+json"
        stamp, _, digest = headers["x-turnout-signature"].partition(",v1=")
        signed = stamp.removeprefix("t=").encode() + b"." + body
        assert digest == hmac.new(b"not to be told", signed, hashlib.sha256).hexdigest()


def _file(path: Path) -> dict[str, str]:
    return {"file": str(path)}


def test_a_receiver_that_answers_500_gets_the_same_records_until_it_takes_them(written: Written) -> None:
    """None is left out, none comes out of order, and the lag shows meanwhile."""
    written.write(80)
    with receiving() as there:
        there.answer = lambda _: 500
        with following(written, {"name": "events", "kind": "cloudevents", "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["failed_attempts"] >= 2)
            now = standing(sinks)
            assert (now["sent"], now["lag_lines"] >= 80, now["lag_s"] >= 0) == (0, True, True)
            assert now["trouble"].startswith("status 500")
            there.answer = lambda _: 200
            eventually(lambda: standing(sinks)["sent"] == 80)
            eventually(lambda: standing(sinks)["lag_lines"] == 0)
            assert standing(sinks)["trouble"] == ""
        assert len(set(there.bodies()[:3])) == 1
        assert set(ids(there)) == set(of(0, 80))


def test_what_is_too_large_is_halved_and_a_record_that_is_too_large_alone_is_given_up(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    """413: the others come through, and it is counted."""
    made = lines(0, 40)
    made[17] = lines(17, 1, payload="x" * 5000)[0]
    written.append(made)
    with receiving() as there:
        there.answer = lambda body: 413 if len(body) > 4500 else 204
        with following(written, {"name": "events", "kind": "cloudevents", "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["sent"] == 39)
            assert standing(sinks)["refused"] == 1
            assert "record 20 is given up: status 413" in caplog.text
            written.write(1)
            sinks.tick()
            eventually(lambda: standing(sinks)["sent"] == 40)
        taken = [event["id"] for body in there.bodies() if len(body) <= 4500 for event in json.loads(body)]
        assert sorted(taken) == sorted([*of(0, 17), *of(18, 22), "d-40"])


def test_a_receiver_that_may_not_be_written_to_costs_no_record(written: Written) -> None:
    """401 and 404 are the operator's to mend, not the record's fault."""
    written.write(3)
    with receiving() as there:
        there.answer = lambda _: 401
        with following(written, {"name": "events", "kind": "cloudevents", "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["failed_attempts"] >= 1)
            there.answer = lambda _: 200
            eventually(lambda: standing(sinks)["sent"] == 3)
            assert standing(sinks)["refused"] == 0


def test_a_receiver_that_never_answers_holds_up_no_other_and_not_the_end(written: Written) -> None:
    """Each sink has a thread of its own; ending waits for none."""
    written.write(10)
    with receiving() as slow, receiving() as there:
        slow.answer = lambda _: None
        sinks = [
            {"name": name, "kind": "cloudevents", "url": url, "timeout_s": 60.0}
            for name, url in (("slow", slow.url), ("quick", there.url))
        ]
        with following(written, *sinks) as both:
            eventually(lambda: len(slow.got) == 1)
            eventually(lambda: standing(both, 1)["sent"] == 10)
            assert standing(both)["sent"] == 0
        with following(written, {**sinks[0], "url": there.url}) as again:
            eventually(lambda: standing(again)["sent"] == 10)


def test_a_process_that_starts_later_goes_on_where_the_last_one_was(written: Written) -> None:
    """Also where it ended within a batch that had been halved; nothing is left out."""
    written.write(130)
    sink = {"name": "events", "kind": "cloudevents"}
    with receiving() as there:
        with following(written, {**sink, "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["sent"] == 130)
        there.answer = lambda body: 500 if b'"d-175"' in body else 200
        written.write(70)
        with following(written, {**sink, "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["failed_attempts"] >= 1)
            assert standing(sinks)["sent"] >= 0
        there.answer = lambda _: 200
        with following(written, {**sink, "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["lag_lines"] == 0)
        came = ids(there)
        assert [came.count(one) for one in of(0, 130)] == [1] * 130
        assert set(came) == set(of(0, 200))


def test_a_receiver_that_is_gone_for_long_costs_no_memory_and_no_record(written: Written) -> None:
    """The files are the queue: 20,000 records later the process holds a page."""
    sink = {"name": "events", "kind": "cloudevents", "batch_records": 500}
    with receiving(away=True) as there, following(written, {**sink, "url": there.url}) as sinks:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            written.append(lines(written.count, 1000))
            sinks.tick()
        eventually(lambda: standing(sinks)["failed_attempts"] >= 1)
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert after - before < 2_000_000
        assert standing(sinks)["lag_lines"] >= 20_000
        there.arrive()
        eventually(lambda: standing(sinks)["sent"] == 20_000, within_s=180.0)
        assert ids(there) == of(0, 20_000)


# The files behind it


def test_a_segment_that_was_retired_unsent_is_counted_and_passed_over(tmp_path: Path) -> None:
    """By retention, or by a hand: what follows is sent."""
    written = Written(tmp_path / "home", segment_bytes=20_000)
    for _ in range(12):
        written.write(100)
    segments = listed(written.folder)
    assert len(segments) > 4
    for segment in segments[:2]:
        remove(segment)
    with receiving() as there, following(written, {"name": "events", "kind": "cloudevents", "url": there.url}) as sinks:
        eventually(lambda: standing(sinks)["lag_lines"] == 0)
        came = ids(there)
        assert came == of(1200 - len(came), len(came))
        assert standing(sinks)["skipped"] >= 1200 - len(came) > 0
    written.close()


def test_every_record_of_every_segment_comes_once_while_they_are_written_and_rotated(tmp_path: Path) -> None:
    """The reader is behind the writer all the time, over many ends of files."""
    written = Written(tmp_path / "home", segment_bytes=8_000)
    with receiving() as there, following(written, {"name": "events", "kind": "cloudevents", "url": there.url}) as sinks:
        for _ in range(150):
            written.write(20)
            sinks.tick()
        eventually(lambda: standing(sinks)["sent"] == 3000)
        assert ids(there) == of(0, 3000)
        assert len(listed(written.folder)) > 30
    written.close()


def test_a_dead_sink_holds_back_so_much_of_the_log_as_it_may(tmp_path: Path) -> None:
    """The oldest segment that is to wait for it, before compaction takes the frames; a sink that is up to date holds
    nothing but what it reads."""
    written = Written(tmp_path / "home", segment_bytes=8_000)
    with receiving() as there:
        there.answer = lambda _: 503
        sink = {"name": "events", "kind": "cloudevents", "url": there.url}
        with following(written, {**sink, "hold_bytes": 10**9}) as sinks:
            for _ in range(40):
                written.write(20)
            segments = listed(written.folder)
            eventually(lambda: standing(sinks)["failed_attempts"] >= 1)
            assert sinks.first_needed(segments) == segments[0].number
        with following(written, {**sink, "hold_bytes": 30_000}) as sinks:
            eventually(lambda: standing(sinks)["failed_attempts"] >= 1)
            first = sinks.first_needed(segments)
            assert first is not None
            assert segments[0].number < first <= segments[-1].number
            held = [segment.bytes for segment in segments if segment.number >= first]
            assert sum(held) <= 30_000
            there.answer = lambda _: 200
            eventually(lambda: standing(sinks)["lag_lines"] == 0)
            assert sinks.first_needed(segments) == segments[-1].number
    written.close()


def test_segments_are_compacted_once_every_sink_has_read_them(tmp_path: Path) -> None:
    """By the log's own upkeep, in its own process; not one record is missing at the sink."""
    written = Written(tmp_path / "home", segment_bytes=8_000)
    with receiving() as there:
        there.answer = lambda _: 503
        with following(written, {"name": "events", "kind": "cloudevents", "url": there.url}) as sinks:
            upkeep = LogUpkeep(written.log, UpkeepOptions(), clock=SystemClock(), needed=sinks.first_needed)
            for _ in range(4):
                written.write(50)
            eventually(lambda: standing(sinks)["failed_attempts"] >= 1)
            upkeep.look()
            assert repr(upkeep).startswith("<LogUpkeep [idle")
            there.answer = lambda _: 200
            eventually(lambda: standing(sinks)["lag_lines"] == 0)
            upkeep.look()
            upkeep.wait(200)
            assert upkeep.statistics()["compacted"] == 1
            assert not listed(written.folder)[0].raw
            written.write(50)
            sinks.tick()
            eventually(lambda: standing(sinks)["lag_lines"] == 0)
            assert (standing(sinks)["sent"], standing(sinks)["skipped"]) == (250, 0)
            upkeep.close()
        assert set(ids(there)) == set(of(0, 250))
    written.close()


def test_a_log_that_is_another_than_was_followed_is_sent_from_its_beginning(tmp_path: Path) -> None:
    """A home that was emptied but for the cursor."""
    first, second = Written(tmp_path / "one"), Written(tmp_path / "two")
    sink = {"name": "events", "kind": "cloudevents"}
    with receiving() as there:
        first.write(100)
        with following(first, {**sink, "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["sent"] == 100)
        (second.folder / "sinks").mkdir()
        (second.folder / "sinks" / "events.json").write_bytes((first.folder / "sinks" / "events.json").read_bytes())
        second.write(7)
        with following(second, {**sink, "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["sent"] == 7)
    first.close()
    second.close()


def test_a_new_sink_begins_with_the_next_record_unless_it_is_told_to_begin_with_the_first(written: Written) -> None:
    """``from_start`` is for a sink that is to have everything."""
    written.write(10)
    with receiving() as there:
        sink = {"name": "events", "kind": "cloudevents", "url": there.url, "from_start": False}
        with following(written, sink) as sinks:
            eventually((written.folder / "sinks" / "events.json").exists)
            written.write(3)
            sinks.tick()
            eventually(lambda: standing(sinks)["sent"] == 3)
        assert ids(there) == of(10, 3)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sequence": "x"}', b'{"sequence": -4}', b"\xff" * 100])
def test_a_cursor_that_cannot_be_read_is_none(written: Written, content: bytes) -> None:
    """Hostile bytes cost what a new sink costs."""
    (written.folder / "sinks").mkdir()
    (written.folder / "sinks" / "events.json").write_bytes(content)
    written.write(4)
    with (
        receiving() as there,
        following(written, {"name": "events", "kind": "cloudevents", "url": there.url}) as sinks,
    ):
        eventually(lambda: standing(sinks)["sent"] == 4)


# OpenTelemetry


def test_decisions_are_log_records_that_a_collector_can_read(written: Written) -> None:
    """Protobuf over HTTP, with trace and span, OpenTelemetry's names where it has some, and who sent them."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    written.append(lines(0, 2) + lines(2, 1, code=500, error="ModelError", trace=trace, span=span, flag="new-model"))
    with receiving() as there, following(written, {"name": "logs", "kind": "otlp", "url": there.url}) as sinks:
        eventually(lambda: standing(sinks)["sent"] == 3)
        [(headers, body)] = there.got
    assert (headers["content-type"], headers["content-encoding"]) == ("application/x-protobuf", "gzip")
    request = ExportLogsServiceRequest.FromString(gzip.decompress(body))
    [resource] = request.resource_logs
    facts = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert facts == {"service.name": "turnout", "service.instance.id": "one", "service.version": "0.1"}
    records = resource.scope_logs[0].log_records
    assert [record.event_name for record in records] == ["turnout.decision"] * 3
    assert [record.severity_text for record in records] == ["INFO", "INFO", "ERROR"]
    assert records[0].time_unix_nano == 1_700_000_000_000_000_000
    assert (records[2].trace_id.hex(), records[2].span_id.hex()) == (trace, span)
    assert records[2].body.string_value == "digits: digits/3 answered 500 (split)"
    found = {pair.key: pair.value for pair in records[2].attributes}
    assert found["turnout.decision"].string_value == "d-2"
    assert found["http.response.status_code"].int_value == 500
    assert (found["error.type"].string_value, found["feature_flag.key"].string_value) == ("ModelError", "new-model")
    assert found["turnout.slow"].bool_value is False


def test_what_a_collector_rejects_of_a_batch_is_counted_and_not_sent_again(written: Written) -> None:
    """As the protocol says."""
    said = ExportLogsServiceResponse()
    said.partial_success.rejected_log_records = 3
    written.write(10)
    with receiving() as there:
        there.answer = lambda _: (200, said.SerializeToString())
        with following(written, {"name": "logs", "kind": "otlp", "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["lag_lines"] == 0)
            assert (standing(sinks)["sent"], standing(sinks)["refused"], len(there.got)) == (7, 3, 1)


def test_a_collector_that_answers_what_nobody_can_read_has_taken_the_batch(written: Written) -> None:
    """200 is what counts; the rest is hostile."""
    written.write(10)
    with receiving() as there:
        there.answer = lambda _: (200, b"\xff" * 1000)
        with following(written, {"name": "logs", "kind": "otlp", "url": there.url}) as sinks:
            eventually(lambda: standing(sinks)["sent"] == 10)


# Redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


def test_decisions_go_into_a_stream_that_keeps_about_so_many(written: Written, own_redis: RedisServer) -> None:
    """With what a consumer chooses by beside the whole record."""
    written.write(2000)
    sink = {"name": "stream", "kind": "redis", "url": own_redis.url, "key": "seen", "max_records": 1000}
    client: Any = redis.Redis.from_url(own_redis.url)
    with following(written, sink) as sinks:
        eventually(lambda: standing(sinks)["sent"] == 2000)
    kept = client.xrange("seen")
    client.close()
    assert 1000 <= len(kept) < 1300
    fields = kept[-1][1]
    assert (fields[b"decision"], fields[b"version"], fields[b"instance"]) == (b"d-1999", b"3", b"one")
    assert json.loads(fields[b"record"])["request"] == "r-1999"


def test_a_redis_that_goes_and_comes_back_has_every_record(written: Written, own_redis: RedisServer) -> None:
    """At least once; what was not answered is written again."""
    sink = {"name": "stream", "kind": "redis", "url": own_redis.url, "key": "seen"}
    with following(written, sink) as sinks:
        written.write(60)
        sinks.tick()
        eventually(lambda: standing(sinks)["sent"] == 60)
        own_redis.stop()
        written.write(60)
        sinks.tick()
        eventually(lambda: standing(sinks)["failed_attempts"] >= 1)
        assert standing(sinks)["trouble"].startswith("ConnectionError")
        own_redis.start()
        eventually(lambda: standing(sinks)["sent"] == 120)
    client: Any = redis.Redis.from_url(own_redis.url)
    assert {fields[b"decision"].decode() for _, fields in client.xrange("seen")} == set(of(0, 120))
    client.close()


def test_a_key_that_is_no_stream_is_told_and_costs_no_record(written: Written, own_redis: RedisServer) -> None:
    """An operator's mistake is shown, and mended without a restart."""
    client: Any = redis.Redis.from_url(own_redis.url)
    client.set("seen", "something else")
    written.write(5)
    with following(written, {"name": "stream", "kind": "redis", "url": own_redis.url, "key": "seen"}) as sinks:
        eventually(lambda: "WRONGTYPE" in standing(sinks)["trouble"])
        client.delete("seen")
        eventually(lambda: standing(sinks)["sent"] == 5)
    assert client.xlen("seen") == 5
    client.close()


# Secrets that are rotated


def test_what_is_sent_after_a_rotation_goes_by_the_new_secrets(written: Written) -> None:
    """Signature and headers of one kind, headers of the other; nothing is sent twice or left out."""
    with receiving() as there, receiving() as collector:
        collector.answer = lambda _: 200 if collector.got[-1][0].get("authorization") == "Bearer new" else 401
        events_to = {"name": "events", "kind": "cloudevents", "url": there.url}
        logs_to = {"name": "logs", "kind": "otlp", "url": collector.url}
        with following(written, events_to, logs_to) as sinks:
            written.write(10)
            sinks.tick()
            eventually(lambda: standing(sinks)["sent"] == 10)
            eventually(lambda: standing(sinks, 1)["trouble"].startswith("status 401"))
            assert "x-turnout-signature" not in there.got[-1][0]
            bearer = {"secret": None, "headers": {"authorization": "Bearer new"}}
            sinks.renew({"events": {"secret": "new", "headers": {"x-key": "k"}}, "logs": bearer, "gone": {}})
            eventually(lambda: standing(sinks, 1)["sent"] == 10)
            written.write(10)
            sinks.tick()
            eventually(lambda: standing(sinks)["sent"] == 20)
        headers, body = there.got[-1]
        stamp, _, digest = headers["x-turnout-signature"].partition(",v1=")
        assert digest == hmac.new(b"new", stamp.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
        assert headers["x-key"] == "k"
        assert ids(there) == of(0, 20)


def test_a_redis_whose_password_is_rotated_is_written_to_with_the_new_one(written: Written, tmp_path: Path) -> None:
    """From the next connection on."""
    with RedisServer(tmp_path / "guarded", options=("--requirepass", "old")) as server:
        client: Any = redis.Redis.from_url(server.url, password="old")
        (tmp_path / "password").write_text("old")
        sink = {
            "name": "stream",
            "kind": "redis",
            "url": server.url,
            "key": "seen",
            "secret": _file(tmp_path / "password"),
        }
        with following(written, sink) as sinks:
            written.write(5)
            sinks.tick()
            eventually(lambda: standing(sinks)["sent"] == 5)
            client.config_set("requirepass", "new")
            client.client_kill_filter(skipme=True, _type="normal")
            sinks.renew({"stream": {"secret": "new", "headers": {}}})
            written.write(5)
            sinks.tick()
            eventually(lambda: standing(sinks)["sent"] == 10)
        assert client.xlen("seen") == 10
        client.close()


# Settings


@pytest.mark.parametrize(
    ("sink", "why"),
    [
        ({"kind": "otlp", "url": "redis://host"}, "expected http://"),
        ({"kind": "redis", "url": "redis://:secret@host"}, "holds a password"),
        ({"kind": "cloudevents", "url": "http://[::"}, "does not fit"),
        ({"kind": "otlp", "url": "http://host", "name": "../x"}, "name"),
    ],
)
def test_a_sink_that_cannot_work_is_refused_by_name(sink: dict[str, str], why: str) -> None:
    """At the start, not at the first record."""
    with pytest.raises(ValueError, match=why):
        SinkSettings.model_validate({"name": "one", **sink})


def test_a_secret_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """With the key in the settings that names it."""
    sink = SinkSettings(
        name="one", kind="otlp", url="http://host", headers={"authorization": SecretSource(file=tmp_path / "none")}
    )
    with pytest.raises(SettingsError, match=r"telemetry\.decisions\.sinks\.one\.headers\.authorization"):
        options_of([sink])
