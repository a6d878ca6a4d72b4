"""A version in a child process: real children, killed, hung and fed for real."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gateway.errors import (
    DeviceMemoryExhausted,
    IntegrityError,
    InvalidInput,
    LoadError,
    ModelError,
    NotBegun,
    VersionCrashed,
    VersionHung,
)
from gateway.messages import DATATYPES, VersionRef
from gateway.serving.engine import VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.placement import engine_factory
from gateway.serving.process_engine import ProcessEngine
from runtimes import catalog
from runtimes.base import LoadSpec
from runtimes.layout import RESERVED_BYTES
from runtimes.memory import Memory
from runtimes.packets import Op, Packet, Reader, failure, receive, send
from tests.runtimes.versions import exported_torch, load_spec, signature
from tests.serving.processes import (
    LONG_S,
    children,
    descriptors,
    ended,
    eventually,
    gone,
    lying,
    overwrite,
    own_bytes,
    stand_still_until,
    text_of,
)


@pytest.fixture
async def forks():
    server = ForkServer(preload=())
    yield server
    await server.close()


def echo(*, signature_: Any = None, **options: Any) -> LoadSpec:
    return LoadSpec("echo", "", (), signature=signature_, options=options)


def spec_of(load: LoadSpec, **fields: Any) -> VersionSpec:
    return VersionSpec(VersionRef("digits", 3), "sha256:0", load, **fields)


class Exits(list):  # type: ignore[type-arg]
    """What ``on_exit`` was told."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    def __call__(self, how: str) -> None:
        self.append(how)
        self.came.set()


@asynccontextmanager
async def running(forks: ForkServer, load: LoadSpec, **fields: Any):
    exits = Exits()
    engine = engine_factory(forks)(spec_of(load, **fields), exits)
    info = await engine.start()
    try:
        yield engine, info, exits
    finally:
        await engine.close()


def rows(count: int = 2, value: float = 1.0) -> Mapping[str, Any]:
    return {"x": np.full((count, 4), value, np.float32)}


async def test_a_batch_is_joined_answered_and_told_with_its_cost(forks: ForkServer):
    """Parts in, one answer out, in the signature's order; the engine says what it is."""
    async with running(forks, echo(delay_ms=5)) as (engine, info, _):
        assert info.device == "cpu"
        assert info.pid in {child.pid for child in children()}
        result = await engine.run([rows(2, 1), rows(3, 2)], limit_s=LONG_S)
        assert result.outputs["y"].tolist() == [[1] * 4] * 2 + [[2] * 4] * 3
        assert result.compute_s >= 0.005
        assert result.outputs["y"].flags.writeable
        assert engine.memory_bytes() > 1 << 20
        assert repr(engine) == f"<ProcessEngine digits/3 [idle | pid {info.pid}]>"
    assert engine.memory_bytes() == 0
    assert gone(info.pid)


async def test_an_engine_that_has_ended_gives_its_read_buffer_back_at_once(forks: ForkServer):
    """61 kB each, without the collector, which comes by once in 40 versions: memory swung by 3 MB, most of it these."""

    def buffers() -> int:
        return sum(type(one) is Reader for one in gc.get_objects())  # isinstance would ask proxies, which answer

    gc.collect()
    before = buffers()
    gc.disable()
    try:
        async with running(forks, echo()) as (engine, _, _exits):
            await engine.run([rows()], limit_s=LONG_S)
            assert buffers() == before + 1
        assert buffers() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("datatype", DATATYPES)
