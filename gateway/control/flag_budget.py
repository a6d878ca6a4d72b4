"""How long flag evaluations take, and when a provider is too slow for the request path. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EvaluationBudget"]

STRIKES = 5.0
_FORGIVEN = 0.01
_HOPELESS = 20.0


@dataclass(slots=True)
class EvaluationBudget:
    """An evaluation over ``budget_s`` is a strike, one twenty times over is all of them; a good one takes a hundredth
    of a strike back, so that a pause of the machine now and then counts for nothing and a share of one in a hundred
    does. ``strikes`` is written by ``took`` only.

    What the thread waited for a processor meanwhile is no fault of the provider's. To ask for that costs a system call,
    so evaluations are watched ``closely`` only as long as there are strikes: of the first slow one it is not known how
    much it waited, only how much at most.
    """

    budget_s: float
    strikes: float = 0.0

    @property
    def closely(self) -> bool:
        return self.strikes > 0.0

    def took(self, seconds: float, *, waited_s: float = 0.0, at_most: bool = False) -> bool:
        """Whether the provider is to be taken out of the request path. ``waited_s`` of the ``seconds``, or
        ``at_most``."""
        own = seconds - waited_s
        if own > self.budget_s or (at_most and seconds > self.budget_s):
            self.strikes += STRIKES if own > _HOPELESS * self.budget_s else 1.0
        else:
            self.strikes = max(0.0, self.strikes - _FORGIVEN)
        return self.strikes >= STRIKES
