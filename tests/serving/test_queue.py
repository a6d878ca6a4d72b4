"""Who goes first, who makes room, and that nobody is lost: pure, so checked on everything hypothesis can think of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.queue import PATIENCE, WaitingQueue

HIGH, NORMAL, LOW, SPARE = range(4)


@dataclass(eq=False)
class Thing:
    rows: int = 1
    key: Hashable = "a"
    deadline: float | None = None
    left: bool = False
    priority: int = NORMAL
    client: str = ""
    origin: Thing | None = None

    @property
    def whole(self) -> Thing:
        return self if self.origin is None else self.origin


def cut(thing: Thing, rows: int) -> tuple[Thing, Thing]:
    first, rest = (
        Thing(count, thing.key, thing.deadline, thing.left, thing.priority, thing.client, thing.whole)
        for count in (rows, thing.rows - rows)
    )
    return first, rest


things = st.builds(
    Thing,
    rows=st.integers(1, 40),
    key=st.sampled_from("abc"),
    deadline=st.none() | st.floats(0, 20),
    left=st.booleans(),
    priority=st.integers(0, 3),
    client=st.sampled_from(["", "anna", "ben", "carla"]),
)
lines = st.lists(things, max_size=40)


def filled(*waiting: Thing) -> WaitingQueue[Thing]:
    queue: WaitingQueue[Thing] = WaitingQueue()
    for thing in waiting:
        queue.add(thing)
    return queue


def take(queue: WaitingQueue[Thing], limit: int, *, alone: bool = False) -> list[Thing]:
    return queue.take(limit, 10.0, alone=alone, cut=cut).batch


def live(thing: Thing) -> bool:
    return not thing.left and (thing.deadline is None or thing.deadline > 10.0)


@given(lines, st.integers(1, 32), st.booleans())
def test_every_row_is_handed_over_once_until_the_queue_is_empty(waiting: list[Thing], limit: int, alone: bool):
    """Whatever was cut; what is late or left is dropped whole, and the counts of rows, items and clients end at 0."""
    asked = {thing: thing.rows for thing in waiting if live(thing)}
    queue = filled(*waiting)
    given_out: Counter[Thing] = Counter()
    expired: list[Thing] = []
    while queue.items:
        before = (queue.items, queue.rows)
        taken = queue.take(limit, 10.0, alone=alone, cut=cut)
        assert (queue.items, queue.rows) != before, "a queue that is not empty gives something up"
        assert taken.rows == sum(thing.rows for thing in taken.batch)
        for thing in taken.batch:
            given_out[thing.whole] += thing.rows
        expired += taken.expired
    assert dict(given_out) == asked
    assert set(expired) == {thing for thing in waiting if not thing.left and not live(thing)}
    assert (queue.rows, queue.clients, list(queue)) == (0, 0, [])


@given(lines, st.integers(1, 32))
def test_a_batch_is_live_of_one_shape_and_within_the_limit(waiting: list[Thing], limit: int):
    """Nobody's shape costs anybody an error, and the rows are counted."""
    batch = take(filled(*waiting), limit)
    assert bool(batch) == any(live(thing) for thing in waiting)
    assert sum(thing.rows for thing in batch) <= limit
    assert len({thing.key for thing in batch}) <= 1
    assert all(live(thing) for thing in batch)


@given(lines)
def test_alone_means_one_item_a_batch(waiting: list[Thing]):
    """Versions whose requests cannot be joined, or must not be run twice, get one at a time."""
    assert len(take(filled(*waiting), 32, alone=True)) <= 1


@given(st.lists(st.integers(1, 8), max_size=40), st.integers(8, 32))
def test_one_client_is_served_first_in_first_out(sizes: list[int], limit: int):
    """And a batch ends only where the next item no longer fits."""
    waiting = [Thing(rows) for rows in sizes]
    queue = filled(*waiting)
    served: list[Thing] = []
    while queue.items:
        batch = take(queue, limit)
        served += batch
        if queue.items:
            assert sum(thing.rows for thing in batch) + waiting[len(served)].rows > limit
    assert served == waiting