async def test_every_datatype_goes_there_and_back(forks: ForkServer, datatype: str):
    """Zero rows, unicode and binary strings too; BF16 travels as float32."""
    given = signature({"x": (datatype, ("batch", 2))}, {"y": (datatype, ("batch", 2))})
    dtype = DATATYPES[datatype]
    if datatype == "BYTES":
        value = np.empty((2, 2), dtype=object)
        value[:] = [["žluť".encode(), b""], [b"\x00\xff", b"z" * 5000]]
    else:
        value = np.array([[0, 1], [1, 0]]).astype(dtype)
    async with running(forks, echo(signature_=given)) as (engine, _, _exits):
        result = await engine.run([{"x": value}], limit_s=LONG_S)
        assert result.outputs["y"].dtype == dtype
        assert result.outputs["y"].tolist() == value.tolist()
        empty = await engine.run([{"x": value[:0]}], limit_s=LONG_S)
        assert empty.outputs["y"].shape == (0, 2)


async def test_slots_grow_both_ways_without_running_the_model_twice(forks: ForkServer, tmp_path: Path):
    """A batch larger than the slot, an answer larger than the slot; small ones go on after."""
    source = b"""
import numpy as np
class Model:
    runs = 0
    def predict(self, inputs):
        self.runs += 1
        n = len(inputs["x"])
        return {"big": np.full((n, int(inputs["x"][0])), self.runs, np.float64), "runs": np.full(n, self.runs)}
"""
    given = signature({"x": ("FP64", ("batch",))}, {"big": ("FP64", ("batch", "width")), "runs": ("INT64", ("batch",))})
    load = load_spec(tmp_path, "python", "model.py", {"model.py": source}, signature=given)
    async with running(forks, load) as (engine, _, _exits):
        for run, (count, width) in enumerate([(1, 1), (1, 3_000_000), (200_000, 1), (1, 1), (3, 1_000_000)], 1):
            result = await engine.run([{"x": np.full(count, width, np.float64)}], limit_s=LONG_S)
            assert result.outputs["runs"][0] == run
            assert result.outputs["big"].shape == (count, width)
            assert (result.outputs["big"] == run).all()


async def test_answers_are_the_callers_to_keep(forks: ForkServer):
    """The next batch uses the same memory, and the answer stays what it was."""
    async with running(forks, echo()) as (engine, _, _exits):
        first = (await engine.run([rows(2, 1)], limit_s=LONG_S)).outputs["y"]
        await engine.run([rows(2, 9)], limit_s=LONG_S)
        assert (first == 1).all()


async def test_failures_keep_their_kind_and_the_engine_goes_on(forks: ForkServer, tmp_path: Path):
    """ModelError, InvalidInput and DeviceMemoryExhausted leave the child as it was."""
    control = tmp_path / "control.json"
    async with running(forks, echo(control=str(control))) as (engine, info, exits):
        for script, error in [
            ({"fail": "always"}, ModelError),
            ({"invalid": "always"}, InvalidInput),
            ({"oom_above_rows": 1}, DeviceMemoryExhausted),
        ]:
            control.write_text(json.dumps(script))
            with pytest.raises(error, match=r"digits/3: .*scripted"):
                await engine.run([rows()], limit_s=LONG_S)
        control.write_text("{}")
        assert (await engine.run([rows()], limit_s=LONG_S)).outputs["y"].shape == (2, 4)
        with pytest.raises(InvalidInput, match="'x' is missing"):
            await engine.run([{"z": rows()["x"]}], limit_s=LONG_S)
        with pytest.raises(InvalidInput, match="different type or shape"):
            await engine.run([rows(), {"x": np.zeros((1, 5), np.float32)}], limit_s=LONG_S)
        assert exits == []
        assert not gone(info.pid)


async def test_an_answer_with_the_wrong_rows_reaches_nobody(forks: ForkServer, tmp_path: Path):
    """The child holds outputs against the batch; the version fails, not the gateway."""
    source = b"class Model:\n    def predict(self, inputs):\n        return {'y': inputs['x'][:1]}\n"
    given = signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 4))})
    load = load_spec(tmp_path, "python", "model.py", {"model.py": source}, signature=given)
    async with running(forks, load) as (engine, _, _exits):
        with pytest.raises(ModelError, match=r"shape \[1, 4\] for a batch of 2 rows"):
            await engine.run([rows(2)], limit_s=LONG_S)


