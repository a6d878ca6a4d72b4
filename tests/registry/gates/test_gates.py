"""Gates of versions that are at fault in known ways: each refused, with its numbers; and of one that is not."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.checkpoints import SigningKey
from gateway.control.changes import Changes, Decision
from gateway.control.gate_asking import model_of
from gateway.control.gatekeeping import Override
from gateway.control.store import AuditEntry, DocumentKey, Snapshot
from gateway.errors import Conflict, GateRefused, IntegrityError, InvalidRegistration
from gateway.registry.gates.junit import junit
from gateway.registry.gates.records import GATES, read_record
from gateway.registry.signing.signatures import sign_manifest
from gateway.settings import TargetSettings
from tests.registry.gates.workshop import MODEL, finding, holdout, holdout_file, workshop

GOLDEN = {"cases": [{"inputs": [[0.9, 0.9, 0.1, 0.5]], "outputs": {"label": [1], "score": [0.9]}}]}
TARGETS = {"staging": TargetSettings(), "production": TargetSettings.model_validate({"from": ["staging"]})}
ACCURATE = {"kind": "metric", "data": "h", "metric": "accuracy", "at_least": 0.97}


def data(path: Path, **more: Any) -> dict[str, Any]:
    return {"h": {"file": str(path), "label": "y", "prediction": "label", "score": "score", "groups": ["sex"], **more}}


async def until(holds: Callable[[], bool]) -> None:
    """Of real processes: bounded, and looked at again and again."""
    async with asyncio.timeout(100):
        while not holds():  # noqa: ASYNC110 - another process tells by a file, or by its end
            await asyncio.sleep(0.02)


def golden(folder: Path) -> Path:
    path = folder / "golden.json"
    path.write_text(json.dumps(GOLDEN))
    return path


async def test_a_version_at_fault_is_refused_by_each_gate_with_its_numbers(tmp_path: Path) -> None:
    """Golden request, floor, champion, fairness, latency, memory, and a check of one's own; the alias stays."""
    async with workshop(tmp_path) as w:
        good = await w.register(golden=golden(tmp_path))
        await w.promote(good)
        # Wrong on one row in twenty, and on most of one group; slow, large, and off by a tenth.
        bad = await w.register(
            wrong=0.05, delay_s=0.03, held_mb=120, shift=0.1, golden=golden(tmp_path),
            more="x = np.where((x[:, 2:3] < 0.4) & (x[:, 3:4] < 0.5), np.float32(0.1), x)",
        )  # fmt: skip
        await w.declare(
            [
                {"kind": "golden", "tolerance": 0.01},
                ACCURATE,
                {"kind": "champion", "data": "h", "metric": "accuracy", "margin": 0.01},
                {"kind": "fairness", "data": "h", "group": "sex", "demographic_parity": 0.1, "equal_opportunity": 0.1},
                {"kind": "latency", "rows": [1, 8], "at_most_ms": 20, "at_most_ratio": 2, "rounds": 2, "calls": 3},
                {"kind": "memory", "at_most_mb": 100, "at_most_ratio": 1.5},
                {"kind": "signature"},
            ],
            data=data(holdout_file(tmp_path / "holdout.npz")),
        )
        with pytest.raises(GateRefused, match=r"accuracy is 0\.86") as refused:
            await w.promote(bad)
        report = {"report": refused.value.report}
        states = {one["kind"]: one["state"] for one in refused.value.report["gates"]}
        assert states == dict.fromkeys(("golden", "metric", "champion", "fairness", "latency", "memory"), "failed") | {
            "signature": "skipped"
        }
        assert finding(report, "golden")["numbers"]["largest_difference"] == pytest.approx(0.1, abs=1e-6)
        assert "expected 0.8999999" in finding(report, "golden")["said"]
        metric = finding(report, "metric")["numbers"]
        assert metric["rows"] == 10_000
        assert metric["interval"][0] < metric["value"] < metric["interval"][1] < 0.97
        beside = finding(report, "champion")["numbers"]
        assert beside["champion"] == 1.0
        assert beside["difference"] == pytest.approx(metric["value"] - 1)
        assert beside["only_champion_right"] > 1000
        assert beside["mcnemar_p"] < 1e-6
        gaps = finding(report, "fairness")["numbers"]
        assert gaps["equal_opportunity"]["gap"] > 0.4
        assert gaps["equal_opportunity"]["lowest"] == "f"
        batches = finding(report, "latency")["numbers"]["batches"]
        assert [one["rows"] for one in batches] == [1, 8]
        assert all(one["version"]["quietest_ms"] >= 30 and one["ratio"] > 2 for one in batches)
        assert finding(report, "memory")["numbers"]["version"]["peak_mb"] > 120
        assert (await w.control.models.get(MODEL))["aliases"] == {"champion": good}
        (record,) = await w.audited("gates")
        assert record["detail"]["passed"] is False
        assert "accuracy" in record["reason"]


