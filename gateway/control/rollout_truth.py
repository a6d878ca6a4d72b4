"""Whether a route's truth feeds the streams that a rollout's plan judges by: one that it cannot would be waited for
without end."""

from __future__ import annotations

from gateway.control.rollout_plan import PlanSpec
from gateway.control.route_spec import RouteSpec
from gateway.errors import Conflict
from gateway.messages import Signature
from gateway.routing.truth import REGRESSION

__all__ = ["check_scores", "check_truth"]

_OF_SCORES = frozenset({"FP16", "BF16", "FP32", "FP64"})


def check_truth(spec: RouteSpec, plan: PlanSpec) -> None:
    """Raises Conflict."""
    truth = None if spec.truth is None else spec.truth.compiled()
    if "label" in plan.required and (truth is None or not truth.tells_wrong):
        why = "has no truth" if truth is None else f"has a truth of {truth.task}, by which no answer is wrong"
        more = " with wrong_above" if truth is not None and truth.task == REGRESSION else ""
        raise Conflict(f"needs: label is asked for, and the route {why}; write 'truth'{more} into its spec first")
    if plan.score is not None and (truth is None or plan.score.of != truth.scored):
        has = "has no truth" if truth is None else f"has a truth of {truth.task}, which gives {truth.scored}"
        raise Conflict(f"score: the plan judges by {plan.score.of}, and the route {has}; change one of the two")


def check_scores(spec: RouteSpec, plan: PlanSpec, version: int, signature: Signature) -> None:
    """Whether the answers of ``version`` have the scores that the plan judges by. Raises Conflict."""
    if plan.score is None or plan.score.of != "brier" or spec.truth is None:
        return
    field = "output" if spec.truth.score is None else "score"
    name = getattr(spec.truth, field)
    datatypes = {output.name: output.datatype for output in signature.outputs}
    if datatypes.get(name) in _OF_SCORES:
        return
    got = f"it is {datatypes[name]}, which holds classes" if name in datatypes else f"it has {', '.join(datatypes)}"
    raise Conflict(
        f"score: the plan judges by brier, which takes scores, and version {version} has none in {name!r} "
        f"(truth.{field}): {got}; name an output of scores as truth.score in the route's spec, or judge by needs: label"
    )
