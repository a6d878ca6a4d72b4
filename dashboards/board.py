"""What all boards have alike: sections, variables, marks of what changed, and links to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from dashboards.panels import PROMETHEUS, Panel

__all__ = ["RUNBOOKS", "TAG", "Mark", "Section", "Variable", "board"]

TAG = "turnout"

RUNBOOKS = "/public/turnout/operations.md"
"""Where compose.yaml has Grafana serve docs/operations.md; put the address of your own copy here."""


@dataclass(frozen=True, slots=True)
class Section:
    """One question of an operator, and the panels that answer it."""

    question: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """The values of ``label`` among the series of ``metric``. ``several``: any number of them may be chosen, or all."""

    name: str
    metric: str
    label: str
    several: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across all panels of the board wherever ``expr`` has a value. ``title`` and ``text`` name its labels."""

    name: str
    expr: str
    color: str
    title: str
    text: str = ""


def board(
    uid: str,
    title: str,
    *,
    says: str,
    variables: Sequence[Variable],
    sections: Sequence[Section],
    marks: Sequence[Mark],
    span: str = "now-1h",
) -> model.Dashboard:
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags([TAG])
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time(span, "now")
        .refresh("30s")
        .readonly()
        .link(_siblings())
        .link(dashboard.DashboardLink("Runbooks").type(model.DashboardLinkType.LINK).url(RUNBOOKS).icon("doc"))
    )
    for variable in variables:
        built.with_variable(_variable(variable))
    for mark in marks:
        built.annotation(_Annotation(mark))
    for section in sections:
        built.with_row(dashboard.Row(section.question))
        for panel in section.panels:
            built.with_panel(panel)
    return _numbered(built.build())


def _siblings() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Turnout").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(True).keep_time(True)


def _variable(variable: Variable) -> dashboard.QueryVariable:
    query = f"label_values({variable.metric}, {variable.label})"
    built = (
        dashboard.QueryVariable(variable.name)
        .label(variable.name.replace("_", " ").capitalize())
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": variable.name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
    )
    return built.multi(True).include_all(True).all_value(".*") if variable.several else built


def _numbered(built: model.Dashboard) -> model.Dashboard:
    """Grafana finds panels by their ids, and gives a provisioned board none."""
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return built


class _Annotation(dashboard.AnnotationQuery):
    """The kit has no words for what Prometheus annotations show: the texts go beside what it writes."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self._mark = mark

    def build(self) -> model.AnnotationQuery:
        return _Worded(self._mark)


class _Worded(model.AnnotationQuery):
    def __init__(self, mark: Mark) -> None:
        super().__init__(name=mark.name, datasource=PROMETHEUS, icon_color=mark.color, expr=mark.expr)
        self._mark = mark

    def to_json(self) -> dict[str, object]:
        worded = {"titleFormat": self._mark.title, "textFormat": self._mark.text, "tagKeys": "route", "step": "60s"}
        return {**super().to_json(), **worded}