async def test_a_child_killed_at_work_is_a_crash_that_names_the_signal(forks: ForkServer, tmp_path: Path):
    """By itself, and from outside; ``on_exit`` is not told, since ``run`` tells."""
    gc.collect()
    before = descriptors()
    async with running(forks, echo(crash={"equals": 13})) as (engine, info, exits):
        assert await engine.run([rows()], limit_s=LONG_S)
        with pytest.raises(VersionCrashed, match="digits/3: its process ended on this work: killed by SIGKILL"):
            await engine.run([rows(value=13)], limit_s=LONG_S)
        assert gone(info.pid)
        with pytest.raises(NotBegun, match="start a new engine"):
            await engine.run([rows()], limit_s=LONG_S)
        assert exits == []
    async with running(forks, echo(delay_ms=60_000)) as (engine, info, exits):
        work = asyncio.ensure_future(engine.run([rows()], limit_s=LONG_S))
        await eventually(lambda: engine._conversation.begun)
        os.kill(info.pid, signal.SIGSEGV)
        with pytest.raises(VersionCrashed, match="killed by SIGSEGV"):
            await work
        assert exits == []
    await forks.close()
    assert descriptors() == before


async def test_a_child_killed_while_idle_is_told_once(forks: ForkServer):
    """With how it ended; a later run says that a new engine is needed, and closing stays possible."""
    async with running(forks, echo()) as (engine, info, exits):
        os.kill(info.pid, signal.SIGKILL)
        await asyncio.wait_for(exits.came.wait(), LONG_S)
        assert exits == ["killed by SIGKILL"]
        with pytest.raises(NotBegun):
            await engine.run([rows()], limit_s=LONG_S)
    assert exits == ["killed by SIGKILL"]


async def test_a_batch_beyond_its_limit_ends_the_child(forks: ForkServer):
    """VersionHung, and no process stays behind, even one that ignores every polite signal."""
    async with running(forks, echo(hang="always")) as (engine, info, exits):
        with pytest.raises(VersionHung, match=r"no answer within 0.05 s; its process was ended"):
            await engine.run([rows()], limit_s=0.05)
        assert gone(info.pid)
        assert exits == []


async def test_a_stalled_gateway_does_not_condemn_its_child(forks: ForkServer):
    """The answer lay in the socket while the loop stood still: that is no hang."""
    async with running(forks, echo()) as (engine, _, _exits):
        await engine.run([rows()], limit_s=LONG_S)  # from now on nothing but answers comes
        work = asyncio.ensure_future(engine.run([rows()], limit_s=0.2))
        await asyncio.sleep(0)
        stand_still_until(lambda: lying(engine) > 0)
        threading.Event().wait(0.3)
        assert (await work).outputs["y"].shape == (2, 4)


async def test_cancelling_a_batch_ends_the_child(forks: ForkServer):
    """Nobody waits for its answer, and no later caller may get it."""
    async with running(forks, echo(delay_ms=60_000)) as (engine, info, _exits):
        work = asyncio.ensure_future(engine.run([rows()], limit_s=LONG_S))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert gone(info.pid)


async def test_cancelling_a_start_ends_the_child(forks: ForkServer):
    """Also one that hangs while it loads."""
    await forks.start()
    before = descriptors()
    engine = ProcessEngine(spec_of(echo(hang="start")), forks, Exits())
    start = asyncio.ensure_future(engine.start())
    await eventually(lambda: len(children()) == 2)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert len(children()) == 1
    assert descriptors() == before


