"""Rules that name a flag: values become versions, data has an age, and a provider that fails hurts nobody."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails

from gateway.clock import ManualClock
from gateway.control.flag_budget import EvaluationBudget
from gateway.control.flag_file import MAX_FILE_BYTES, MAX_YAML_BYTES, FlagdFile
from gateway.control.flag_provider import provider_maker
from gateway.control.flag_rules import version_said
from gateway.control.flags import Evaluation, Flags
from gateway.control.run_queue import RunQueue
from gateway.errors import LoadError, SettingsError
from gateway.settings import FlagSettings
from tests.control.flag_providers import said
from tests.control.scene import Scene, scene, until

IN_MEMORY = "openfeature.provider.in_memory_provider:InMemoryProvider"
HERE = "tests.control.flag_providers"
BETA = {"name": "beta", "flag": "new-model"}


def flag_file(path: Path, value: object, **more: object) -> Path:
    """A file of flagd's with one flag; written whole."""
    flag = {"state": "ENABLED", "variants": {"only": value}, "defaultVariant": "only", **more}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"flags": {"new-model": flag}}))
    partial.replace(path)
    return path


PATIENT = {"budget_ms": 1000.0, "ready_s": 60.0}
"""A busy machine may hold up an evaluation, and the opening of the provider."""


def flagd(path: Path) -> dict[str, Any]:
    return {"provider": "flagd-file", "path": path, **PATIENT}


def memory(value: object, **more: Any) -> dict[str, Any]:
    return {"provider": IN_MEMORY, "options": {"flags": {"new-model": said(value, **more)}}, **PATIENT}


async def look(stage: Scene) -> None:
    """One look after the provider, as there is one every half a second."""
    await stage.plane.flags.tend()


async def chosen(stage: Scene, **facts: Any) -> tuple[int, str]:
    decision = (await stage.predict(**facts)).decision
    assert decision is not None
    return decision.version.number, decision.reason


def causes(stage: Scene) -> list[str]:
    return [miss.cause for miss in stage.recording.flag_misses]


async def test_a_flag_in_a_file_says_the_version_and_a_change_of_the_file_is_in_force_at_the_next_look(
    tmp_path: Path,
) -> None:
    """The versions that it may name are loaded in advance, so nobody waits for one."""
    path = flag_file(tmp_path / "flags.json", 4)
    async with scene(tmp_path, flags=flagd(path)) as stage:
        await stage.put({3: 100}, rules=[{**BETA, "versions": [4, 5]}])
        record = await stage.predict()
        assert record.decision is not None
        assert (record.decision.version.number, record.decision.reason) == (4, "rule:beta")
        assert record.decision.flag == ("new-model", "only", "flagd-file")
        assert record.decision.flag_age_s == 0.0
        flag_file(path, "digits/5")
        stage.clock.advance(0.5)  # type: ignore[attr-defined]
        await until(lambda: stage.plane.flags.age_s() == 0.0)
        assert await chosen(stage) == (5, "rule:beta")
        assert not stage.recording.flag_misses


@pytest.mark.parametrize("text", ["", "{", "{}", '{"flags": {"new-model": {"state": "MAYBE"}}}', "[]", '{"flags": []}'])
async def test_a_broken_file_changes_nothing_until_its_data_is_too_old(tmp_path: Path, text: str) -> None:
    """The last good flags stay and grow old; then the known good answers; a good file ends it."""
    path = flag_file(tmp_path / "flags.json", 4)
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, flags=flagd(path)) as stage:
        await stage.put({3: 100}, rules=[{**BETA, "versions": [4]}], stale_after_s=30)
        path.write_text(text)
        clock.advance(20)
        await look(stage)
        record = await stage.predict()
        assert record.decision is not None
        assert (record.decision.version.number, record.decision.flag_age_s) == (4, 20.0)
        assert "flags.json holds no flags" in stage.plane.flag_watch.degraded()[0]
        clock.advance(11)
        record = await stage.predict()
        assert record.decision is not None
        assert (record.decision.version.number, record.decision.reason) == (3, "rule:beta")
        assert (record.decision.flag_stale, record.decision.flag_age_s) == (True, 31.0)
        assert causes(stage) == ["stale"]
        flag_file(path, 4)
        await look(stage)
        assert await chosen(stage) == (4, "rule:beta")
        assert not stage.plane.flag_watch.degraded()


