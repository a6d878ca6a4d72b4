"""Whether processors are short: as the kernel tells it, asked now and then."""

from __future__ import annotations

from pathlib import Path

from runtimes.pressure import Shortage, processors_are_short


def test_pressure_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    """The container's own first; where neither is told, or as nobody knows it, processors are not short."""
    own, machine = tmp_path / "own", tmp_path / "machine"
    machine.write_text(
        "some avg10=61.50 avg60=2.33 avg300=6.93 total=138\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    )
    assert processors_are_short((own, machine))
    own.write_text("some avg10=0.10 avg60=70.00 avg300=6.93 total=138\n")
    assert not processors_are_short((own, machine))
    own.write_text("some avg10=much\n")
    assert processors_are_short((own, machine))
    assert not processors_are_short((own,))


def test_the_kernel_is_asked_once_a_second_at_most_and_only_on_a_look() -> None:
    """What it said last stands meanwhile, and is known without asking."""
    asked, now = [], [0.0]

    def read() -> bool:
        asked.append(now[0])
        return now[0] < 2.0

    shortage = Shortage(read, clock=lambda: now[0])
    assert not shortage.known
    for tenth in range(35):
        now[0] = tenth / 10
        assert shortage.look() == shortage.known == (tenth < 20)
    assert asked == [0.0, 1.0, 2.0, 3.0]
