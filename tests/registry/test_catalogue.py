"""The catalogue: numbers, names and tags that point at digests. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Conflict, NotFound, RegistryError, UnknownVersion
from gateway.registry.catalogue import KnownModel, ModelDocument
from gateway.registry.names import split_reference


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


def _with_versions(count: int) -> ModelDocument:
    document = ModelDocument("digits")
    for number in range(1, count + 1):
        document, given_number = document.add_version(_digest(number * 16**60), created_at=1000.0 + number)
        assert given_number == number
    return document


@pytest.mark.parametrize("seed", range(20))
def test_a_document_read_beside_an_earlier_one_is_what_it_is_read_alone(seed: int) -> None:
    """Whatever has changed since: versions that have not are the very same, and nothing of the earlier one stays."""
    chance = random.Random(seed)
    document = _with_versions(8)
    known = KnownModel(document.to_json(), document)
    for _ in range(chance.randrange(1, 4)):
        number = chance.randint(1, 8)
        document = chance.choice(
            [
                lambda made, at: made.with_tags(at, {"team": "b"}),
                lambda made, at: made.archive(at),
                lambda made, at: made.with_gate(at, {"passed": True}),
                lambda made, at: made.with_notes(f"other {at}"),
                lambda made, at: made.add_version(_digest(at), created_at=5.0)[0],
                lambda made, at: replace(made, versions=made.versions[:at], next_number=9),
            ]
        )(document, min(number, len(document.versions)))
    body = json.loads(json.dumps(document.to_json()))
    read = ModelDocument.from_json(body, known=known)
    assert read == ModelDocument.from_json(body) == document
    pairs = list(zip(read.versions, known.document.versions, strict=False))
    assert all(one is other for one, other in pairs if one == other)
    older = KnownModel({**known.body, "schema": 0}, known.document)
    assert ModelDocument.from_json(body, known=older) == document
    body["versions"][0]["digest"] = "none"
    with pytest.raises(RegistryError, match=r"digest"):
        ModelDocument.from_json(body, known=known)


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), max_size=30))
def test_numbers_rise_and_the_same_digest_keeps_its_number(digests: list[int]) -> None:
    """Whatever is added, in whatever order and however often."""
    document, seen = ModelDocument("digits"), {}
    for digest in digests:
        document, number = document.add_version(_digest(digest), created_at=1.0)
        assert seen.setdefault(digest, number) == number
    assert [entry.number for entry in document.versions] == list(range(1, len(seen) + 1))
    assert ModelDocument.from_json(document.to_json()) == document


def test_adding_the_same_digest_again_changes_nothing() -> None:
    """The very same document comes back."""
    document = _with_versions(2)
    assert document.add_version(document.versions[0].digest, created_at=9.0, tags={"a": "b"}) == (document, 1)


def test_a_number_is_never_used_again() -> None:
    """Also when the last version has been taken out of the document."""
    document = _with_versions(2)
    body = document.to_json()
    body["versions"] = body["versions"][:1]
    _, number = ModelDocument.from_json(body).add_version(_digest(7), created_at=1.0)
    assert number == 3


def test_a_version_is_found_by_number_alias_and_digest() -> None:
    """``3``, ``@champion``, ``@sha256:…`` whole or as a prefix."""
    document = _with_versions(3).set_alias("champion", 2)
    assert document.resolve("3").number == 3
    assert document.resolve("@champion").number == 2
    assert document.resolve("@" + document.versions[0].digest).number == 1
    assert document.resolve("@sha256:0001").number == 1
    assert document.resolve("sha256:0003").number == 3


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("4", "has no version 4; it has 1, 2, 3"),
        ("@staging", "no alias 'staging'; its aliases: champion"),
        ("@sha256:ffff", "no version with digest sha256:ffff"),
        ("@sha256:0", "4 to 64"),
        ("champion", "names no version; expected a number, @alias or @sha256"),
        ("0", "names no version"),
        ("٣", "names no version"),
        ("", "names no version"),
    ],
)
def test_a_selector_that_fits_nothing_says_what_there_is(selector: str, told: str) -> None:
    """UnknownVersion, with the way out in the message."""
    with pytest.raises(UnknownVersion, match=told):
        _with_versions(3).set_alias("champion", 1).resolve(selector)


def test_a_digest_prefix_that_fits_several_versions_is_a_conflict() -> None:
    """The message lists them."""
    document, _ = ModelDocument("digits").add_version(_digest(1), created_at=1.0)
    document, _ = document.add_version(_digest(2), created_at=1.0)
    with pytest.raises(Conflict, match=r"fits several versions of digits: 1 \(sha256:0+1\), 2"):
        document.resolve("@sha256:0000")


def test_an_alias_moves_and_goes() -> None:
    """Only to a version that exists."""
    document = _with_versions(2).set_alias("champion", 1).set_alias("champion", 2)
    assert document.aliases == {"champion": 2}
    assert document.aliases_of(2) == ("champion",)
    assert document.drop_alias("champion").aliases == {}
    with pytest.raises(UnknownVersion, match="no version 9"):
        document.set_alias("champion", 9)
    with pytest.raises(NotFound, match="no alias 'beta'"):
        document.drop_alias("beta")
    with pytest.raises(RegistryError, match="the first a letter"):
        document.set_alias("3", 1)


def test_an_archived_version_is_kept_and_takes_no_alias() -> None:
    """It resolves, but an alias in the way must be moved first."""
    document = _with_versions(2).set_alias("champion", 1)
    with pytest.raises(Conflict, match="digits/1 is @champion; move or drop the alias"):
        document.archive(1)
    archived = document.archive(2)
    assert archived.resolve("2").archived
    assert archived.archive(2) == archived
    with pytest.raises(Conflict, match="digits/2 is archived"):
        archived.set_alias("champion", 2)


def test_tags_notes_and_gates_stand_beside_the_version() -> None:
    """They change the document and never the digest."""
    document = _with_versions(1).with_tags(1, {"team": "vision"}).with_tags(1, {"stage": "beta"})
    document = document.with_notes("all of them").with_notes("the first", 1)
    document = document.with_gate(1, {"gate": "golden", "ok": True})
    entry = document.version(1)
    assert entry.tags == {"team": "vision", "stage": "beta"}
    assert (document.notes, entry.notes) == ("all of them", "the first")
    assert entry.gates == ({"gate": "golden", "ok": True},)
    assert ModelDocument.from_json(document.to_json()) == document
    with pytest.raises(RegistryError, match="tag 'a b'"):
        document.with_tags(1, {"a b": "c"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"versons": []}, "unknown key 'versons'; did you mean 'versions'"),
        ({"name": "a b"}, "model name 'a b'"),
        ({"aliases": {"champion": 9}}, "alias champion points at 9"),
        ({"aliases": {"champion": "1"}}, "model.aliases.champion is '1'"),
        ({"next_number": 1}, "not in rising order"),
        ({"schema": 2}, "schema 2; this program reads up to 1"),
        ({"schema": None}, "schema is None"),
        ({"versions": [1]}, r"model.versions\[0\] is 1; expected an object"),
    ],
)
def test_a_document_that_does_not_hold_together_is_refused(change: dict[str, Any], told: str) -> None:
    """What the store gives back is checked as strictly as what comes from outside."""
    with pytest.raises(RegistryError, match=told):
        ModelDocument.from_json(_with_versions(2).to_json() | change)


def test_an_older_document_is_migrated_when_it_is_read() -> None:
    """Written back, it has the schema of today."""

    def number_them(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**body, "next_number": len(body["versions"]) + 1}

    old = _with_versions(2).to_json() | {"schema": 0}
    del old["next_number"]
    assert ModelDocument.from_json(old, migrations={0: number_them}) == _with_versions(2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("digits/3", ("digits", "3")),
        ("digits@champion", ("digits", "@champion")),
        ("digits@sha256:ab12", ("digits", "@sha256:ab12")),
    ],
)
def test_a_written_reference_splits_into_model_and_selector(text: str, parts: tuple[str, str]) -> None:
    """As the command line writes them."""
    assert split_reference(text) == parts


def test_a_reference_without_a_version_is_refused() -> None:
    """A bare model names no version."""
    with pytest.raises(RegistryError, match="MODEL/3, MODEL@alias or MODEL@sha256"):
        split_reference("digits")


def test_profiles_made_of_live_rows_stand_beside_their_version() -> None:
    """Once each; one of them may be chosen and given up again; a document without any is written as ever."""
    document = _with_versions(2)
    plain = document.to_json()
    assert "profiles" not in plain["versions"][0]
    assert "profile" not in plain["versions"][0]
    record = {"digest": _digest(7), "size_bytes": 10, "route": "digits", "rows": 100, "captured_at": 5.0}
    added = document.with_profile(1, record)
    assert added.with_profile(1, record) == added
    with pytest.raises(NotFound, match="no captured profile"):
        added.use_profile(2, _digest(7))
    chosen = added.use_profile(1, _digest(7))
    assert ModelDocument.from_json(chosen.to_json()) == chosen
    assert (chosen.version(1).profile, chosen.version(1).digest) == (_digest(7), document.version(1).digest)
    assert chosen.use_profile(1, None) == added