async def test_without_a_limit_old_data_is_gone_by_and_its_age_is_told(tmp_path: Path) -> None:
    """How old is too old is for the route to say."""
    path = flag_file(tmp_path / "flags.json", 4)
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, flags=flagd(path)) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        path.unlink()
        await look(stage)
        clock.advance(86_400)
        record = await stage.predict()
        assert record.decision is not None
        assert (record.decision.version.number, record.decision.flag_age_s) == (4, 86_400.0)


async def test_before_there_is_any_data_the_known_good_answers_and_not_the_default(tmp_path: Path) -> None:
    """A file that is not there yet; it is read as soon as it is."""
    path = tmp_path / "flags.json"
    async with scene(tmp_path, flags=flagd(path)) as stage:
        await stage.put({2: 100, 3: 0, 4: 0}, rules=[BETA], known_good=3)
        assert await chosen(stage) == (3, "rule:beta")
        assert causes(stage) == ["not-ready"]
        assert "cannot be read" in stage.plane.flag_watch.degraded()[0]
        flag_file(path, 4)
        await look(stage)
        assert await chosen(stage) == (4, "rule:beta")


async def test_a_route_that_names_a_flag_where_no_provider_is_configured_is_degraded(tmp_path: Path) -> None:
    """And its known good answers: nobody said what the flag is."""
    async with scene(tmp_path) as stage:
        await stage.put({3: 100})
        assert not stage.plane.flag_watch.degraded()
        await stage.put({2: 100, 3: 0}, rules=[BETA])
        assert await chosen(stage) == (3, "rule:beta")
        assert "no provider of flags is configured" in stage.plane.flag_watch.degraded()[0]


async def test_start_waits_for_the_provider_no_longer_than_it_was_told(tmp_path: Path) -> None:
    """What comes before it is ready gets the known good; from then on, the flag."""
    ready = threading.Event()
    options = {"flags": {"new-model": said(4)}, "ready": ready}
    settings = {"provider": f"{HERE}:Waiting", "options": options, "ready_s": 0.05}
    async with scene(tmp_path, flags=settings) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        assert await chosen(stage) == (3, "rule:beta")
        assert stage.plane.flags.standing().state == "starting"
        ready.set()
        await until(lambda: stage.plane.flags.standing().state == "ready")
        assert await chosen(stage) == (4, "rule:beta")


@pytest.mark.parametrize(
    ("value", "version"),
    [
        (4, 4),
        ("4", 4),
        ("digits/4", 4),
        (" 4 ", 4),
        ("fraud/4", None),
        ("four", None),
        (0, None),
        (-4, None),
        ("04", None),
    ],
)
async def test_a_value_that_is_no_version_of_the_model_is_no_match(
    tmp_path: Path, value: object, version: int | None
) -> None:
    """Numbers, texts, and texts with the model's name are versions; what is none falls through and is counted."""
    async with scene(tmp_path, flags=memory(value)) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        assert await chosen(stage) == ((3, "split") if version is None else (version, "rule:beta"))
        assert causes(stage) == ([] if version else ["no-version"])


async def test_variants_stand_for_versions_and_one_that_is_not_listed_is_no_match(tmp_path: Path) -> None:
    """As for a flag that is on or off; its type does not matter."""
    flags = flagd(tmp_path / "flags.json")
    switch = {"new-model": {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}}
    switch["new-model"]["targeting"] = {"if": [{"==": [{"var": "group"}, "beta"]}, "on"]}
    (tmp_path / "flags.json").write_text(json.dumps({"flags": switch}))
    async with scene(tmp_path, flags=flags) as stage:
        await stage.put({3: 100}, rules=[{**BETA, "variants": {"on": 4}}])
        assert await chosen(stage, context={"group": "beta"}) == (4, "rule:beta")
        assert await chosen(stage, context={"group": "other"}) == (3, "split")
        assert not stage.recording.flag_misses