async def test_a_version_that_passes_is_promoted_and_its_result_counts_until_something_changes(tmp_path: Path) -> None:
    """Ten thousand rows; run once for two names; again once the champion, the gates or the data are others."""
    async with workshop(tmp_path) as w:
        first, second = await w.register(), await w.register(shift=0.0, more="x = x + 0")
        await w.declare([ACCURATE], data=data(holdout_file(tmp_path / "holdout.npz")))
        view = await w.promote(first)
        assert view["aliases"] == {"champion": first}
        await w.control.models.set_alias(MODEL, "stable", first, actor="olga")
        assert len(await w.audited("gates")) == 1
        await w.control.models.set_alias(MODEL, "candidate", second, actor="olga")
        await w.control.models.set_alias(MODEL, "next", second, actor="olga")
        assert len(await w.audited("gates")) == 2
        await w.declare([ACCURATE], data=data(holdout_file(tmp_path / "other.npz", rows=500)))
        await w.control.models.set_alias(MODEL, "latest", second, actor="olga")
        assert len(await w.audited("gates")) == 3
        results = await w.control.gates.results(MODEL, str(second))
        assert results["passes"]
        assert results["report"]["gates"][0]["numbers"]["rows"] == 500
        moved = await w.audited("alias")
        assert moved[-1]["detail"]["gates"]["record"] == results["results"][-1]["record"]


async def test_a_result_that_this_home_did_not_sign_does_not_count(tmp_path: Path) -> None:
    """A catalogue entry that names another's record, one of another version, or altered bytes: the gates run."""
    async with workshop(tmp_path) as w:
        good, bad = await w.register(), await w.register(wrong=0.2)
        await w.declare([ACCURATE], data=data(holdout_file(tmp_path / "holdout.npz", rows=500)))
        passed = await w.run(good)
        failed = await w.run(bad)
        assert passed["passed"]
        assert not failed["passed"]
        forged = {
            "record": passed["record"],
            "passed": True,
            "at": 2e9,
            "basis": failed["report"]["basis"],
            "failed": [],
        }

        async def write(version: int, result: Mapping[str, Any]) -> None:
            def decide(snapshot: Snapshot) -> Decision:
                body = model_of(snapshot, MODEL).with_gate(version, result).to_json()
                return Decision(body, AuditEntry("mallory", "gates", f"model/{MODEL}", "", {}))

            await Changes(w.control.store).write(DocumentKey("model", MODEL), decide)

        await write(bad, forged)
        with pytest.raises(GateRefused):
            await w.promote(bad)
        note = w.control.blobs.read(passed["record"]).decode()
        other = w.control.blobs.put_bytes(note.replace(passed["report"]["basis"], failed["report"]["basis"]).encode())
        with pytest.raises(IntegrityError, match="not signed by the key"):
            read_record(other.digest, SigningKey.of(tmp_path / "home", GATES).public, w.control.blobs)
        await write(bad, forged | {"record": other.digest})
        with pytest.raises(GateRefused):
            await w.promote(bad)