@given(lines, st.integers(1, 32), st.data())
def test_what_is_put_back_comes_again_first(waiting: list[Thing], limit: int, data: st.DataObject):
    """A batch that had not begun when its engine ended loses nothing and nobody's place."""
    for thing in waiting:
        thing.left, thing.deadline = False, None
    queue = filled(*waiting)
    batch = take(queue, limit)
    rows = queue.rows
    queue.put_back(batch)
    assert queue.rows == rows + sum(thing.rows for thing in batch)
    if len({thing.priority for thing in waiting}) <= 1 and len({thing.client for thing in waiting}) <= 1:
        assert take(queue, limit) == batch


def test_high_goes_before_normal_before_low_and_spare_only_when_nothing_else_waits():
    """Whatever the order they came in."""
    waiting = [Thing(priority=priority) for priority in (SPARE, LOW, NORMAL, HIGH)]
    queue = filled(*waiting)
    assert take(queue, 2) == [waiting[3], waiting[2]]
    assert take(queue, 8) == [waiting[1]], "spare work does not ride with others: it would make their batch longer"
    assert take(queue, 8) == [waiting[0]]


def test_low_work_goes_on_under_any_flood():
    """One batch in sixteen begins with the class that the others have passed over."""
    queue = filled(*(Thing(priority=LOW) for _ in range(8)))
    first: list[int] = []
    for _ in range(64):
        queue.add(Thing(priority=HIGH))
        queue.add(Thing(priority=NORMAL))
        first.append(take(queue, 1)[0].priority)
    passes = [first[start : start + PATIENCE + 3] for start in range(0, 48, PATIENCE + 3)]
    assert all(LOW in stretch and NORMAL in stretch for stretch in passes)
    assert first.count(HIGH) >= 52


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 16)), min_size=120, max_size=200))
def test_clients_that_wait_get_equal_rows(asked: list[tuple[str, int]]):
    """However many items each has there, and however large they are: within two items and a batch of each other."""
    queue = filled(*(Thing(rows, client=client) for client, rows in asked))
    had: Counter[str] = Counter()
    while queue.clients == 3:
        for thing in take(queue, 16):
            had[thing.client] += thing.rows
        if queue.clients == 3:
            assert max(had.values()) - min(had[client] for client in "abc") <= 2 * 16 + 16


@pytest.mark.parametrize("large", [16, 32, 63, 64, 100, 640])
def test_one_large_item_at_a_time_gets_the_rows_that_many_small_ones_get(large: int):
    """Closed loops: whoever was answered asks again. Neither is passed over for good, nor forgiven what it had, and the
    batches go full, but for the one before a large item."""
    queue: WaitingQueue[Thing] = WaitingQueue()
    had: Counter[str] = Counter()
    batches = 400
    for _ in range(batches):
        held = Counter(thing.client for thing in queue)
        if not held["large"]:
            queue.add(Thing(large, client="large"))
        for _ in range(256 - held["small"]):
            queue.add(Thing(client="small"))
        for thing in take(queue, 64):
            had[thing.client] += thing.rows
    possible = min(0.5, large / 64)
    assert had["large"] / had.total() == pytest.approx(possible, abs=0.05)
    assert had.total() >= 0.95 * batches * 64


def test_an_item_that_no_longer_fits_begins_the_next_batch_and_others_fill_this_one():
    """Of its own class: lower work would only make it wait longer."""
    small, large = [Thing(client=client) for client in "abdef"], Thing(8, client="c")
    queue = filled(*small[:2], large, *small[2:], Thing(client="g", priority=LOW), Thing(8, client="h"))
    assert take(queue, 8) == small
    assert take(queue, 8) == [large]


@pytest.mark.parametrize("alone", [True, False])
def test_a_client_whose_items_cannot_share_a_batch_leaves_others_their_turns(alone: bool):
    """Items of several shapes, or of a version that runs one at a time: though rows would find room for all."""
    queue = filled(Thing(client="a", key="x"), Thing(client="a", key="y"), Thing(client="b", key="z"))
    served: list[str] = []
    for _ in range(20):
        for thing in take(queue, 100, alone=alone):
            served.append(thing.client)
            queue.add(Thing(client=thing.client, key=thing.key))
    assert 9 <= served.count("b") <= 11


def test_who_was_away_has_earned_nothing_and_who_left_owing_still_owes():
    """Rows are counted from what the others have had by then."""
    queue = filled(Thing(8, client="a"), *(Thing(client="b") for _ in range(40)))
    take(queue, 8)
    assert queue.ahead(NORMAL, "a", 8) == 16, "as many as it has had, and as many as it asks for"
    queue.add(Thing(8, client="a"))
    queue.add(Thing(client="c"))
    assert Counter(thing.client for thing in take(queue, 8)) == {"b": 7, "c": 1}
    assert {thing.client for thing in take(queue, 8)} == {"b"}, "after its first row, a is due, and the room too small"
    assert [thing.client for thing in take(queue, 8)] == ["a"]