async def test_a_load_beyond_its_time_is_a_load_error(forks: ForkServer):
    """And gives everything back."""
    await forks.start()
    engine = ProcessEngine(spec_of(echo(hang="start"), load_timeout_s=1.5), forks, Exits())
    with pytest.raises(LoadError, match=r"not loaded within 1.5 s"):
        await engine.start()
    assert len(children()) == 1


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (echo(fail_load="no weights"), "digits/3: no weights"),
        (echo(crash="start"), "digits/3: its process ended while loading: killed by SIGKILL"),
        (LoadSpec("tf", "", ()), "format 'tf' is unknown"),
    ],
)
async def test_a_load_that_fails_says_why_and_leaves_nothing(forks: ForkServer, load: LoadSpec, told: str):
    """By its own word, by a crash, by an unknown format."""
    await forks.start()
    before = descriptors()
    engine = ProcessEngine(spec_of(load), forks, Exits())
    with pytest.raises(LoadError, match=told):
        await engine.start()
    assert len(children()) == 1
    assert descriptors() == before
    await engine.close()
    with pytest.raises(LoadError, match="make a new one"):
        await engine.start()


async def test_a_flipped_byte_is_an_integrity_error_with_both_digests(forks: ForkServer, tmp_path: Path):
    """In the entry, and in a file that nobody reads."""
    for wrong in ("model.echo", "unused.bin"):
        load = load_spec(tmp_path, "echo", "model.echo", {"model.echo": b"{}", "unused.bin": b"abc"})
        file = next(file for file in load.files if file.name == wrong)
        overwrite(file.path, b"{ ")
        engine = ProcessEngine(spec_of(load), forks, Exits())
        with pytest.raises(IntegrityError) as failure:
            await engine.start()
        assert file.sha256 in str(failure.value)
        assert "read sha256:" in str(failure.value)


async def test_what_was_loaded_is_told_by_digest(forks: ForkServer, tmp_path: Path):
    """Every file of the version."""
    load = load_spec(tmp_path, "echo", "model.echo", {"model.echo": b"{}", "notes.txt": b"abc"})
    async with running(forks, load) as (_, info, _exits):
        assert info.loaded == {file.name: file.sha256 for file in load.files}


async def test_placements_are_checked(forks: ForkServer):
    """An unknown one is a load error that names the known."""
    with pytest.raises(LoadError, match="placement 'moon' is unknown; expected process or inline"):
        engine_factory(forks)(spec_of(echo(), placement="moon"), print)
    with pytest.raises(LoadError, match="inline cannot use interpreter"):
        engine_factory(forks)(spec_of(echo(), placement="inline", interpreter="/usr/bin/python3"), print)


async def test_closing_at_work_kills_and_the_work_is_told(forks: ForkServer):
    """``close`` is bounded and idempotent; the batch under way is a crash for its caller."""
    async with running(forks, echo(hang="always")) as (engine, info, exits):
        work = asyncio.ensure_future(engine.run([rows()], limit_s=LONG_S))
        await eventually(lambda: engine._conversation.begun)
        await asyncio.wait_for(engine.close(), LONG_S)
        with pytest.raises(VersionCrashed):
            await work
        await engine.close()
        assert gone(info.pid)
        assert exits == []


class Impostor(ForkServer):
    """A fork server whose children idle while this test holds their channel, and says what it likes."""

    def __init__(self) -> None:
        super().__init__(preload=())
        self.channel: socket.socket | None = None
        self.decoy = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def spawn(self, channel: socket.socket, **fields: Any):
        child = await super().spawn(self.decoy[1], **fields)
        self.channel = channel.dup()
        self.channel.setblocking(False)
        return child


@pytest.fixture
async def impostor():
    server = Impostor()
    yield server
    await server.close()
    for end in (server.channel, *server.decoy):
        if end is not None:
            end.close()


async def taken_over(impostor: Impostor, spec: VersionSpec):
    """An engine that believes it has loaded, and the output memory as its 'child' holds it."""
    engine = ProcessEngine(spec, impostor, Exits())
    start = asyncio.ensure_future(engine.start())
    await eventually(lambda: impostor.channel is not None)
    channel, output = impostor.channel, None
    while True:
        try:
            packet, fd = receive(channel, fds=True)
        except BlockingIOError:
            await asyncio.sleep(0.001)
            continue
        if packet.op == Op.OUTPUT:
            output = Memory.attach(fd, writable=True)
        elif fd is not None:
            os.close(fd)
        if packet.op == Op.LOAD:
            break
    assert output is not None
    body = {"signature": spec.load.signature.to_json(), "device": "cpu", "loaded": {}}
    raw = json.dumps(body).encode()
    output.buffer[RESERVED_BYTES : RESERVED_BYTES + len(raw)] = raw
    send(channel, Packet(Op.LOADED, size_bytes=len(raw)))
    await start
    return engine, channel, output


