"""How far many columns together are from the reference: by their mean embedding, and by mean and covariance."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gateway.telemetry.drift.cells import Counts, Floats
from gateway.telemetry.drift.distributions import effect_bounds
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.sizes import Effect, plain, wave_effect
from runtimes.counting import BLOCK_SIGMA, COSINE_UNITS, Block

__all__ = ["WholeSize", "whole_sizes"]

_BOUND = 1.96


@dataclass(frozen=True, slots=True)
class WholeSize:
    """Of many columns together. ``mmd`` is the squared distance of the mean embeddings, beside what it is without drift
    at most; ``effect`` the root mean square of the waves' angles; ``mean_shift`` of the projected mean, in standard
    deviations (Mahalanobis); ``covariance`` the largest change of a standard deviation along any projected direction,
    as a factor."""

    block: str
    side: str
    rows: int
    effect: Effect
    mmd: float
    mmd_expected: float
    mean_shift: Effect
    covariance: float

    def to_json(self) -> dict[str, Any]:
        return {name: plain(value) for name, value in asdict(self).items()}


def whole_sizes(reference: Reference, window: Counts) -> list[WholeSize]:
    return [_whole_size(reference, window, index) for index in range(len(reference.plan.blocks))]


def _whole_size(reference: Reference, window: Counts, index: int) -> WholeSize:
    block = reference.plan.blocks[index]
    rows, known = int(window[0]), reference.rows
    if rows <= 0 or known <= 0:
        nothing = Effect(0.0, 0.0, math.inf)
        return WholeSize(block.name, block.side, 0, nothing, 0.0, math.inf, nothing, 1.0)
    noise = 1.0 / rows + 1.0 / known
    live_means, known_means = (_waves(block, counts) for counts in (window, reference.counts))
    shift, covariance = _gaussian(block, window, reference.counts)
    low, high = effect_bounds(
        np.array([shift * shift]), np.array([float(block.dimensions)]), np.array([1.0 / noise]), _BOUND
    )
    value = math.sqrt(max(0.0, shift * shift - block.dimensions * noise))
    return WholeSize(
        block=block.name,
        side=block.side,
        rows=rows,
        effect=wave_effect(reference, window, index),
        mmd=float(((live_means - known_means) ** 2).sum() / block.waves),
        mmd_expected=float((1.0 - known_means**2).sum() / block.waves) * noise,
        mean_shift=Effect(value, float(low[0]), float(high[0])),
        covariance=covariance,
    )


def _waves(block: Block, counts: Counts) -> Floats:
    found: Floats = counts[np.r_[block.cos, block.sin]] / (max(1, int(counts[0])) * COSINE_UNITS)
    return found


def _gaussian(block: Block, window: Counts, known: Counts) -> tuple[float, float]:
    """How far the projected mean has moved (Mahalanobis), and the largest factor of a standard deviation."""
    (mean, covariance), (was, root) = _projected(block, window), _projected(block, known)
    values, vectors = np.linalg.eigh(root)
    kept = values > max(float(values[-1]), 0.0) * 1e-6
    if not kept.any():
        return 0.0, 1.0
    whiten = vectors[:, kept] / np.sqrt(values[kept])
    moved = float(np.linalg.norm(whiten.T @ (mean - was)))
    spreads = np.sqrt(np.maximum(np.linalg.eigvalsh(whiten.T @ covariance @ whiten), 0.0))
    furthest = max((float(spread) for spread in spreads), key=lambda x: abs(math.log(max(x, 1e-6))))
    return moved, furthest


def _projected(block: Block, counts: Counts) -> tuple[Floats, Floats]:
    rows, size = max(1, int(counts[0])), block.dimensions
    mean = counts[block.total] / (rows * BLOCK_SIGMA)
    second = np.zeros((size, size))
    second[np.triu_indices(size)] = counts[block.outer] / (rows * BLOCK_SIGMA**2)
    second += np.triu(second, 1).T
    return mean, second - np.outer(mean, mean)