async def test_a_version_in_quarantine_or_unnamed_is_not_brought_in_by_a_flag(tmp_path: Path) -> None:
    """The next rule, or the split, has its turn; each kind of miss is counted."""
    async with scene(tmp_path, flags=memory(4)) as stage:
        rules = [BETA, {"name": "next", "if": {"!": [0]}, "use": 2}]
        await stage.put({3: 100, 4: 0}, rules=rules)
        assert await chosen(stage) == (4, "rule:beta")
        await stage.plane.routes.rollback("digits", to=3, reason="it hurts", actor="olga")
        assert await chosen(stage) == (3, "split")
        assert causes(stage) == ["quarantined"]
    async with scene(tmp_path, flags=memory(6)) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        assert await chosen(stage) == (3, "split")
        assert causes(stage) == ["not-named"]


async def test_a_version_that_is_not_loaded_here_is_not_chosen(tmp_path: Path) -> None:
    """One that failed to load: the flag's users get what the others get."""
    async with scene(tmp_path, flags=memory(4)) as stage:
        stage.script(4).every_load = LoadError("no such file")
        await stage.put({3: 100}, rules=[{**BETA, "versions": [4]}], wait=False)
        await until(lambda: "digits" in stage.dataplane.current.table.routes and stage.arms())
        assert await chosen(stage) == (3, "split")
        assert causes(stage) == ["not-loaded"]


async def test_a_provider_that_raises_is_no_match_and_is_counted(tmp_path: Path) -> None:
    """Its fault is no request's."""
    async with scene(tmp_path, flags={"provider": f"{HERE}:Raising"}) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        assert [await chosen(stage) for _ in range(3)] == [(3, "split")] * 3
        assert causes(stage) == ["error"] * 3


async def test_a_provider_that_keeps_taking_too_long_is_taken_out_and_tried_again(tmp_path: Path) -> None:
    """It costs five slow requests; then the known good answers, until it is fast again."""
    clock = ManualClock()
    options = {"flags": {"new-model": said(4)}, "clock": clock}
    async with scene(tmp_path, clock=clock, flags={"provider": f"{HERE}:Taking", "options": options}) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        provider: Any = stage.plane.flags._provider
        assert await chosen(stage) == (4, "rule:beta")
        provider.seconds = 0.02
        assert [await chosen(stage) for _ in range(5)] == [(4, "rule:beta")] * 5
        assert await chosen(stage) == (3, "rule:beta")
        assert stage.plane.flags.standing().state == "fenced"
        assert "20.0 ms, of 5 ms allowed" in stage.plane.flag_watch.degraded()[0]
        provider.seconds = 0.0
        clock.advance(31)
        await look(stage)
        assert await chosen(stage) == (4, "rule:beta")
        for after_s, tried_again in ((45, False), (16, True), (2000, True)):  # each try may cost a request its time
            if stage.plane.flags.standing().state == "ready":
                provider.seconds = 1.0
                await chosen(stage)
                provider.seconds = 0.0
            clock.advance(after_s)
            await look(stage)
            assert (stage.plane.flags.standing().state == "ready") is tried_again, after_s


@pytest.mark.parametrize(("name", "size"), [("flags.json", MAX_FILE_BYTES), ("flags.yaml", MAX_YAML_BYTES)])
def test_a_flag_file_that_is_too_large_is_not_read(tmp_path: Path, name: str, size: int) -> None:
    """Reading it would keep requests from the interpreter; YAML, read forty times as slowly, may be less large."""
    path = tmp_path / name
    flags = {"flags": {"f": {"state": "ENABLED", "variants": {"on": 1}, "defaultVariant": "on"}}}
    text = json.dumps(flags)
    path.write_text(text + " " * (size - len(text)))
    assert FlagdFile(path).tend() is None
    path.write_text(text + " " * (size - len(text) + 1))
    assert f"larger than {size} bytes" in str(FlagdFile(path).tend())