def layout(shapes: Any = ((4,),), **fields: Any) -> Packet:
    return Packet(Op.LAYOUT, tail=json.dumps(shapes).encode(), **{"rows": 32, **fields})


DONE = Packet(Op.DONE, rows=2)
ATTACKS: dict[str, list[Packet | bytes | None]] = {
    "no layout": [DONE],
    "wrong shape": [layout(((5,),))],
    "two tensors": [layout(((4,), (4,)))],
    "layout beyond": [layout(layout=64)],
    "layout of nothing": [Packet(Op.LAYOUT, tail=b"{}")],
    "room for less": [layout(rows=1), DONE],
    "room for too much": [layout(rows=1 << 31), DONE],
    "past the memory": [layout(rows=1 << 20), DONE],
    "other slot": [layout(), DONE._replace(slot=1)],
    "other memory": [layout(), DONE._replace(output=1)],
    "strings": [layout(), DONE._replace(tail=b"1234567"), DONE],
    "unknown packet": [b"\xee" * 30],
    "huge packet": [b"\x11" * 100_000],
    "giant": [Packet(Op.GROW, size_bytes=1 << 60)],
    "room it has": [Packet(Op.GROW, size_bytes=100)],
    "room elsewhere": [Packet(Op.GROW, output=3, size_bytes=1 << 20)],
    "unasked": [Packet(Op.LOADED, size_bytes=5)],
    "other failure": [failure("model-error", "no", slot=2)],
    "twice": [layout(), DONE, DONE],
    "end": [None],
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_taken_over_child_can_only_end_itself(impostor: Impostor, attack: str):
    """Layouts that were not promised, answers to what was not asked, absurd wishes: the gateway is whole."""
    given = signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 4))})
    engine, channel, output = await taken_over(impostor, spec_of(echo(signature_=given)))
    channel.setblocking(True)
    work = asyncio.ensure_future(engine.run([rows(2)], limit_s=LONG_S))
    await asyncio.sleep(0)
    for piece in ATTACKS[attack]:
        if piece is None:
            channel.shutdown(socket.SHUT_RDWR)
        elif isinstance(piece, bytes):
            channel.send(piece)
        else:
            send(channel, piece)
    if attack == "twice":
        assert (await work).outputs["y"].shape == (2, 4)
        await eventually(lambda: len(children()) == 1)
    elif attack == "end":
        with pytest.raises(NotBegun):
            await work
    else:
        with pytest.raises(VersionCrashed, match="broke the protocol"):
            await work
    output.close()
    assert len(children()) == 1
    await engine.close()


