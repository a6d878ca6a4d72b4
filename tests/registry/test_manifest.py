"""The manifest: immutable, strict, and named by its bytes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import RegistryError
from gateway.messages import DATATYPES, Signature, TensorSpec
from gateway.registry import canonical
from gateway.registry.manifest import (
    FORMATS,
    BlobRef,
    Effects,
    EvaluationRecord,
    FileEntry,
    Lineage,
    Manifest,
    ProfilePlace,
    RuntimePlan,
)
from tests.registry.test_canonical import values

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)
sizes = st.integers(0, 2**40)
blob_refs = st.builds(BlobRef, sha256s, sizes)
tensors = st.builds(
    TensorSpec,
    names,
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.integers(0, 4096) | names, max_size=4).map(tuple),
)
sides = st.lists(tensors, min_size=1, max_size=3, unique_by=lambda spec: spec.name).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
limits = st.none() | st.integers(1, 10**6)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    files = draw(
        st.lists(st.builds(FileEntry, names, sha256s, sizes), min_size=1, max_size=4, unique_by=lambda file: file.name)
    )
    interval = st.tuples(finite, finite).map(lambda ends: (min(ends), max(ends)))
    return Manifest(
        model=draw(names),
        format=draw(st.sampled_from(FORMATS)),
        entry=files[0].name,
        files=tuple(files),
        signature=Signature(draw(sides), draw(sides), draw(st.booleans())),
        runtime=RuntimePlan(
            device=draw(st.sampled_from([None, "auto", "cpu", "cuda:1"])),
            threads=draw(limits),
            placement=draw(st.sampled_from(["process", "inline"])),
            precision=draw(st.sampled_from([None, "fp16", "bf16"])),
            compile=draw(st.booleans()),
            cuda_graphs=draw(st.booleans()),
            interpreter=draw(st.none() | names),
            max_rows=draw(limits),
            queue_rows=draw(limits),
            hang_floor_ms=draw(limits),
            options=draw(st.dictionaries(names, values, max_size=3)),
        ),
        effects=Effects(draw(st.booleans())),
        example=draw(st.none() | blob_refs),
        golden=draw(st.none() | blob_refs),
        environment=draw(st.none() | blob_refs),
        lineage=Lineage(**{item.name: draw(st.none() | values) for item in fields(Lineage)}),
        evaluation=tuple(
            draw(
                st.lists(
                    st.builds(
                        EvaluationRecord,
                        names,
                        finite,
                        st.none() | sizes,
                        st.none() | names,
                        st.none() | interval,
                        st.none() | names,
                    ),
                    max_size=3,
                )
            )
        ),
        profile=draw(st.none() | st.builds(ProfilePlace, blob_refs, names, st.none() | blob_refs)),
    )


@settings(deadline=None)
@given(manifests())
def test_a_manifest_reads_back_from_its_bytes(manifest: Manifest) -> None:
    """Same fields, same bytes, same digest."""
    data = manifest.canonical()
    back = Manifest.from_bytes(data)
    assert back == manifest
    assert back.canonical() == data
    assert back.digest == manifest.digest == canonical.digest_of(data)


def _places(body: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every leaf of a JSON value."""
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else None
    if not items:
        yield path
        return
    for key, value in items:
        yield from _places(value, (*path, key))


def _changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if abs(value) < 2**52 else value / 2
    if isinstance(value, str):
        return ("0" if value[:1] != "0" else "1") + value[1:]
    return 1 if value is None else None


@settings(deadline=None)
@given(manifests(), st.data())
def test_any_change_of_any_field_is_refused_or_gets_another_digest(manifest: Manifest, data: st.DataObject) -> None:
    """No place of the manifest is outside its name."""
    body = manifest.to_json()
    path = data.draw(st.sampled_from(sorted(_places(body), key=repr)))
    spot = body
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = _changed(spot[path[-1]])
    try:
        changed = Manifest.from_json(body)
    except RegistryError:
        return
    assert changed.digest != manifest.digest


def _whole() -> Manifest:
    """A version that says everything that can be said."""
    blob = BlobRef("b" * 64, 5)
    signature = Signature((TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("y", "FP32", ("batch",)),))
    return Manifest(
        model="digits",
        format="onnx",
        entry="model.onnx",
        files=(FileEntry("model.onnx", "a" * 64, 10), FileEntry("weights.bin", "c" * 64, 11)),
        signature=signature,
        runtime=RuntimePlan("cuda:1", 2, "inline", "/usr/bin/python3", 8, 9, 10, "fp16", True, True, {"k": [1]}),
        effects=Effects(False),
        example=blob,
        golden=blob,
        environment=blob,
        lineage=Lineage(**{item.name: {"of": [item.name]} for item in fields(Lineage)}),
        evaluation=(EvaluationRecord("accuracy", 0.9, 100, "night", (0.8, 2.0), "sha256:" + "d" * 64),),
        profile=ProfilePlace(blob, "reference.csv", blob),
    )


