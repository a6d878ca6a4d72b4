"""Whose fault a drift is, on real data and on made-up streams: what was done to the data is what is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from gateway.messages import VersionRef
from gateway.telemetry.drift.arms import Arms
from gateway.telemetry.drift.blame import ADVICE, DATA_PIPELINE, MODEL, ROUTING, WORLD
from gateway.telemetry.drift.calibration import Calibration
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.judging import Policy
from gateway.telemetry.drift.keeping import Belief
from gateway.telemetry.drift.looking import alarms_of, look_at_arms, look_at_version
from gateway.telemetry.drift.sharing import Tally
from gateway.telemetry.drift.starts import START_S
from tests.telemetry.drift.scene import counted, reference_of

Rows = np.ndarray
V = VersionRef("m", 1)


def houses(rows: int = 12_000) -> Rows:
    """As the census of California's houses is distributed: skewed, bounded, in two heaps."""
    rng = np.random.default_rng(2)
    latitude = np.where(rng.random(rows) < 0.45, rng.normal(37.7, 0.9, rows), rng.normal(34.0, 0.5, rows))
    longitude = np.where(latitude > 36, rng.normal(-122.0, 0.7, rows), rng.normal(-118.0, 0.6, rows))
    income, age = np.exp(rng.normal(1.2, 0.45, rows)), rng.integers(1, 52, rows).astype(float)
    rooms, people = rng.normal(5.4, 1.2, rows).clip(1.0), np.exp(rng.normal(7.0, 0.7, rows))
    return np.column_stack([income, age, rooms, people, latitude, longitude])


DATA: dict[str, Callable[[], Rows]] = {
    "wine": lambda: load_wine().data,
    "breast-cancer": lambda: load_breast_cancer().data,
    "houses": houses,
    "digits": lambda: load_digits().data,
}
PAIRS = {"wine": (0, 1), "breast-cancer": (0, 1), "houses": (0, 3), "digits": (20, 33)}


class Stream:
    """Rows drawn from the data, looked at every ten minutes."""

    def __init__(self, data: Rows, answers: Callable[[Rows], Rows] | None = None) -> None:
        self.rng = np.random.default_rng(7)
        self.data, self.answers = data, answers
        self.reference: Reference = reference_of({"x": data}, self._outputs(data))
        self.policy = Policy(len(self.reference.names))
        self.total, self.at = np.zeros(self.reference.plan.size, np.int64), 1e9
        begun = Belief.begin(Tally(0, self.total), self.at)
        known = Calibration(0, 0, 0.0)
        self.belief = replace(begun, calibration=known, held_out=known)  # half of the time of these tests

    def _outputs(self, rows: Rows) -> dict[str, Rows]:
        return {} if self.answers is None else {"y": self.answers(rows)}

    def look(
        self,
        rows: int,
        change: Callable[[Rows], Rows] = lambda rows: rows,
        answers: Callable[[Rows], Rows] | None = None,
        arms_differ: tuple[str, ...] = (),
    ) -> None:
        drawn = change(self.data[self.rng.integers(0, len(self.data), rows)].astype(np.float64))
        told = {} if self.answers is None else {"y": (answers or self.answers)(drawn)}
        self.total = self.total + counted(self.reference.plan, {"x": drawn}, told)
        self.at += START_S
        tally = Tally(int(self.total[0]), self.total)
        self.belief = look_at_version(
            self.reference, self.belief, tally, self.at, policy=self.policy, arms_differ=arms_differ
        )

    def blames(self) -> dict[str, tuple[str, str]]:
        return {name: (blame.blame, blame.cause) for name, blame in self.belief.blames.items()}


def column(index: int, change: Callable[[Rows], Rows]) -> Callable[[Rows], Rows]:
    def changed(rows: Rows) -> Rows:
        rows[:, index] = change(rows[:, index])
        return rows

    return changed


@pytest.mark.parametrize("name", DATA)
def test_no_drift_on_real_data_raises_nothing(name: str) -> None:
    """Forty looks at rows of the data that the reference was."""
    stream = Stream(DATA[name]())
    for _ in range(40):
        stream.look(40)
    assert not stream.belief.state.raised


