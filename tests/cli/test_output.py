"""What is printed: for people, for machines, into pipes."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import orjson
import pytest
from rich.console import Console
from rich.text import Text

from gateway.cli.entry import main
from gateway.cli.failures import CommandFailed, describe
from gateway.cli.output import Output, bytes_text
from gateway.errors import FieldProblem, InvalidInput


def test_a_table_in_a_pipe_is_plain_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """No colours, no boxes, no ellipsis: ``turnout models | grep`` sees all of it."""
    digest = "sha256:" + "a" * 64
    Output.standard().table(("MODEL", "DIGEST"), [("digits", digest), ("b" * 120, None)], empty="none")
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed] == [["MODEL", "DIGEST"], ["digits", digest], ["b" * 120, "-"]]


def test_what_a_name_contains_is_never_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """``[red]`` in a tag is text."""
    Output.standard().table(("TAG",), [("[red]x[/red] :smile:",)], empty="none")
    Output.standard().line("[bold]y")
    assert "[red]x[/red] :smile:" in (out := capsys.readouterr().out)
    assert "[bold]y" in out


def test_what_a_stream_has_no_character_for_is_a_question_mark() -> None:
    """A locale without Unicode costs marks, not the command."""
    written = io.BytesIO()
    with redirect_stdout(stream := io.TextIOWrapper(written, encoding="ascii")):
        Output.standard().line("la dérive ✗")
        stream.flush()
        assert written.getvalue() == b"la d?rive ?\n"


def test_no_character_of_a_strangers_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, notes, commands, addresses come with versions: an escape sequence in one is shown, not obeyed."""
    hostile = "a\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202eb"
    output = Output.standard()
    output.table(("TAG",), [(hostile,)], empty="none")
    output.fields([("notes", hostile)])
    output.line(Text(hostile, style="red"))
    output.note(hostile)
    captured = capsys.readouterr()
    for line in (*captured.out.splitlines()[1:], captured.err.strip()):
        assert "a\\x1b]0;owned" in line
        assert line.isprintable()
    with pytest.raises(SystemExit):
        main(["lineage", "\x1b[2Jx/1"])
    assert "\x1b" not in capsys.readouterr().err


def test_an_empty_table_says_why_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays empty, so that a script counts no line."""
    Output.standard().table(("MODEL",), [], empty="No models yet.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err.strip()) == ("", "No models yet.")


def test_json_is_one_document_with_a_newline(capsys: pytest.CaptureFixture[str]) -> None:
    """What a machine reads is JSON and nothing else."""
    Output.standard(machine=True).json({"b": 1, "a": [None, 2.5]})
    printed = capsys.readouterr().out
    assert printed.endswith("}\n")
    assert orjson.loads(printed) == {"b": 1, "a": [None, 2.5]}


def test_progress_is_silent_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file gets no control characters."""
    with Output.standard().steps() as steps:
        steps("hashing", 100)(60)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_shows_a_bar_on_a_terminal() -> None:
    """Label and bytes done, on standard error's console."""
    screen = io.StringIO()
    output = Output(False, Console(file=io.StringIO()), Console(file=screen, force_terminal=True, width=80))
    with output.steps() as steps:
        steps("hashing", 1000)(1000)
    assert "hashing" in screen.getvalue()


def test_an_error_is_one_line_and_one_more_for_each_field() -> None:
    """What happened first, then each field: expected and got."""
    problem = FieldProblem("split[0].weight", "a whole number", "'5'")
    assert describe(InvalidInput("the spec does not fit", problem)).splitlines() == [
        "the spec does not fit",
        "  split[0].weight: expected a whole number, got '5'",
    ]
    assert describe(CommandFailed("no")) == "no"


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**4, "5.0 TiB")])
def test_sizes_read_in_binary_units(size: int, text: str) -> None:
    """Three digits are enough for people."""
    assert bytes_text(size) == text
