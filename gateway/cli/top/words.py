"""What ``turnout top`` writes on, and with: the room there is, marks, numbers that stay short."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

__all__ = ["ASCII", "GAP", "UNICODE", "Marks", "Paper", "rate_text", "seconds_text", "share_text"]


@dataclass(frozen=True, slots=True)
class Marks:
    """``more``: what stands for what was cut off."""

    good: str
    bad: str
    more: str
    arrows: str


GAP = "  "
UNICODE = Marks("✓", "✗", "…", "↑↓")
ASCII = Marks("+", "x", "~", "up/down")

_ROOMY = 140
_LAST_BUCKET_S = 10.0
"""Above it histograms tell no difference."""


@dataclass(frozen=True, slots=True)
class Paper:
    """``height`` None: as long as it takes."""

    width: int
    height: int | None
    marks: Marks

    @property
    def roomy(self) -> bool:
        """Marks are written out as words."""
        return self.width >= _ROOMY

    def cut(self, text: str, width: int | None = None) -> str:
        """At most as wide as this is, or ``width``. What the gateway names is single-width for the most part."""
        limit = max(0, self.width if width is None else width)
        return text if len(text) <= limit else (text[: max(0, limit - 1)] + self.marks.more)[:limit]

    def line(self, text: str, style: str = "") -> Text:
        return Text(self.cut(text), style, no_wrap=True)

    def bar(self, text: str, style: str) -> Text:
        """A line that is coloured from end to end."""
        return Text(f"{self.cut(text):<{self.width if self.height else 0}}", style, no_wrap=True)


def rate_text(rate: float | None) -> str:
    if rate is None:
        return "-"
    return "0" if rate == 0 else f"{rate:.1f}" if rate < 10 else f"{rate:,.0f}"


def share_text(share: float | None) -> str:
    if share is None:
        return "-"
    return "0" if share == 0 else "<0.1%" if share < 0.001 else f"{share:.1%}"


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= _LAST_BUCKET_S:
        return f">{_LAST_BUCKET_S:.0f} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"