_OTHER = {"format": "torch", "entry": "weights.bin", "placement": "process", "device": "cpu", "precision": "bf16"}
_OTHER |= {"datatype": "FP64"}
"""Fields that take few values: another of them."""


def _variants(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """This value with a single field changed, however deep, for each. By walking the records, so that a field that is
    added to one, and forgotten in its JSON, is found. What is no value of its field is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        parts: Any = [(item.name, getattr(value, item.name)) for item in fields(value) if item.compare]
    elif isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, tuple):
        parts = list(enumerate(value))
    else:
        yield place, _OTHER.get(place.rpartition(".")[2], _changed(value))
        return
    for name, part in parts:
        for spot, other in _variants(part, f"{place}.{name}"):
            try:
                if isinstance(value, tuple):
                    yield spot, (*value[:name], other, *value[name + 1 :])
                elif isinstance(value, Mapping):
                    yield spot, {**value, name: other}
                else:
                    yield spot, replace(value, **{name: other})
            except (RegistryError, ValueError):
                assert spot == ".files.0.name", spot  # the entry is one of the files


def test_every_field_of_the_manifest_is_covered_by_the_digest() -> None:
    """Each one, flipped, is another version; none is left out."""
    whole = _whole()
    variants = dict(_variants(whole))
    for place, other in variants.items():
        assert other.digest != whole.digest, place
    assert {place.split(".")[1] for place in variants} == {item.name for item in fields(Manifest) if item.compare}
    assert {place.split(".")[2] for place in variants if place.startswith(".lineage")} == {
        item.name for item in fields(Lineage)
    }
    assert len({other.digest for other in variants.values()}) == len(variants)


def test_lineage_recorded_later_is_left_out_where_there_is_none() -> None:
    """So that versions registered before these places existed keep their digests."""
    body = _plain().to_json()
    assert "environment" not in body
    assert not {"run", "features", "source"} & body["lineage"].keys()
    assert "dataset" not in EvaluationRecord("accuracy", 0.9).to_json()
    assert ("(environment)", "sha256:" + "b" * 64, 5) in _whole().blobs()


def _plain() -> Manifest:
    file = FileEntry("model.onnx", "a" * 64, 10)
    signature = Signature((TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("y", "FP32", ("batch",)),))
    return Manifest("digits", "onnx", "model.onnx", (file,), signature)


def _body(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(_plain().to_json()) | changes


def test_the_digest_of_a_known_manifest_never_changes() -> None:
    """The stored form is frozen: another program must find the same name for the same version."""
    assert _plain().canonical() == (
        b'{"effects":{"retry":true},"entry":"model.onnx","evaluation":[],"example":null,'
        b'"files":[{"name":"model.onnx","sha256":"' + b"a" * 64 + b'","size_bytes":10}],"format":"onnx","golden":null,'
        b'"lineage":{"author":null,"code":null,"data":null,"environment":null,"notes":null,"parameters":null,'
        b'"parent":null},"model":"digits","profile":null,"runtime":{"device":null,"hang_floor_ms":null,'
        b'"interpreter":null,"max_rows":null,"options":{},"placement":"process","queue_rows":null,"threads":null},'
        b'"schema":1,"signature":{"batched":true,"inputs":[{"datatype":"FP32","name":"x","shape":["batch",4]}],'
        b'"outputs":[{"datatype":"FP32","name":"y","shape":["batch"]}]}}'
    )
    assert _plain().digest == "sha256:8795abf8f3d2cea2ee7bcd69be7ea42a8821fd94e9e1deb93ee2b83091b9e05e"


def test_the_order_of_files_changes_nothing() -> None:
    """Files are a set with names."""
    one, two = FileEntry("a.bin", "a" * 64, 1), FileEntry("model.onnx", "b" * 64, 2)
    assert replace(_plain(), files=(one, two)).digest == replace(_plain(), files=(two, one)).digest


def test_a_manifest_cannot_be_changed_in_place() -> None:
    """Neither its fields nor the JSON inside them."""
    manifest = replace(_plain(), lineage=Lineage(parameters={"depth": [1, 2]}))
    with pytest.raises(FrozenInstanceError):
        manifest.model = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        manifest.lineage.parameters["depth"] = 3
    with pytest.raises(TypeError):
        manifest.runtime.options["x"] = 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (_body(modell="x"), "unknown key 'modell'; did you mean 'model'"),
        (_body(model=3), "manifest.model is 3; expected a non-empty string"),
        (_body(model="../x"), r"model name '\.\./x'"),
        (_body(schema=7), "manifest.schema is 7; expected 1"),
        (_body(format="tf"), "format is 'tf'; expected one of onnx, torch"),
        (_body(files=[]), "a version has 1 to 10000 files"),
        (_body(entry="other"), "entry 'other' is not among"),
        (_body(effects={"retry": 1}), "manifest.effects.retry is 1; expected true or false"),
        (_body(effects={}), "manifest.effects.retry is missing"),
        (_body(signature={"inputs": []}), "signature inputs: expected a non-empty list"),
        (_body(evaluation=[{"metric": "a", "value": "0.9"}]), r"evaluation\[0\]\.value is '0.9'; expected a number"),
        (_body(evaluation=[{"metric": "a", "value": 1, "interval": [2, 1]}]), "expected \\[low, high\\]"),
        (_body(lineage={"cod": 1}), "unknown key 'cod'; did you mean 'code'"),
        (_body(files=[{"name": "model.onnx", "sha256": "A" * 64, "size_bytes": 1}]), "64 lower-case hexadecimal"),
        (_body(files=[{"name": "model.onnx", "sha256": "a" * 64, "size_bytes": True}]), "size_bytes is True"),
        ([], "manifest is \\[\\]; expected an object"),
    ],
)
def test_a_body_that_is_no_manifest_is_refused_by_its_field(body: Any, told: str) -> None:
    """Unknown keys, wrong types and values: the message names the place, what came and what was expected."""
    with pytest.raises(RegistryError, match=told):
        Manifest.from_json(body)


@pytest.mark.parametrize("change", [{"device": "gpu"}, {"placement": "moon"}, {"threads": 0}, {"max_rows": -1}])
def test_a_runtime_plan_out_of_range_is_refused(change: dict[str, Any]) -> None:
    """Device, placement and counts are checked wherever the plan comes from."""
    with pytest.raises(RegistryError, match=f"runtime.{next(iter(change))}"):
        RuntimePlan(**change)


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "C:x", "a\0b", "a\nb", " a", "a /b", "x" * 600],
)
def test_a_file_name_that_leaves_its_version_is_refused(name: str) -> None:
    """Relative, forward slashes, no dots that climb, no control characters."""
    with pytest.raises(RegistryError, match="file name"):
        replace(_plain(), entry=name, files=(FileEntry(name, "a" * 64, 1),))


def test_bytes_edited_by_hand_are_no_manifest() -> None:
    """Indentation, a key that is ignored, a missing default: what registration does not write is refused."""
    data = _plain().canonical()
    with pytest.raises(RegistryError, match="not in canonical form"):
        Manifest.from_bytes(data.replace(b'"schema":1', b'"schema": 1'))
    with pytest.raises(RegistryError, match="was edited"):
        Manifest.from_bytes(data.replace(b'"name":"x","shape"', b'"name":"x","note":"","shape"'))
    with pytest.raises(RegistryError, match="a JSON list"):
        Manifest.from_bytes(b"[]")


def test_a_newer_schema_names_the_program_to_use() -> None:
    """An older program never guesses."""
    with pytest.raises(RegistryError, match=r"schema 2; this program reads up to 1. A newer Turnout wrote it"):
        Manifest.from_bytes(canonical.dumps(_body(schema=2)))


def test_an_older_manifest_is_migrated_and_keeps_the_digest_of_its_bytes() -> None:
    """The view is new, the name is that of what is stored."""

    def with_effects(body: Mapping[str, Any]) -> Mapping[str, Any]:
        rest = {key: value for key, value in body.items() if key != "retry"}
        return rest | {"effects": {"retry": body["retry"]}}

    old = _body(schema=0, retry=False)
    del old["effects"]
    data = canonical.dumps(old)
    migrated = Manifest.from_bytes(data, migrations={0: with_effects})
    assert migrated == replace(_plain(), effects=Effects(retry=False))
    assert migrated.digest == canonical.digest_of(data)
    assert migrated.digest != replace(_plain(), effects=Effects(retry=False)).digest
    with pytest.raises(RegistryError, match="nothing leads from 0 to 1"):
        Manifest.from_bytes(data)


def test_what_is_not_used_leaves_no_trace_in_the_digest() -> None:
    """Versions registered before there were such options keep theirs."""
    assert not {"precision", "compile", "cuda_graphs"} & RuntimePlan().to_json().keys()
    assert RuntimePlan(precision="fp32") == RuntimePlan()
    chosen = RuntimePlan(precision="bf16", compile=True, cuda_graphs=True)
    assert RuntimePlan.from_json(chosen.to_json(), "runtime") == chosen


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"precision": "fp8"}, "runtime.precision is 'fp8'; expected one of fp32, fp16, bf16"),
        ({"device": "gpu"}, "runtime.device 'gpu' is unknown; expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_device_or_precision_that_is_none_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    """At registration, not at the first load."""
    with pytest.raises(RegistryError, match=told):
        RuntimePlan(**change)
