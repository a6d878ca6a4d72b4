"""What users of flag systems complain of most, as tests that would fail here if it could happen."""

from __future__ import annotations

from pathlib import Path

from gateway.clock import ManualClock
from tests.control.scene import scene
from tests.control.test_flags import BETA, flag_file, look


async def test_pain_25_stale_flags_after_an_outage_do_not_decide_for_ever(tmp_path: Path) -> None:
    """Every decision tells the age of the data; past the route's limit the known good answers, and neither the stale
    flag nor a default; when the source is back, so is the flag, without a restart."""
    path, clock = flag_file(tmp_path / "flags.json", 4), ManualClock()
    async with scene(tmp_path, clock=clock, flags={"provider": "flagd-file", "path": path}) as stage:
        await stage.put({2: 100, 3: 0, 4: 0}, rules=[BETA], known_good=3, stale_after_s=60)
        path.unlink()
        seen = []
        for _ in range(4):
            await look(stage)
            decision = (await stage.predict()).decision
            assert decision is not None
            seen.append((decision.version.number, decision.flag_age_s, decision.flag_stale))
            clock.advance(25)
        assert seen == [(4, 0.0, False), (4, 25.0, False), (4, 50.0, False), (3, 75.0, True)]
        flag_file(path, 4)
        await look(stage)
        decision = (await stage.predict()).decision
        assert decision is not None
        assert (decision.version.number, decision.flag_age_s) == (4, 0.0)