@pytest.mark.parametrize("deaf", [0, 2])
async def test_a_provider_that_hangs_in_a_request_is_ended_and_taken_out(tmp_path: Path, deaf: int) -> None:
    """It waits for ever, on the loop itself: the known good answers this request, and the others without asking. One
    that swallows the first calls to end is called again."""
    options = {"flags": {"new-model": said(4)}, "deaf": deaf}
    async with scene(tmp_path, flags={"provider": f"{HERE}:Stuck", "options": options}) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        assert [await chosen(stage) for _ in range(2)] == [(3, "rule:beta")] * 2
        assert causes(stage) == ["not-ready"] * 2
        assert stage.plane.flags.standing()[2:] == (
            "fenced", None, "an evaluation of 'new-model' did not end, and was ended",
        )  # fmt: skip


async def test_a_flag_file_whose_targeting_computes_for_ever_is_ended_too(tmp_path: Path) -> None:
    """A few hundred bytes of JSON Logic can be years of work: nothing is waited for there, it only computes."""
    logic: object = 1
    for _ in range(12):
        logic = {"reduce": [list(range(10)), {"+": [{"var": "accumulator"}, logic]}, 0]}
    path = flag_file(tmp_path / "flags.json", 4, targeting=logic)
    async with scene(tmp_path, flags={"provider": "flagd-file", "path": str(path)}) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        assert await chosen(stage) == (3, "rule:beta")
        assert stage.plane.flags.standing().state == "fenced"
        flag_file(path, 4)
        await look(stage)  # a file that was mended is tried at once
        assert (await chosen(stage), stage.plane.flags.standing().state) == ((4, "rule:beta"), "ready")


async def test_a_provider_that_is_slow_from_the_start_never_gets_a_request() -> None:
    """It is measured before it is asked by anybody."""
    clock = ManualClock()
    options = {"flags": {"f": said(4)}, "clock": clock, "seconds": 0.02}
    flags = Flags(FlagSettings(provider=f"{HERE}:Taking", options=options), clock=clock)
    await flags.start()
    assert flags.standing()[2:] == ("fenced", None, "a first evaluation took 20.0 ms, of 5 ms allowed")
    assert flags.evaluate("f", "k", {}).fault == "not-ready"
    await flags.close()


def test_a_pause_now_and_then_is_forgiven_and_a_share_of_slow_ones_is_not() -> None:
    """One slow evaluation in a thousand goes on for ever; one in twenty does not; a second is too much at once."""
    seldom, often = EvaluationBudget(0.005), EvaluationBudget(0.005)
    assert not any(seldom.took(0.05 if turn % 1000 == 0 else 1e-5) for turn in range(20_000))
    assert any(often.took(0.05 if turn % 20 == 0 else 1e-5) for turn in range(200))
    assert EvaluationBudget(0.005).took(1.0)