async def test_sizes_of_strings_that_lie_end_the_child(impostor: Impostor):
    """They reach past the memory, or are none; what they point at is parsed from a copy."""
    given = signature({"x": ("FP32", ("batch", 4))}, {"s": ("BYTES", ("batch",))})
    for tail in (b"\xff" * 8, b"\x08" + b"\0" * 7, b"\0" * 16):
        engine, channel, output = await taken_over(impostor, spec_of(echo(signature_=given)))
        work = asyncio.ensure_future(engine.run([rows(2)], limit_s=LONG_S))
        await asyncio.sleep(0)
        send(channel, layout(((),)))
        output.buffer[:] = b"\xff" * output.size_bytes
        send(channel, DONE._replace(tail=tail))
        with pytest.raises(VersionCrashed, match="broke the protocol"):
            await work
        output.close()
        await engine.close()
        channel.close()
        impostor.channel = None
        impostor.decoy[0].close()
        impostor.decoy[1].close()
        impostor.decoy = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def test_a_memory_that_cannot_be_sent_is_never_taken_for_the_one_before_it(impostor: Impostor):
    """No batch may run on the input of another: the batch fails, the engine is good, the memory is sent next time."""
    given = signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 4))})
    engine, channel, output = await taken_over(impostor, spec_of(echo(signature_=given)))
    with suppress(BlockingIOError):
        while True:
            send(engine._conversation._channel, Packet(Op.NORMAL))
    large = rows(100_000)
    with pytest.raises(ModelError, match="no shared memory for this batch"):
        await engine.run([large], limit_s=LONG_S)
    with suppress(BlockingIOError):
        while receive(channel):
            pass
    work = asyncio.ensure_future(engine.run([large], limit_s=LONG_S))
    await asyncio.sleep(0)
    came = []
    with suppress(BlockingIOError):
        while True:
            packet, fd = receive(channel, fds=True)
            came.append(packet.op)
            if fd is not None:
                os.close(fd)
    assert came == [Op.LAYOUT, Op.INPUT, Op.RUN]
    send(channel, failure("model-error", "enough"))
    with pytest.raises(ModelError, match="enough"):
        await work
    output.close()
    await engine.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_cycles_of_a_torch_version_leave_nothing(tmp_path: Path):
    """Load, infer, unload: memory within 3 MB, no child, descriptor or segment over; the same for 30 failing loads.

    In a process of its own: what other tests have left in this one may move its memory either way."""
    code = f"import asyncio, sys\nfrom pathlib import Path\nfrom {__name__} import cycles\n"
    command = [sys.executable, "-c", code + "asyncio.run(cycles(Path(sys.argv[1])))", str(tmp_path)]
    subprocess.run(command, check=True, timeout=1700, cwd=Path(__file__).parents[2])


async def cycles(tmp_path: Path) -> None:
    """Fails where something is left."""
    forks = ForkServer(preload=catalog.preloads(["torch"]))
    good = load_spec(tmp_path, "torch", "model.pt2", {"model.pt2": exported_torch()})
    bad = load_spec(tmp_path, "torch", "model.pt2", {"model.pt2": b"not a program"})

    async def cycle() -> None:
        async with running(forks, good) as (engine, info, _):
            result = await engine.run([rows(3)], limit_s=LONG_S)
            assert result.outputs["logits"].shape == (3, 3)
        assert gone(info.pid)

    async def failing() -> None:
        with pytest.raises(LoadError, match=r"cannot load 'model.pt2'"):
            await ProcessEngine(spec_of(bad), forks, Exits()).start()

    try:
        for _ in range(5):
            await cycle()
            await failing()
        gc.collect()
        memory, fds = own_bytes(), descriptors()
        for _ in range(100):
            await cycle()
        for _ in range(30):
            await failing()
        gc.collect()
        assert own_bytes() - memory < 3 << 20
        assert descriptors() == fds
        assert len(children()) == 1  # the fork server
        assert "turnout" not in text_of("/proc/self/maps")  # no memfd mapped
    finally:
        await forks.close()
    assert children() == []


async def test_a_version_may_have_an_interpreter_of_its_own(forks: ForkServer, tmp_path: Path):
    """Its own packages and prefix; only our runtimes package is put in, not the gateway's module path."""
    home = tmp_path / "venv"
    venv.create(home, symlinks=True, with_pip=False)
    packages = next((home / "lib").glob("python*")) / "site-packages"
    (packages / "numpy.pth").write_text(str(Path(np.__file__).parents[1]))
    (packages / "only_there.py").write_text("WORD = 'there'\n")
    source = b"""
import sys
import numpy as np
import only_there
class Model:
    def predict(self, inputs):
        return {"prefix": np.array([sys.prefix, only_there.WORD] * len(inputs["x"]), object).reshape(-1, 2)}
"""
    given = signature({"x": ("FP32", ("batch", 4))}, {"prefix": ("BYTES", ("batch", 2))})
    load = load_spec(tmp_path, "python", "model.py", {"model.py": source}, signature=given)
    interpreter = str(home / "bin" / "python")
    async with running(forks, load, interpreter=interpreter) as (engine, info, _exits):
        result = await engine.run([rows(1)], limit_s=LONG_S)
        assert result.outputs["prefix"].tolist() == [[str(home).encode(), b"there"]]
    assert gone(info.pid)