async def test_an_override_runs_nothing_needs_a_reason_and_is_written_down(tmp_path: Path) -> None:
    """Audited with the gates that had refused, shown with the version, and for this move alone."""
    async with workshop(tmp_path) as w:
        bad = await w.register(wrong=0.2)
        await w.declare([ACCURATE], data=data(holdout_file(tmp_path / "holdout.npz", rows=500)))
        with pytest.raises(GateRefused):
            await w.promote(bad)
        with pytest.raises(InvalidRegistration, match="needs a reason"):
            await w.promote(bad, override=Override("  "))
        view = await w.promote(bad, override=Override("the truth of May is known to be wrong"))
        assert view["aliases"] == {"champion": bad}
        (entry,) = await w.audited("gates-override")
        assert entry["reason"] == "the truth of May is known to be wrong"
        assert entry["detail"]["failed"] == ["accuracy on h"]
        (moved,) = await w.audited("alias")
        assert moved["detail"]["gates"] == {"overridden": entry["reason"], "failed": ["accuracy on h"]}
        shown = (await w.control.models.version(MODEL, str(bad)))["gates"][-1]
        assert (shown["overridden"], shown["purpose"], shown["by"]) == (entry["reason"], "alias:champion", "olga")
        assert len(await w.audited("gates")) == 1
        with pytest.raises(GateRefused):
            await w.control.models.set_alias(MODEL, "other", bad, actor="olga")


async def test_a_rollout_begins_only_with_a_candidate_that_passes_beside_the_routes_known_good(tmp_path: Path) -> None:
    """The known good is the one to compare with, whatever the alias says."""
    async with workshop(tmp_path) as w:
        good, bad, wide = await w.register(), await w.register(wrong=0.2), await w.register(width=5)
        await w.control.routes.put("main", {"model": MODEL, "split": [{"version": good, "weight": 1}]}, actor="olga")
        await w.declare(
            [{"kind": "champion", "data": "h", "metric": "accuracy"}, {"kind": "signature"}],
            data=data(holdout_file(tmp_path / "holdout.npz", rows=1000)),
        )
        with pytest.raises(GateRefused) as refused:
            await w.control.rollouts.start("main", {"candidate": bad}, actor="olga")
        assert refused.value.report["against"]["version"] == good
        assert finding({"report": refused.value.report}, "signature")["state"] == "passed"
        assert (await w.control.routes.get("main"))["status"]["rollout"] is None
        with pytest.raises(GateRefused) as other:
            await w.promote(wide)
        assert (
            "on route main it cannot stand in for fraud/1"
            in finding({"report": other.value.report}, "signature")["said"]
        )
        begun = await w.control.rollouts.start(
            "main", {"candidate": bad}, actor="anna", override=Override("to see how bad it is")
        )
        assert begun["running"]


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
async def test_every_format_of_evaluation_data_gives_the_same_figures(tmp_path: Path, suffix: str) -> None:
    async with workshop(tmp_path) as w:
        version = await w.register(wrong=0.05)
        await w.declare(
            [ACCURATE, {"kind": "metric", "data": "h", "metric": "roc_auc", "at_least": 0.5},
             {"kind": "fairness", "data": "h", "group": ["sex"], "demographic_parity": 0.5}],
            data=data(holdout_file(tmp_path / f"holdout{suffix}", rows=5000)),
        )  # fmt: skip
        view = await w.run(version)
        rows = holdout(5000)
        wrong = rows["x"][:, 1] < 0.05
        said = np.where(wrong, 1 - rows["x"][:, 0], rows["x"][:, 0]) > 0.5
        assert finding(view, "metric")["numbers"]["value"] == pytest.approx(float((said == rows["y"]).mean()))
        groups = finding(view, "fairness")["numbers"]["groups"]
        assert groups["f"]["rows"] == int((rows["sex"] == "f").sum())
        assert groups["m"]["chosen"] == int((said & (rows["sex"] == "m")).sum())


CHECKS: Mapping[str, tuple[str, str, str]] = {
    "passes": (
        ("def check(version, settings):\n"
        "    out = version.predict(np.full((3, 4), 0.9, np.float32))\n"
        "    return {'passed': bool((out['label'] == 1).all()), 'numbers': {'n': 3, 'k': settings['k']}}\n"),
        "passed", "says that it passes",
    ),
    "fails": (
        "def check():\n    return {'passed': False, 'reason': 'the third figure is 0.3', 'numbers': {'f': 0.3}}\n",
        "failed", "the third figure is 0.3",
    ),
    "raises": ("def check(version):\n    return 1 / 0\n", "error", "ZeroDivisionError"),
    "exits": ("import os\ndef check(version):\n    os._exit(3)\n", "error", "exit status 3 and no verdict"),
    "hangs": ("def check(version):\n    while True: pass\n", "error", "not done within 1 s"),
    "holds too much": ("def check(version):\n    return bool(np.ones(10**9).all())\n", "error", "MemoryError"),
    "writes too much": (
        "def check(version):\n    open('big', 'wb').write(b'x' * (200 << 20))\n    return True\n", "error", "OSError",
    ),
    "has no function": ("def other(version):\n    return True\n", "error", "no function 'check'"),
    "gives nonsense": ("def check(version):\n    return 'fine'\n", "error", "expected True, False"),
    "asks wrongly": ("def check(version):\n    return version.predict({'no': np.ones(3)})\n", "error", "RuntimeError"),
    "wants more": ("def check(version, money):\n    return True\n", "error", "wants 'money'"),
}  # fmt: skip