class Machine:
    """By the test's clock an evaluation takes ``seconds``, of which the thread has a processor for all but
    ``without``."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.without = self.waited = 0.0
        self.provider: Any = None

    async def flags(self) -> Flags:
        options = {"flags": {"f": said(4)}, "clock": self.clock}
        settings = FlagSettings(provider=f"{HERE}:Taking", options=options)
        flags = Flags(settings, clock=self.clock, waited=lambda: self.waited)
        await flags.start()
        self.provider = flags._provider
        return flags

    def evaluate(self, flags: Flags, *, seconds: float, without: float = 0.0) -> str | None:
        self.provider.seconds = seconds
        self.provider.before = lambda: self._wait(without)
        return flags.evaluate("f", "k", {}).fault

    def _wait(self, seconds: float) -> None:
        self.waited += seconds


async def test_a_machine_without_a_processor_to_spare_strikes_no_provider_out() -> None:
    """The thread waits for a processor in the midst of each evaluation, for longer than is allowed; the provider takes
    next to nothing. One that takes too long itself is found as soon there as on an idle machine."""
    machine = Machine()
    flags = await machine.flags()
    assert {machine.evaluate(flags, seconds=0.06, without=0.059) for _ in range(1000)} == {None}
    assert flags.standing().state == "ready"
    faults = [machine.evaluate(flags, seconds=0.08, without=0.06) for _ in range(6)]
    assert faults.index("not-ready") <= 5
    assert "80.0 ms, of 5 ms allowed" in flags.standing().reason
    await flags.close()


async def test_one_evaluation_that_is_hopelessly_slow_is_enough_unless_the_machine_may_have_been() -> None:
    """What the thread has waited since the last look is the most that it can have waited in the evaluation."""
    machine = Machine()
    flags = await machine.flags()
    machine.waited += 0.2
    assert machine.evaluate(flags, seconds=0.15) is None
    assert flags.standing().state == "ready"
    assert machine.evaluate(flags, seconds=0.15) is None
    assert flags.standing().state == "fenced"
    await flags.close()


def test_the_kernel_counts_what_a_thread_waits_for_a_processor_and_not_what_it_sleeps() -> None:
    """Of a thread that is gone it says nothing any more."""
    queue, done = RunQueue(threading.get_native_id()), threading.Event()
    before = queue.waited_s()
    assert not done.wait(0.05)
    assert 0.0 <= before <= queue.waited_s()
    queue.close()
    assert queue.waited_s() == 0.0
    assert RunQueue(0).waited_s() == 0.0


async def test_events_tell_the_age_of_a_provider_that_looks_after_its_own_data(tmp_path: Path) -> None:
    """Current while it is ready; older from its first complaint on; current again when it says so."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, flags=memory(4)) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA], stale_after_s=60)
        provider: Any = stage.plane.flags._provider
        clock.advance(3600)
        assert await chosen(stage) == (4, "rule:beta")
        provider.emit_provider_stale(ProviderEventDetails(message="no word from the source"))
        clock.advance(59)
        provider.emit_provider_error(ProviderEventDetails(message="gone"))
        assert await chosen(stage) == (4, "rule:beta")
        clock.advance(2)
        assert await chosen(stage) == (3, "rule:beta")
        assert stage.plane.flags.standing()[2:] == ("error", 61.0, "gone")
        provider.emit_provider_configuration_changed(ProviderEventDetails())
        assert await chosen(stage) == (4, "rule:beta")


async def test_the_provider_sees_key_context_and_route_and_no_client_can_name_another_route(tmp_path: Path) -> None:
    """The targeting key is the request's key; a keyless request's is its decision, as for the split."""
    seen: list[EvaluationContext] = []

    def note(context: EvaluationContext) -> int:
        seen.append(context)
        return 4

    async with scene(tmp_path, flags=memory(4, by=note)) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        await stage.predict(key="olga", context={"group": "beta", "route": "other"})
        await stage.predict(key="")
        assert (seen[0].targeting_key, dict(seen[0].attributes)) == ("olga", {"group": "beta", "route": "digits"})
        assert seen[1].targeting_key == "2"


async def test_a_context_that_is_too_large_asks_nobody(tmp_path: Path) -> None:
    """The client decides how large it is; the provider's work must not grow with it."""
    async with scene(tmp_path, flags=memory(4)) as stage:
        await stage.put({3: 100, 4: 0}, rules=[BETA])
        assert await chosen(stage, context={"a": list(range(5000))}) == (3, "split")
        assert causes(stage) == ["context"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"provider": "flagd-file"}, "flags.path is not set"),
        ({"provider": "nonsense"}, "package.module:Class"),
        ({"provider": "no.such.module:Class"}, "cannot be imported"),
        ({"provider": "json:nothing"}, "cannot be imported"),
        ({"provider": "json:__doc__"}, "expected a class"),
        ({"provider": "openfeature.contrib.provider.ofrep:OFREPProvider"}, "HTTP request for every evaluation"),
        ({"provider": "openfeature.contrib.provider.flagd:FlagdProvider"}, "asks a flagd daemon"),
        (
            {"provider": "openfeature.contrib.provider.flagd:FlagdProvider", "options": {"resolver_type": "rpc"}},
            "asks a flagd daemon",
        ),
    ],
)
def test_a_provider_that_cannot_be_or_answers_over_a_network_is_refused(
    settings: Mapping[str, Any], complaint: str
) -> None:
    """When the gateway starts, and not when a request comes."""
    with pytest.raises(SettingsError, match=complaint):
        provider_maker(FlagSettings.model_validate(settings))


