"""The kinds of panel that the boards are made of: a number, lines over time, a heat map, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

__all__ = [
    "BAD",
    "GOOD",
    "PROMETHEUS",
    "WARN",
    "Panel",
    "Query",
    "Steps",
    "alarms",
    "bars",
    "heat",
    "lines",
    "number",
    "phases",
    "states",
]

PROMETHEUS = model.DataSourceRef(type_val="prometheus", uid="turnout-prometheus")

GOOD, WARN, BAD = "green", "orange", "red"

Panel: TypeAlias = stat.Panel | timeseries.Panel | heatmap.Panel | table.Panel | bargauge.Panel | statetimeline.Panel
Steps: TypeAlias = Sequence[tuple[float, str]]
"""Values from which on a colour holds, ascending; below the first it is green."""


@dataclass(frozen=True, slots=True)
class Query:
    """``legend`` names a series by its labels, as in ``{{version}}``."""

    expr: str
    legend: str = ""
    exemplar: bool = False


def number(
    title: str, expr: str, *, says: str, unit: str, steps: Steps = (), decimals: int | None = None, none: str = "none"
) -> stat.Panel:
    """One value, now, coloured by ``steps``; ``none`` is shown where there is no series."""
    panel = (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .no_value(none)
        .thresholds(_thresholds(steps))
        .color_mode(common_model.BigValueColorMode.VALUE)
        .graph_mode(common_model.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
        .span(4)
        .with_target(prometheus.Dataquery().expr(expr).range().ref_id("A"))
    )
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str,
    *queries: Query,
    says: str,
    unit: str,
    steps: Steps = (),
    stacked: bool = False,
    held: bool = False,
    span: int = 8,
    most: float | None = None,
) -> timeseries.Panel:
    """``held``: values that stand until they change, drawn as steps. ``most``: the top of the scale."""
    style = common_model.LineInterpolation
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .height(8)
        .span(span)
        .line_width(1)
        .fill_opacity(35 if stacked else 5)
        .show_points(common_model.VisibilityMode.NEVER)
        .line_interpolation(style.STEP_AFTER if held else style.LINEAR)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
        .targets([_target(query, place) for place, query in enumerate(queries)])
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    if steps:
        dashed = common_model.GraphThresholdsStyleMode.DASHED
        panel.thresholds(_thresholds(steps)).thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    return panel if most is None else panel.max(most)


def heat(title: str, histogram: str, *, says: str, unit: str, span: int = 8) -> heatmap.Panel:
    """A histogram's buckets over time, with the exemplars of each."""
    query = prometheus.Dataquery().expr(histogram).range().ref_id("A").legend_format("{{le}}").exemplar(True)
    return (
        heatmap.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .height(8)
        .span(span)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .with_target(query.format(PromQueryFormat.HEATMAP))
    )


def bars(title: str, query: Query, *, says: str, unit: str, steps: Steps = (), span: int = 8) -> bargauge.Panel:
    """The latest value of each series, as bars one under the other."""
    return (
        bargauge.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .no_value("none")
        .thresholds(_thresholds(steps))
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .display_mode(common_model.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(8)
        .span(span)
        .with_target(_target(query, 0).instant())
    )


def phases(title: str, query: Query, *, says: str, span: int = 8) -> statetimeline.Panel:
    """Bars over time: one a series, while it has a value."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit("bool_yes_no")
        .height(8)
        .span(span)
        .show_value(common_model.VisibilityMode.NEVER)
        .with_target(_target(query, 0))
    )


def states(
    title: str, expr: str, *, says: str, columns: Mapping[str, str], value: str = "", unit: str = "short", span: int = 8
) -> table.Panel:
    """One row a series: ``columns`` are its labels and what they are called; ``value`` the same for the number, which
    is left out without one."""
    hidden = {"Time": True, **({} if value else {"Value": True})}
    shown = {**columns, **({"Value": value} if value else {})}
    order = {label: place for place, label in enumerate(shown)}
    options = {"excludeByName": hidden, "renameByName": shown, "indexByName": order}
    return (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .no_value("none")
        .height(8)
        .span(span)
        .filterable(True)
        .with_target(prometheus.Dataquery().expr(expr).instant().ref_id("A").format(PromQueryFormat.TABLE))
        .with_transformation(model.DataTransformerConfig(id_val="organize", options=options))
    )


def alarms(title: str, selector: str, runbooks: str, *, says: str, span: int = 24) -> table.Panel:
    """The alerts that fire or are about to, each linked to its section of the runbook."""
    columns = {"alertname": "Alert", "alertstate": "State", "severity": "Severity", "route": "Route"}
    columns |= {"model": "Model", "version": "Version", "instance": "Replica"}
    labels = ", ".join(columns)
    panel = states(title, f"sum by ({labels}) (ALERTS{selector})", says=says, columns=columns, span=span)
    anchor = f"{runbooks}#${{__data.fields.Alert}}"
    link = dashboard.DashboardLink("What to do").url(anchor).target_blank(True)
    return panel.no_value("nothing fires").data_links([link])


def _target(query: Query, place: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).range().ref_id(chr(ord("A") + place))
    target.legend_format(query.legend or "__auto")
    return target.exemplar(True) if query.exemplar else target


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    found = [model.Threshold(value=None, color=GOOD), *(model.Threshold(value=at, color=color) for at, color in steps)]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(common_model.LegendDisplayMode.TABLE)
        .placement(common_model.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
        .show_legend(True)
    )