def test_a_thousand_clients_that_come_and_go_leave_nothing_behind():
    """What is remembered of them is bounded by how many wait, and is gone when nothing does."""
    queue = filled(*(Thing(4, client=f"first-{number}") for number in range(32)))
    for number in range(1000):
        queue.add(Thing(1 + number % 7, client=f"client-{number}"))
        take(queue, 4)
    turns = queue._classes[NORMAL].turns
    assert turns is not None
    assert turns.remembered <= 4 * 64 + 2 * queue.clients
    while queue.items:
        take(queue, 4)
    assert queue._classes[NORMAL].turns is None


def test_a_newcomer_is_served_in_the_very_next_batch_whatever_the_flood():
    """A thousand items of one client do not stand before the first of another."""
    queue = filled(*(Thing(client="flood") for _ in range(1000)))
    newcomer = Thing(client="newcomer")
    queue.add(newcomer)
    assert queue.ahead(NORMAL, "other", 1) <= 3
    assert newcomer in take(queue, 8)


@given(lines, st.integers(0, 3), st.sampled_from(["", "anna", "ben", "dora"]), st.integers(1, 20), st.integers(1, 300))
def test_room_is_made_by_those_with_less_right_to_it_and_never_more_than_needed(
    waiting: list[Thing], priority: int, client: str, rows: int, bound: int
):
    """Without the last of the victims there would not be room; nobody loses more than what is over the fair share,
    unless it is lower work of the same client, or spare."""
    queue = filled(*waiting)
    held = Counter({thing.client: 0 for thing in waiting})
    for thing in waiting:
        held[thing.client] += thing.rows
    share = bound // max(1, len({*held, client}))
    victims = queue.room_for(rows, bound, priority, client)
    if victims is None:
        assert queue.rows + rows > bound
        assert all(thing.priority < SPARE or priority == SPARE for thing in waiting) or queue.rows + rows > bound
        return
    freed = sum(thing.rows for thing in victims)
    assert queue.rows + rows - freed <= bound
    assert len(set(victims)) == len(victims)
    for thing in victims:
        spare = thing.priority == SPARE and priority < SPARE
        own = thing.client == client and thing.priority > priority
        flooder = held[thing.client] > share
        assert spare or own or flooder
    for thing in victims:
        queue.remove(thing)
    assert queue.rows + rows <= bound


def test_a_new_client_always_finds_room_at_the_cost_of_who_holds_most():
    """And who holds most is refused, however often it asks."""
    queue = filled(*(Thing(client="flood") for _ in range(90)), *(Thing(client="calm") for _ in range(10)))
    newest = list(queue)[89]
    assert queue.room_for(1, 100, NORMAL, "flood") is None
    assert queue.room_for(1, 100, NORMAL, "newcomer") == [newest]
    assert queue.room_for(1, 100, NORMAL, "calm") == [newest]


def test_higher_work_pushes_out_lower_work_of_its_client_the_newest_first():
    """With one client (nobody has a name) that is everybody's."""
    waiting = [Thing(priority=priority) for priority in (NORMAL, LOW, LOW, SPARE)]
    queue = filled(*waiting)
    assert queue.room_for(2, 4, HIGH, "") == [waiting[3], waiting[2]]
    assert queue.room_for(1, 4, NORMAL, "") == [waiting[3]]
    assert queue.room_for(4, 4, NORMAL, "") is None
    assert queue.room_for(1, 4, SPARE, "") is None


def test_a_claim_to_be_high_does_not_take_a_quiet_clients_place():
    """Everybody can claim it; the share is what counts first."""
    quiet, loud = Thing(5, client="quiet", priority=LOW), Thing(5, client="loud", priority=HIGH)
    queue = filled(quiet, loud)
    assert queue.room_for(1, 10, HIGH, "loud") is None


def test_only_what_is_ahead_counts():
    """High work does not wait for low work."""
    queue = filled(*(Thing(10, priority=priority) for priority in (HIGH, NORMAL, LOW, SPARE)))
    assert [queue.ahead(priority, "", 1) for priority in range(4)] == [10, 20, 30, 40]