def test_a_flag_file_may_be_yaml_and_is_read_anew_only_when_it_is_another(tmp_path: Path) -> None:
    """A look at an unchanged file reads nothing; one that was replaced is noticed by its identity."""
    path = tmp_path / "flags.yaml"
    path.write_text("flags:\n  f: {state: ENABLED, variants: {a: 3}, defaultVariant: a}\n")
    provider = FlagdFile(path)
    provider.initialize(EvaluationContext())
    core = provider._core
    assert provider.tend() is None
    assert provider._core is core
    assert provider.resolve_integer_details("f", 0, EvaluationContext("k")).value == 3
    path.unlink()
    assert "cannot be read" in str(provider.tend())
    assert provider.resolve_integer_details("f", 0, EvaluationContext("k")).value == 3


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "flags.yaml",
            "flags:\n  f: {state: ENABLED, variants: {a: 3, b: 4}, defaultVariant: a,\n    defaultVariant: b}\n",
            "the key 'defaultVariant' stands in line 2 and again in line 3",
        ),
        (
            "flags.json",
            '{"flags": {"f": {"state": "ENABLED", "variants": {"a": 3, "a": 4}, "defaultVariant": "a"}}}',
            "the key 'a' stands twice in one object",
        ),
    ],
)
def test_a_key_that_stands_twice_in_a_flag_file_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    """The last would win without a word: another version for everybody. The flags that were read before stay."""
    path = tmp_path / name
    path.write_text(json.dumps({"flags": {"f": {"state": "ENABLED", "variants": {"a": 5}, "defaultVariant": "a"}}}))
    provider = FlagdFile(path)
    assert provider.tend() is None
    path.write_text(text)
    assert provider.tend() == f"{path} holds no flags for flagd: {says}"
    assert provider.resolve_integer_details("f", 0, EvaluationContext("k")).value == 5


def test_on_and_off_are_names_in_yaml_too(tmp_path: Path) -> None:
    """As in every example of flagd; YAML 1.1 reads them as booleans, of which no variant has the name."""
    path = tmp_path / "flags.yaml"
    path.write_text("flags:\n  f:\n    state: ENABLED\n    variants: {on: 3, off: 4}\n    defaultVariant: off\n")
    provider = FlagdFile(path)
    assert provider.tend() is None
    assert provider.resolve_integer_details("f", 0, EvaluationContext("k")).value == 4


@pytest.mark.parametrize(
    ("evaluation", "variants", "version"),
    [
        (Evaluation(True), None, None),
        (Evaluation(None), None, None),
        (Evaluation("on", "on"), {"on": 4}, 4),
        (Evaluation(7, "blue"), {"on": 4}, None),
        (Evaluation("9" * 40), None, None),
    ],
)
def test_what_a_flag_says_is_a_version_or_none(
    evaluation: Evaluation, variants: Mapping[str, int] | None, version: int | None
) -> None:
    """With variants, the variant counts and the value does not."""
    assert version_said(evaluation, variants, "digits") == version


async def test_a_disabled_flag_and_one_without_a_default_say_nothing(tmp_path: Path) -> None:
    """Both are what an operator meant, so nothing is counted."""
    path = tmp_path / "flags.json"
    for more in ({"state": "DISABLED"}, {"defaultVariant": ""}):
        flag_file(path, 4, **more)
        async with scene(tmp_path / str(len(more)), flags=flagd(path)) as stage:
            await stage.put({3: 100, 4: 0}, rules=[BETA])
            assert await chosen(stage) == (3, "split")
            assert not stage.recording.flag_misses


async def test_a_hanging_look_at_the_data_lets_it_grow_old_and_holds_up_nobody() -> None:
    """A disk that does not answer: the age says so, and close does not wait for it."""
    clock, released = ManualClock(), threading.Event()
    flags = Flags(FlagSettings(provider=f"{HERE}:Hanging", options={"released": released}), clock=clock)
    await flags.start()
    assert flags.age_s() == 0.0
    looking = asyncio.ensure_future(flags.tend())
    clock.advance(10)
    assert flags.age_s() == 10.0
    assert flags.standing().state == "stale"
    released.set()
    await looking
    await flags.close()