async def test_an_interpreter_that_cannot_run_versions_says_so(forks: ForkServer, tmp_path: Path):
    """Not there, or without numpy."""
    engine = ProcessEngine(spec_of(echo(), interpreter=str(tmp_path / "python")), forks, Exits())
    with pytest.raises(LoadError, match="cannot be started: No such file"):
        await engine.start()
    home = tmp_path / "empty"
    venv.create(home, symlinks=True, with_pip=False)
    engine = ProcessEngine(spec_of(echo(), interpreter=str(home / "bin" / "python")), forks, Exits())
    with pytest.raises(LoadError, match=r"cannot run versions: No module named 'numpy'; it needs numpy"):
        await engine.start()


async def test_prints_of_model_code_carry_the_versions_name(
    forks: ForkServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """On standard error, from both streams; standard output is the gateway's."""
    source = b"""
import os, sys
class Model:
    def predict(self, inputs):
        print("hello")
        print("warning", file=sys.stderr)
        os.write(1, b"raw\\n")
        return {"y": inputs["x"]}
"""
    given = signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 4))})
    load = load_spec(tmp_path, "python", "model.py", {"model.py": source}, signature=given)
    async with running(forks, load) as (engine, _, _exits):
        await engine.run([rows()], limit_s=LONG_S)
    out, err = capfd.readouterr()
    assert out == ""
    assert "[digits/3] hello\n" in err
    assert "[digits/3] warning\n" in err
    assert "raw\n" in err


def held(pid: int) -> list[str]:
    """What a process has open beside the standard three, by kind."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if int(entry.name) > 2]
    return [link.split(":")[0] for link in links]


async def test_a_child_keeps_no_descriptor_but_its_own(forks: ForkServer):
    """Channel and two memories, beside the standard three; nothing of the gateway or of its siblings."""
    async with running(forks, echo()) as (_, first, _e), running(forks, echo()) as (_, second, _f):
        for info in (first, second):
            kinds = held(info.pid)
            assert set(kinds) <= {"socket", "/memfd"}
            assert kinds.count("socket") == 1


async def test_what_a_version_started_ends_with_it(forks: ForkServer, tmp_path: Path):
    """A helper process of model code does not outlive a child that is killed."""
    source = b"""
import subprocess
import numpy as np
class Model:
    def __init__(self):
        self.helper = subprocess.Popen(["sleep", "600"])
    def predict(self, inputs):
        return {"pid": np.full(len(inputs["x"]), self.helper.pid)}
"""
    given = signature({"x": ("FP32", ("batch", 4))}, {"pid": ("INT64", ("batch",))})
    load = load_spec(tmp_path, "python", "model.py", {"model.py": source}, signature=given)
    async with running(forks, load) as (engine, info, exits):
        helper = int((await engine.run([rows(1)], limit_s=LONG_S)).outputs["pid"][0])
        assert not gone(helper)
        os.kill(info.pid, signal.SIGKILL)
        await asyncio.wait_for(exits.came.wait(), LONG_S)
    await eventually(lambda: ended(helper))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_child_serves_at_normal_priority_after_it_has_loaded(forks: ForkServer):
    """Low while loading, where the way back is allowed; never stuck there."""
    async with running(forks, echo()) as (engine, info, _):
        await engine.run([rows()], limit_s=LONG_S)
        assert psutil.Process(info.pid).nice() == psutil.Process().nice()
