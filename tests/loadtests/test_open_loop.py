"""The open loop: Poisson arrivals, and an account of every request."""

from __future__ import annotations

import http.server
import socket
import statistics
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from loadtests.measurement import Ask
from loadtests.open_loop import BROKEN, Answers, arrivals, open_loop

ASK = Ask("/x", b"abc")


class Teller(http.server.BaseHTTPRequestHandler):
    """Every third request is refused, every third one's connection breaks."""

    protocol_version = "HTTP/1.1"
    count = 0
    turn = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with Teller.turn:
            Teller.count += 1
            place = Teller.count % 3
        if place == 2:
            self.close_connection = True
            return
        self.send_response(200 if place else 429)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


class Server(http.server.ThreadingHTTPServer):
    """Whose queue holds all that come while it, or the machine, stands still."""

    request_queue_size = 128


@pytest.fixture
def port() -> Iterator[int]:
    Teller.count = 0
    with Server(("127.0.0.1", 0), Teller) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_every_request_is_accounted_for_by_its_status(port: int) -> None:
    """Answers, refusals and broken connections add up to what was sent."""
    answers = open_loop(port, ASK, rate=60, seconds=1, seed=4)
    expected = len(arrivals(60, 1, 4))
    assert len(answers) == expected
    assert answers.count(200) + answers.count(429) + answers.count(BROKEN) == expected
    assert min(answers.count(status) for status in (200, 429, BROKEN)) >= expected // 3
    assert (answers.took_ms >= 0).all()


def test_a_server_that_is_not_there_breaks_every_request() -> None:
    """Refused connections are counted, not raised."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        answers = open_loop(nobody.getsockname()[1], ASK, rate=50, seconds=0.2)
    assert answers.count(BROKEN) == len(answers) > 0


def test_arrivals_are_a_poisson_process() -> None:
    """Gaps have the mean and the spread of an exponential distribution, and a seed gives the same ones again."""
    moments = arrivals(1000, 20, 7)
    gaps = np.diff(moments)
    assert statistics.mean(gaps) == pytest.approx(1 / 1000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 1000, rel=0.05)
    assert moments == arrivals(1000, 20, 7)


def test_goodput_counts_good_answers_in_time_only() -> None:
    """A late answer, a refusal and a broken connection are no goodput; windows go by the time of sending."""
    answers = Answers(
        np.array([0.1, 0.2, 0.9, 1.5]), np.array([10.0, 300.0, 1.0, 20.0]), np.array([200, 200, 429, 200]), np.zeros(4)
    )
    assert answers.within(200) == 2
    assert answers.during(0, 1).within(200) == 1
    assert answers.percentile_ms(99, status=429) == 1.0
    assert np.isnan(answers.percentile_ms(99, status=503))