async def test_a_check_of_ones_own_runs_within_its_limits_whatever_it_does(tmp_path: Path) -> None:
    """Each in a process of its own: it passes, fails, raises, exits, hangs, holds or writes too much."""
    async with workshop(tmp_path) as w:
        version = await w.register()
        gates = []
        for name, (code, _, _) in CHECKS.items():
            path = tmp_path / f"{name.replace(' ', '_')}.py"
            path.write_text("import numpy as np\n" + code)
            limit = 1 if name == "hangs" else 60
            gates.append({"kind": "python", "name": name, "file": str(path), "settings": {"k": 2}, "timeout_s": limit})
        await w.declare(gates)
        view = await w.run(version)
        found = {one["name"]: one for one in view["report"]["gates"]}
        for name, (_, state, said) in CHECKS.items():
            assert (found[name]["state"], said in found[name]["said"]) == (state, True), found[name]
        assert found["passes"]["numbers"] == {"n": 3, "k": 2}


async def test_a_run_whose_process_is_killed_refuses_and_says_so(tmp_path: Path) -> None:
    """By a check of one's own, here; what was found until then is in the report."""
    kill = tmp_path / "kill.py"
    kill.write_text("import os, signal\ndef check():\n    os.kill(os.getppid(), signal.SIGKILL)\n")
    async with workshop(tmp_path) as w:
        version = await w.register(golden=golden(tmp_path))
        await w.declare([{"kind": "golden"}, {"kind": "python", "file": str(kill)}])
        with pytest.raises(GateRefused, match="ended with signal 9"):
            await w.promote(version)
        report = (await w.control.gates.results(MODEL, str(version)))["report"]
        assert [one["state"] for one in report["gates"]] == ["passed", "error"]


async def test_what_cannot_be_looked_at_is_refused_in_words(tmp_path: Path) -> None:
    """Data without the label or with a value that is none, a version that breaks on the rows, no golden requests."""
    lacking, strange = tmp_path / "lacking.csv", tmp_path / "strange.csv"
    lacking.write_text("a,b,c,d\n0.1,0.2,0.3,0.4\n")
    strange.write_text("a,b,c,d,y\n0.1,0.2,0.3,0.4,maybe\n")
    async with workshop(tmp_path) as w:
        broken = await w.register(more="raise ValueError('no rows like these')")
        sets = {
            "lacking": {"file": str(lacking), "label": "y"},
            "strange": {"file": str(strange), "label": "y"},
            "h": {"file": str(holdout_file(tmp_path / "holdout.npz", rows=50)), "label": "y"},
        }
        metric = {"kind": "metric", "metric": "accuracy", "at_least": 0.5}
        await w.declare([{"kind": "golden"}, *({**metric, "data": name} for name in sets)], data=sets)
        view = await w.run(broken)
        said = {one["name"]: one["said"] for one in view["report"]["gates"]}
        assert "has no golden requests" in said["golden"]
        assert "has no column 'y'" in said["accuracy on lacking"]
        assert "no rows like these" in said["accuracy on h"]
        sound = await w.register()
        again = {one["name"]: one["said"] for one in (await w.run(sound))["report"]["gates"]}
        assert "holds text" in again["accuracy on strange"]