@pytest.mark.parametrize("name", DATA)
def test_a_swapped_pair_of_columns_is_the_pipelines_fault(name: str) -> None:
    """Both are named, each as the other, within 120 rows; nobody else's."""
    stream = Stream(DATA[name]())
    one, other = PAIRS[name]

    def swapped(rows: Rows) -> Rows:
        rows[:, [one, other]] = rows[:, [other, one]]
        return rows

    stream.look(100)
    for _ in range(3):
        stream.look(40, swapped)
    blames = stream.blames()
    for here, there in ((one, other), (other, one)):
        blame, cause = blames[f"x[{here}]"]
        assert blame == DATA_PIPELINE
        assert f"x[{there}]" in cause
        assert "changed places" in cause
    assert {blame for blame, _ in blames.values()} == {DATA_PIPELINE}


@pytest.mark.parametrize("name", DATA)
def test_another_unit_is_the_pipelines_fault(name: str) -> None:
    """A thousand times as large: found in 40 rows, and said so; the whole that moved with it is not blamed
    otherwise."""
    stream = Stream(DATA[name]())
    index = PAIRS[name][0]
    stream.look(100)
    stream.look(40, column(index, lambda values: values * 1000.0))
    blames = stream.blames()
    assert "times as large" in blames[f"x[{index}]"][1]
    assert {blame for blame, _ in blames.values()} == {DATA_PIPELINE}


@pytest.mark.parametrize("name", DATA)
def test_a_jump_in_missing_values_is_the_pipelines_fault(name: str) -> None:
    """A fifth of one column is NaN from some moment on."""
    stream = Stream(DATA[name]())
    index = PAIRS[name][0]
    stream.look(100)
    for _ in range(10):
        stream.look(40, column(index, lambda values: np.where(stream.rng.random(len(values)) < 0.2, np.nan, values)))
    blame, cause = stream.blames()[f"x[{index}]"]
    assert blame == DATA_PIPELINE
    assert "missing" in cause


def test_a_category_never_seen_is_the_pipelines_fault() -> None:
    """Of a column of texts, and of one of codes."""
    rng = np.random.default_rng(3)
    texts = rng.choice(np.array([b"red", b"green", b"blue"], object), (3000, 1), p=[0.6, 0.3, 0.1])
    codes = rng.choice([1.0, 2.0, 3.0], (3000, 1), p=[0.5, 0.3, 0.2])
    reference = reference_of({"color": texts, "code": codes})
    strange_texts, strange_codes = texts[:400].copy(), codes[:400].copy()
    strange_texts[::10], strange_codes[::10] = b"violet", 9.0
    policy = Policy(len(reference.names))
    nothing = np.zeros(reference.plan.size, np.int64)
    belief = Belief.begin(Tally(0, nothing), 1e9)
    counts = counted(reference.plan, {"color": strange_texts, "code": strange_codes})
    after = look_at_version(reference, belief, Tally(400, counts), 1e9 + 60, policy=policy, arms_differ=())
    features = {name: blame for name, blame in after.blames.items() if name in ("color", "code")}
    assert len(features) == 2, after.blames
    for blame in features.values():
        assert blame.blame == DATA_PIPELINE
        assert "never had" in blame.cause


def test_inputs_that_moved_are_the_worlds_doing_and_answers_follow_them() -> None:
    """A shift of one column by 0.8 deviations, and of the answers with it."""
    stream = Stream(houses(), answers=lambda rows: rows[:, :1] * 2.0 + 1.0)
    spread = stream.data[:, 0].std()
    stream.look(200)
    for _ in range(4):
        stream.look(200, column(0, lambda values: values + 0.8 * spread))
    blames = stream.blames()
    assert blames["x[0]"][0] == WORLD
    assert "higher" in blames["x[0]"][1]
    outputs = [blame for name, (blame, _) in blames.items() if name.startswith("y")]
    assert outputs
    assert set(outputs) == {WORLD}


def test_answers_that_moved_on_inputs_that_did_not_are_the_models_fault() -> None:
    """The same rows, another answer: the version's environment, or its files."""
    stream = Stream(houses(), answers=lambda rows: rows[:, :1] * 2.0 + 1.0)
    stream.look(200)
    for _ in range(4):
        stream.look(200, answers=lambda rows: rows[:, :1] * 2.0 + 3.0)
    blames = stream.blames()
    assert {blame for blame, _ in blames.values()} == {MODEL}
    alarm = next(alarms_of("houses", V, stream.belief))
    assert (alarm.raised, alarm.blame, alarm.broken_data) == (True, MODEL, False)
    assert alarm.advice == ADVICE[MODEL]


