"""What the gateway asks the recorder's part, in a module that costs the gateway nothing to import."""

from __future__ import annotations

__all__ = ["ASKS", "ASK_CLOCK", "ASK_JOIN", "ASK_OUTCOMES", "ASK_REPORT", "ASK_SCORES", "ASK_SHARE"]

ASK_JOIN = "truth-join"
"""``labels``: [decision id, label, sender] each; ``routes``: those that the sender may label (None: all). Answers
``verdicts``, [outcome, expected, got] each, durable."""
ASK_OUTCOMES = "truth-outcomes"
"""``delivered``: the number of the last that arrived. Answers ``outcomes``: what is owed to the rollouts' evidence."""
ASK_REPORT = "truth-report"
"""``route``, ``days``, ``look`` (None at first). Answers the report of ``GET /admin/truth/{route}``; or, as long as
there is more to read, the ``look`` to ask with again, at once. Raises NotFound."""
ASK_SCORES = "truth-scores"
"""``seen``: the number of changes at the last look. Answers what the metrics show, or that nothing has changed, or that
it is ``going_on``: a slice of the work is done by each question."""

ASK_SHARE = "truth-share"
"""What other replicas said: ``labels`` ([id, label, routes, sender]) and ``settled`` (ids), and the ``place`` after it
(None: nothing was heard); ``told``: two lists of ids that they have been told of. Answers the ``place`` to listen from,
and what to tell: ``labels``, ``settled``."""

ASK_CLOCK = "truth-clock"
"""Answers ``trouble``: why nothing ends by its age just now, in words; and ``unkept``: why neither answers nor labels
are kept. Empty where all is well."""

ASKS = frozenset({ASK_CLOCK, ASK_JOIN, ASK_OUTCOMES, ASK_REPORT, ASK_SCORES, ASK_SHARE})