async def test_the_gate_of_authors_passes_what_one_of_them_signed(tmp_path: Path) -> None:
    """Unsigned, signed by a stranger, signed by an author: by real keys, checked by model-signing."""
    author, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    public = author.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    async with workshop(tmp_path) as w:
        version = await w.register()
        digest = (await w.control.models.version(MODEL, str(version)))["digest"]
        await w.declare([{"kind": "author", "keys": {"anna": public}}])
        assert "it has no signature" in finding(await w.run(version), "author")["said"]
        for key, name, state in ((stranger, "mallory", "failed"), (author, "anna", "passed")):
            file = tmp_path / name
            file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            bundle = await asyncio.to_thread(sign_manifest, w.control.blobs.read(digest), file)
            await w.control.artifacts.add_signature(MODEL, version, bundle, by=name, actor="olga")
            found = finding(await w.run(version), "author")
            assert found["state"] == state, found
        assert found["said"] == "its manifest is signed by anna"


async def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """A hundred times the rows, 160 MB more of them, and the run holds no more than a few batches: it streams."""
    async with workshop(tmp_path) as w:
        version = await w.register(width=1024)
        held = {}
        for rows in (400, 40_000):
            x = np.zeros((rows, 1024), np.float32)
            x[:, :2] = np.random.default_rng(1).random((rows, 2), np.float32)
            path = tmp_path / f"{rows}.npz"
            np.savez(path, x=x, y=(x[:, 0] > 0.5).astype(np.int64))
            await w.declare([ACCURATE], data={"h": {"file": str(path), "label": "y", "prediction": "label"}})
            view = await w.run(version)
            assert view["passed"], view["why"]
            held[rows] = view["report"]["machine"]
        assert held[40_000]["peak_bytes"] - held[400]["peak_bytes"] < 100e6
        assert held[40_000]["largest_child_bytes"] - held[400]["largest_child_bytes"] < 60e6


