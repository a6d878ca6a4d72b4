"""Texts are decoded elsewhere, in a fair order, and nothing that happens there reaches the gateway."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import orjson
import psutil
import pytest
import pytest_asyncio

from gateway.clock import SystemClock
from gateway.codec.limits import CodecLimits
from gateway.decoding.memories import Text
from gateway.decoding.pool import Decoders, Reading
from gateway.errors import BadRequest, DeadlineExceeded, InvalidInput, QueueFull, ServiceDraining, TooLarge
from gateway.messages import Signature, TensorSpec

OUT = (TensorSpec("y", "FP32", ("batch",)),)
ROWS = Signature((TensorSpec("x", "FP32", ("batch", 4)),), OUT)
BODY_BYTES = 4 * 1024 * 1024


@pytest_asyncio.fixture
async def decoders() -> AsyncIterator[Decoders]:
    pool = Decoders(limits=CodecLimits(), body_bytes=BODY_BYTES, clock=SystemClock())
    yield pool
    await pool.close()


def put(pool: Decoders, body: bytes) -> Text:
    text = pool.text()
    for start in range(0, len(body), 65536):
        text.append(body[start : start + 65536])
    return text


def rows(count: int) -> tuple[np.ndarray, bytes]:
    array = np.random.default_rng(count).standard_normal((count, 4)).astype(np.float32)
    return array, orjson.dumps({"inputs": array, "key": f"k{count}"}, option=orjson.OPT_SERIALIZE_NUMPY)


async def read(pool: Decoders, body: bytes, signature: Signature | None = ROWS) -> Reading:
    return await pool.read(put(pool, body), "predict", signature=signature)


async def until(condition: Callable[[], Any], *, within_s: float = 60.0) -> None:
    """A real process's state has no event here: looked at again and again, up to a bound."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_text_comes_back_as_facts_and_arrays(decoders: Decoders) -> None:
    """Bit for bit, in shared memory."""
    array, body = rows(5000)

    reading = await read(decoders, body)

    assert reading.facts["key"] == "k5000"
    assert reading.rows == 5000
    assert reading.arrays is not None
    assert reading.arrays["x"].tobytes() == array.tobytes()


@pytest.mark.asyncio
async def test_without_a_signature_there_are_facts_alone_and_the_arrays_come_when_asked_for(decoders: Decoders) -> None:
    """The text is still there."""
    array, body = rows(10)
    text = put(decoders, body)

    assert (await decoders.read(text, "predict", signature=None)).arrays is None
    again = await decoders.read(text, "predict", signature=ROWS)

    assert again.arrays is not None
    assert again.arrays["x"].tobytes() == array.tobytes()


@pytest.mark.asyncio
async def test_what_does_not_fit_is_told_beside_the_facts_and_what_cannot_be_read_is_raised(decoders: Decoders) -> None:
    """With the places and the words that a small body would get."""
    reading = await read(decoders, b'{"inputs": [[1,2,3,"four"]]}')
    assert reading.unfit is not None
    told = reading.unfit()
    assert isinstance(told, InvalidInput)
    assert told.problems[0].field == "inputs[0][3]"

    with pytest.raises(BadRequest, match="not valid JSON"):
        await read(decoders, b'{"inputs": [[1,2,3,')
    with pytest.raises(TooLarge, match="nested deeper"):
        await read(decoders, b'{"inputs": ' + b"[" * 1_000_000)


@pytest.mark.asyncio
async def test_arrays_stay_what_they_are_while_other_texts_are_decoded(decoders: Decoders) -> None:
    """A memory is lent again only when the last view of it is gone."""
    held = [(array, await read(decoders, body)) for array, body in (rows(count) for count in range(1, 30))]

    for array, reading in held:
        assert reading.arrays is not None
        assert reading.arrays["x"].tobytes() == array.tobytes()
    parts = [reading.arrays["x"][:1] for _, reading in held if reading.arrays is not None]
    del held, reading
    await read(decoders, rows(7)[1])
    assert [part.tobytes() for part in parts] == [rows(count)[0][:1].tobytes() for count in range(1, 30)]
    assert decoders.statistics().lent >= 29
    del parts
    assert decoders.statistics().lent <= 2


@pytest.mark.asyncio
async def test_a_decoder_that_dies_is_replaced_and_the_text_is_decoded_all_the_same(decoders: Decoders) -> None:
    """A crash there costs time, not the answer."""
    array, body = rows(20_000)
    await read(decoders, body)
    (first,) = decoders.pids
    os.kill(first, signal.SIGSTOP)
    asked = asyncio.ensure_future(read(decoders, body))
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)

    reading = await asked

    assert reading.arrays is not None
    assert reading.arrays["x"].tobytes() == array.tobytes()
    assert decoders.pids != [first]