def answers_of_income(rows: Rows) -> Rows:
    return rows[:, :1] * 2.0 + 1.0


def test_answers_that_follow_a_broken_input_are_not_called_the_worlds_doing() -> None:
    """An income in thousandths: nobody is told to retrain with it."""
    stream = Stream(houses(), answers=answers_of_income)
    stream.look(200)
    for _ in range(3):
        stream.look(200, column(0, lambda values: values * 1000.0))
    blames = stream.blames()
    assert any(name.startswith("y") for name in blames)
    assert {blame for blame, _ in blames.values()} == {DATA_PIPELINE}


def test_an_input_that_moved_by_less_than_matters_excuses_no_answer() -> None:
    """With a hundred thousand rows every input is proved to have moved a little, and the model is broken all the
    same."""
    stream = Stream(houses(60_000), answers=answers_of_income)
    spread = stream.data[:, 2].std()

    def little(rows: Rows) -> Rows:
        return column(2, lambda values: values + 0.06 * spread)(rows)

    stream.look(17_000, little)
    assert not stream.blames()
    stream.look(1_000, little, answers=lambda rows: answers_of_income(rows) + 2.0)
    assert {blame for name, (blame, _) in stream.blames().items() if name.startswith("y")} == {MODEL}


def test_answers_that_moved_before_their_inputs_were_proved_to_are_the_worlds_doing_in_the_end() -> None:
    """Six inputs move by a little each, and their sum by a lot: its alarm comes first."""
    rng = np.random.default_rng(8)
    stream = Stream(rng.standard_normal((12_000, 6)), answers=lambda rows: rows.sum(axis=1, keepdims=True))
    stream.look(200)
    first: set[str] = set()
    for _ in range(60):
        stream.look(60, lambda rows: rows + 0.3)
        first = first or set(stream.blames())
    assert first == {"y"}
    assert {blame for blame, _ in stream.blames().values()} == {WORLD}


def test_inputs_that_move_long_after_the_answers_did_do_not_excuse_the_model() -> None:
    """The version broke first; the world moved later."""
    stream = Stream(houses(), answers=answers_of_income)
    spread = stream.data[:, 3].std()
    broken = lambda rows: answers_of_income(rows) + 2.0  # noqa: E731
    stream.look(200)
    for _ in range(6):
        stream.look(300, answers=broken)
    for _ in range(6):
        stream.look(300, column(3, lambda values: values + 0.8 * spread), answers=broken)
    blames = stream.blames()
    assert blames["x[3]"][0] == WORLD
    assert {blame for name, (blame, _) in blames.items() if name.startswith("y")} == {MODEL}


def test_an_input_that_all_versions_are_given_alike_is_no_routing_fault() -> None:
    """While another input of the route is one."""
    stream = Stream(houses())
    spread = stream.data[:, 3].std()
    for _ in range(4):
        stream.look(300, column(3, lambda values: values + 0.8 * spread), arms_differ=("x[4]",))
    assert stream.blames()["x[3]"][0] == WORLD


def test_arms_that_are_not_given_the_same_inputs_are_a_routing_fault() -> None:
    """The later version gets rows of the north alone: the pair raises it, and what that version sees is so blamed."""
    stream = Stream(houses())
    north = stream.data[stream.data[:, 4] > 36]
    reference, arms = stream.reference, Arms(stream.reference)
    size = reference.plan.size
    belief, total = Belief.begin(Tally(0, np.zeros(2 * size, np.int64)), 1e9), np.zeros(2 * size, np.int64)
    for look in range(1, 4):
        rows = stream.data[stream.rng.integers(0, len(stream.data), 600)]
        some = north[stream.rng.integers(0, len(north), 100)]
        parts = [counted(reference.plan, {"x": each}) for each in (some, rows)]
        total = total + np.concatenate(parts)
        tally = Tally(int(total[0]), total)
        belief = look_at_arms(arms, belief, tally, 1e9 + look * START_S, Policy(12))
    assert {"x[4]", "x[5]"} <= set(belief.state.raised)
    (alarm,) = alarms_of("houses", V, belief, beside=True)
    assert (alarm.blame, alarm.raised) == (ROUTING, True)
    for _ in range(3):
        stream.look(200, lambda rows: north[: len(rows)], arms_differ=tuple(belief.state.raised))
    assert stream.blames()["x[4]"][0] == ROUTING
    assert not list(alarms_of("houses", V, stream.belief)), "the pair has told of it"
