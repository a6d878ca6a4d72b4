"""Whether the split gives each arm the keys that it should: a test that may be looked at after every key.

After Lindon and Malek, "Anytime-valid inference for multinomial count data" (2022): a Beta mixture of likelihoods of
the candidate's share over the likelihood of the share that the key space says. It is a martingale where each new key
falls on the arms by those shares, so it reaches 1/level with at most that chance. What is counted are keys *with an
outcome*: a split is as broken when the answers of one arm go missing as when its keys do.
"""

from __future__ import annotations

from math import inf, lgamma, log

__all__ = ["log_ratio_e"]

PRIOR_KEYS = 100.0
"""How far off a broken split is expected to be: as far as a sample of so many keys may be."""


def log_ratio_e(candidate: int, baseline: int, share: float) -> float:
    """The logarithm of the e-value against "the candidate's share is ``share``"."""
    if share <= 0.0 or share >= 1.0:
        missed = candidate if share <= 0.0 else baseline
        return inf if missed else 0.0
    a, b = PRIOR_KEYS * share, PRIOR_KEYS * (1.0 - share)
    mixed = lgamma(candidate + a) + lgamma(baseline + b) - lgamma(candidate + baseline + a + b)
    mixed += lgamma(a + b) - lgamma(a) - lgamma(b)
    return mixed - candidate * log(share) - baseline * log(1.0 - share)