@pytest.mark.asyncio
async def test_a_text_that_ends_two_decoders_is_refused_and_the_next_one_is_served() -> None:
    """Clear words, and harm to nobody. Both are stopped before they have it, so that neither is too fast to end."""
    pool = Decoders(limits=CodecLimits(), body_bytes=BODY_BYTES, clock=SystemClock(), most=2, idle_s=600.0)
    _, body = rows(100)
    await asyncio.gather(read(pool, body), read(pool, body))
    stopped = pool.pids
    assert len(stopped) == 2
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    asked = asyncio.ensure_future(read(pool, body))
    await until(lambda: len(pool._idle) == 1)
    (second,) = (decoder.pid for decoder in pool._idle)
    (first,) = {*stopped} - {second}
    os.kill(first, signal.SIGKILL)
    await until(lambda: not pool._idle)
    other = asyncio.ensure_future(read(pool, body))
    os.kill(second, signal.SIGKILL)

    with pytest.raises(TooLarge, match="ended 2 times"):
        await asked
    assert (await other).rows == 100
    await pool.close()


@pytest.mark.asyncio
async def test_whoever_gives_up_waiting_frees_the_place_and_the_memory(decoders: Decoders) -> None:
    """Also while the text is under way."""
    _, body = rows(1000)
    await read(decoders, body)
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGSTOP)
    asked = [asyncio.ensure_future(read(decoders, body)) for _ in range(10)]
    await asyncio.sleep(0)
    assert decoders.statistics().waiting == 9
    while asked:
        task = asked.pop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    del task

    assert decoders.statistics().waiting == 0
    os.kill(pid, signal.SIGCONT)
    await until(lambda: decoders.statistics().held_bytes == 0)
    assert (await read(decoders, body)).rows == 1000
    assert decoders.pids == [pid]


@pytest.mark.asyncio
async def test_a_deadline_holds_while_the_text_waits(decoders: Decoders) -> None:
    """Nobody is kept beyond it."""
    _, body = rows(10)
    await read(decoders, body)
    os.kill(decoders.pids[0], signal.SIGSTOP)
    waits = asyncio.ensure_future(read(decoders, body))
    await asyncio.sleep(0)

    with pytest.raises(DeadlineExceeded):
        await decoders.read(put(decoders, body), "predict", signature=ROWS, deadline=SystemClock().monotonic() + 0.01)

    os.kill(decoders.pids[0], signal.SIGCONT)
    assert (await waits).rows == 10


@pytest.mark.asyncio
async def test_a_small_text_passes_a_large_one_that_waits(decoders: Decoders) -> None:
    """The order is by size, corrected by age."""
    _, small = rows(10)
    _, large = rows(40_000)
    await read(decoders, small)
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGSTOP)
    order: list[str] = []

    async def ask(name: str, body: bytes) -> None:
        await read(decoders, body)
        order.append(name)

    asked = [asyncio.ensure_future(ask(name, body)) for name, body in (("a", small), ("large", large), ("b", small))]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGCONT)
    await asyncio.gather(*asked)

    assert order == ["a", "b", "large"]


@pytest.mark.asyncio
async def test_too_many_and_too_much_are_refused_at_the_door(decoders: Decoders) -> None:
    """By number and by bytes, with a time to come back."""
    texts = [decoders.text() for _ in range(64)]
    with pytest.raises(QueueFull, match="64 large bodies"):
        decoders.text()
    del texts[10:]
    with pytest.raises(QueueFull, match="bytes that they may take together"):  # noqa: PT012 - which one meets it is all one
        for text in texts:
            text.append(b" " * BODY_BYTES)
    del text, texts
    assert decoders.statistics().held_bytes == 0


@pytest.mark.asyncio
async def test_a_compressed_text_is_inflated_there_under_the_same_limits(decoders: Decoders) -> None:
    """A bomb is refused as anywhere."""
    array, body = rows(5000)
    small = put(decoders, gzip.compress(body))
    bomb = put(decoders, gzip.compress(b" " * (BODY_BYTES * 20)))

    reading = await decoders.read(small, "predict", encoding="gzip", signature=ROWS)
    assert reading.arrays is not None
    assert reading.arrays["x"].tobytes() == array.tobytes()
    with pytest.raises(TooLarge, match="inflates past"):
        await decoders.read(bomb, "predict", encoding="gzip", signature=ROWS)


@pytest.mark.asyncio
async def test_the_process_ends_when_nothing_has_come_for_a_while_and_with_the_pool() -> None:
    """And the next text starts another."""
    pool = Decoders(limits=CodecLimits(), body_bytes=BODY_BYTES, clock=SystemClock(), idle_s=0.01)
    _, body = rows(10)
    assert (await read(pool, body)).rows == 10
    await until(lambda: not pool.pids)
    assert (await read(pool, body)).rows == 10
    pids = pool.pids
    await pool.close()

    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(ServiceDraining):
        pool.text()


@pytest.mark.asyncio
async def test_a_hundred_texts_leave_no_descriptor_and_no_memory_lent(decoders: Decoders) -> None:
    """Everything is used again."""
    _, body = rows(2000)
    await read(decoders, body)
    before = psutil.Process().num_fds()
    for _ in range(100):
        await read(decoders, body)

    assert psutil.Process().num_fds() <= before + 4
    await until(lambda: decoders.statistics().lent == 0)