async def test_evaluation_data_that_was_altered_in_the_store_is_not_gone_by(tmp_path: Path) -> None:
    """Its digest is the declaration's."""
    async with workshop(tmp_path) as w:
        version = await w.register()
        declared = await w.declare([ACCURATE], data=data(holdout_file(tmp_path / "holdout.npz", rows=200)))
        path = w.control.blobs.path(declared["gates"]["data"]["h"]["file"]["digest"])
        os.chmod(path, 0o644)  # noqa: PTH101
        octets = bytearray(path.read_bytes())
        octets[len(octets) // 2] ^= 1
        path.write_bytes(octets)
        with pytest.raises(GateRefused, match="was altered"):
            await w.promote(version)


async def test_two_operators_who_promote_at_once_wait_for_one_run(tmp_path: Path) -> None:
    async with workshop(tmp_path) as w:
        version = await w.register()
        await w.declare([ACCURATE], data=data(holdout_file(tmp_path / "holdout.npz", rows=200)))
        one, other = await asyncio.gather(
            w.control.models.set_alias(MODEL, "a", version, actor="olga"),
            w.control.models.set_alias(MODEL, "b", version, actor="anna"),
        )
        assert {**one["aliases"], **other["aliases"]} == {"a": version, "b": version}
        assert len(await w.audited("gates")) == 1


async def test_gates_that_are_changed_while_a_version_passes_them_do_not_let_it_through(tmp_path: Path) -> None:
    """What was passed is no longer what is asked."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time, pathlib\ndef check(settings):\n    pathlib.Path(settings['here']).touch()\n"
        "    while not pathlib.Path(settings['go']).exists(): time.sleep(0.01)\n    return True\n"
    )
    here, go = tmp_path / "here", tmp_path / "go"
    async with workshop(tmp_path) as w:
        version = await w.register()
        await w.declare([{"kind": "python", "file": str(slow), "settings": {"here": str(here), "go": str(go)}}])
        moving = asyncio.ensure_future(w.promote(version))
        await until(here.exists)
        await w.declare([{"kind": "golden"}])
        go.touch()
        with pytest.raises(Conflict, match="were changed while"):
            await moving
        assert (await w.control.models.get(MODEL))["aliases"] == {}


SLOW = (
    "import time, pathlib\ndef check(settings):\n    pathlib.Path(settings['here']).touch()\n"
    "    while not pathlib.Path(settings['go']).exists(): time.sleep(0.01)\n    return True\n"
)


async def test_a_champion_that_is_moved_while_a_version_is_compared_with_it_does_not_let_it_through(
    tmp_path: Path,
) -> None:
    """What was shown was shown beside another; the second try is compared with the one of now."""
    slow, here, go = tmp_path / "slow.py", tmp_path / "here", tmp_path / "go"
    slow.write_text(SLOW)
    async with workshop(tmp_path) as w:
        first, second, third = await w.register(), await w.register(shift=0.01), await w.register(shift=0.02)
        await w.promote(first)
        await w.declare([{"kind": "python", "file": str(slow), "settings": {"here": str(here), "go": str(go)}}])
        moving = asyncio.ensure_future(w.promote(third))
        await until(here.exists)
        await w.promote(second, override=Override("hurry"))
        go.touch()
        with pytest.raises(Conflict, match="fraud/3 was compared with fraud/1 while @champion was moved to fraud/2"):
            await moving
        assert (await w.promote(third))["aliases"] == {"champion": third}


async def test_known_good_that_changes_while_a_candidate_is_compared_with_it_begins_no_rollout(tmp_path: Path) -> None:
    slow, here, go = tmp_path / "slow.py", tmp_path / "here", tmp_path / "go"
    slow.write_text(SLOW)
    async with workshop(tmp_path) as w:
        first, second, third = await w.register(), await w.register(shift=0.01), await w.register(shift=0.02)
        spec = {"model": MODEL, "split": [{"version": first, "weight": 1}]}
        await w.control.routes.put("main", spec, actor="olga")
        await w.declare([{"kind": "python", "file": str(slow), "settings": {"here": str(here), "go": str(go)}}])
        beginning = asyncio.ensure_future(w.control.rollouts.start("main", {"candidate": third}, actor="olga"))
        await until(here.exists)
        await w.control.routes.put("main", spec | {"split": [{"version": second, "weight": 1}]}, actor="anna")
        await w.control.routes.rollback("main", to=second, reason="for good", actor="anna")
        go.touch()
        with pytest.raises(Conflict, match="known good of route main changed from 1 to 2"):
            await beginning


async def test_the_name_that_versions_are_compared_with_is_not_dropped(tmp_path: Path) -> None:
    """Without a champion any version would pass: that takes an administrator, who changes the gates."""
    async with workshop(tmp_path) as w:
        good, bad = await w.register(), await w.register(wrong=0.2)
        await w.promote(good)
        await w.declare(
            [{"kind": "champion", "data": "h", "metric": "accuracy"}],
            data=data(holdout_file(tmp_path / "holdout.npz", rows=500)),
        )
        with pytest.raises(Conflict, match="compare its versions with @champion, and would pass any without"):
            await w.control.models.drop_alias(MODEL, "champion", actor="olga")
        with pytest.raises(GateRefused):
            await w.promote(bad)
        await w.control.gates.declare(MODEL, None, actor="anna")
        assert (await w.control.models.drop_alias(MODEL, "champion", actor="olga"))["aliases"] == {}


async def test_a_gate_may_be_for_some_changes_only(tmp_path: Path) -> None:
    """Staging asks less than production; who has passed all need not show the less again."""
    async with workshop(tmp_path, targets=TARGETS) as w:
        bad, good = await w.register(wrong=0.2), await w.register()
        strict = {**ACCURATE, "name": "strict", "for": ["target:production", "alias:champion"]}
        lax = {**ACCURATE, "name": "lax", "at_least": 0.5}
        rows = holdout_file(tmp_path / "holdout.npz", rows=500)
        declared = await w.declare([strict, lax], data=data(rows))
        assert declared["gates"]["gates"][0]["for"] == ["target:production", "alias:champion"]
        gates = w.control.gates
        staged = await gates.require(MODEL, bad, purpose="target:staging", actor="olga")
        assert [one["name"] for one in staged.report["gates"]] == ["lax"]
        with pytest.raises(GateRefused, match="strict: accuracy"):
            await gates.require(MODEL, bad, purpose="target:production", actor="olga")
        with pytest.raises(GateRefused, match="strict: accuracy"):
            await w.promote(bad)
        await gates.require(MODEL, good, purpose="target:production", actor="olga")
        runs = len(await w.audited("gates"))
        fresh = await gates.require(MODEL, good, purpose="target:staging", actor="olga")
        assert fresh.record is not None
        assert len(await w.audited("gates")) == runs
        await w.declare([strict], data=data(rows))
        assert (await gates.require(MODEL, bad, purpose="target:staging", actor="olga")).record is None
        with pytest.raises(InvalidRegistration, match="names 'production'; expected target, alias or rollout"):
            await w.declare([{**strict, "for": ["production"]}], data=data(rows))
        with pytest.raises(InvalidRegistration, match="target 'prodution', and the settings have staging, production"):
            await w.declare([{**strict, "for": "target:prodution"}], data=data(rows))


async def test_who_stops_waiting_on_a_home_ends_the_run(tmp_path: Path) -> None:
    """Its processes are gone, and nothing is written."""
    hang, here = tmp_path / "hang.py", tmp_path / "here"
    hang.write_text(
        "import os, pathlib, time\ndef check(settings):\n"
        "    pathlib.Path(settings['here']).write_text(str(os.getpid()))\n    time.sleep(600)\n"
    )
    async with workshop(tmp_path) as w:
        version = await w.register()
        await w.declare([{"kind": "python", "file": str(hang), "settings": {"here": str(here)}, "timeout_s": 600}])
        moving = asyncio.ensure_future(w.promote(version))
        await until(lambda: here.exists() and here.read_text() != "")
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        process = int(here.read_text())
        await until(lambda: not psutil.pid_exists(process))
        assert await w.audited("gates") == []


async def test_a_report_is_a_junit_suite_with_the_numbers(tmp_path: Path) -> None:
    """As CI systems read it: a case each, failures and errors counted."""
    async with workshop(tmp_path) as w:
        version = await w.register(wrong=0.2)
        await w.declare(
            [ACCURATE, {"kind": "environment"}, {"kind": "golden", "name": "a < b & \x07"}],
            data=data(holdout_file(tmp_path / "holdout.npz", rows=500)),
        )
        suite = ET.fromstring(junit((await w.run(version))["report"]))[0]  # noqa: S314 - our own
        assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "2", "1")
        case = next(one for one in suite if one.get("name") == "accuracy on h")
        assert "asked is at least 0.97" in str(case[0].get("message"))
        assert case[0].tag == "failure"


async def test_nothing_is_asked_of_a_model_without_gates(tmp_path: Path) -> None:
    """A move costs nothing, and a run says that there is none."""
    async with workshop(tmp_path) as w:
        version = await w.register()
        await w.promote(version)
        with pytest.raises(Conflict, match="declares no gates"):
            await w.run(version)
        assert await w.audited("gates") == []


GONE = {"name": "c.py", "digest": "sha256:" + "0" * 64, "size_bytes": 3}
BAD: Mapping[str, tuple[Any, str]] = {
    "no gates": ({"gates": []}, "0 are declared"),
    "a kind that is none": ({"gates": [{"kind": "golde"}]}, "gates\\[0\\].kind is 'golde'"),
    "an unknown key": ({"gates": [{"kind": "golden", "tolerence": 1}]}, "did you mean 'tolerance'"),
    "no limit": ({"gates": [{"kind": "latency"}]}, "it has no limit"),
    "no data": ({"gates": [ACCURATE]}, "no data 'h' is declared"),
    "a metric that is none": ({"gates": [{**ACCURATE, "metric": "niceness"}]}, "expected one of accuracy"),
    "two of a name": ({"gates": [{"kind": "golden"}, {"kind": "golden"}]}, "two are named 'golden'"),
    "a file that is not there": ({"gates": [{"kind": "python", "file": GONE}]}, "is not stored here"),
    "a path": ({"gates": [{"kind": "python", "file": "c.py"}]}, "file is 'c.py'; expected an object"),
    "a limit that is none": ({"gates": [{**ACCURATE, "at_least": "high"}]}, "at_least is 'high'; expected a number"),
    "no object": ([1], "gates is \\[1\\]; expected an object"),
}  # fmt: skip


async def test_a_declaration_that_is_wrong_is_refused_by_the_name_of_its_key(tmp_path: Path) -> None:
    async with workshop(tmp_path) as w:
        await w.register()
        for body, said in BAD.values():
            with pytest.raises(InvalidRegistration, match=said):
                await w.control.gates.declare(MODEL, body, actor="anna")
        assert (await w.control.gates.declared(MODEL))["gates"] is None
