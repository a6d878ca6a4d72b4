"""Route documents in YAML: every form that is taken, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.failures import CommandFailed
from gateway.cli.route_files import read_route_file

SPEC = {"model": "digits", "split": [{"version": 1, "weight": 1}]}
INLINE = "route: digits\nmodel: digits\nsplit: [{version: 1, weight: 1}]\n"
NESTED = "route: digits\nspec: {model: digits, split: [{version: 1, weight: 1}]}\n"
BARE = "model: digits\nsplit: [{version: 1, weight: 1}]\n"
NAMED = "digits: {model: digits, split: [{version: 1, weight: 1}]}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "route.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [INLINE, NESTED, NAMED, BARE], ids=["inline", "nested", "named", "bare"])
def test_the_forms_of_a_document_mean_the_same(tmp_path: Path, text: str) -> None:
    """A spec beside its name, under ``spec``, under its name, or alone: then the route is named like the model."""
    assert read_route_file(written(tmp_path, text)) == {"digits": SPEC}


def test_a_file_holds_several_documents_in_their_order(tmp_path: Path) -> None:
    """Empty documents between them count for nothing."""
    text = f"---\n{INLINE}---\n---\n{NAMED.replace('digits:', 'other:')}"
    assert list(read_route_file(written(tmp_path, text))) == ["digits", "other"]


def test_what_get_answered_can_be_applied_again(tmp_path: Path) -> None:
    """``status`` beside ``spec`` belongs to the system and is passed over."""
    assert read_route_file(written(tmp_path, NESTED + "status: {epoch: 4}\n")) == {"digits": SPEC}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no route in it"),
        ("a: [b", "not valid YAML"),
        (f"{INLINE}route: other\n", "the key 'route' stands in line 1 and again in line 4"),
        ("model: digits\nsplit: [{version: 1, weight: 5, weight: 95}]\n", "the key 'weight' stands in line 2"),
        ("- 1\n", "document 1: expected a mapping, got list"),
        ("split: []\n", "neither 'route: NAME' nor 'model: NAME'"),
        ("digits: 3\n", "route 'digits': expected its spec"),
        ("route: 3\nmodel: digits\n", "'route': expected the route's name, got 3"),
        ("route: digits\nspec: 3\n", "'spec' is int"),
        ("route: digits\nspec: {}\nsplit: []\n", "unknown key 'split' beside 'spec'"),
        (f"{INLINE}---\n{NAMED}", "document 2: route 'digits' is there twice"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """One line: which file, which document, what was expected."""
    with pytest.raises(CommandFailed) as failure:
        read_route_file(written(tmp_path, text))
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)


def test_on_and_off_are_names_of_variants_and_true_is_true(tmp_path: Path) -> None:
    """YAML 1.1 would make booleans of them, which are no keys."""
    found = read_route_file(written(tmp_path, "model: digits\nvariants: {on: 4, off: 3}\ncache: [true, False, yes]\n"))
    assert found == {"digits": {"model": "digits", "variants": {"on": 4, "off": 3}, "cache": [True, False, "yes"]}}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path as it was given."""
    with pytest.raises(CommandFailed, match=r"gone\.yaml: cannot be read: No such file"):
        read_route_file(tmp_path / "gone.yaml")
