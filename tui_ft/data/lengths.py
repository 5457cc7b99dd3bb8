"""How long the samples are, in tokens, and what the maximum costs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field


class Lengths(BaseModel):
    """Tokens of each rendered conversation before anything is cut."""

    mean: float = 0.0
    p50: int = 0
    p95: int = 0
    max: int = 0
    truncated: int = Field(0, description="Samples cut to prompt.max_length.")
    answer_lost: int = Field(0, description="Of these, samples that lost every learned token and were dropped.")


def summarize(lengths: Sequence[int], truncated: int = 0, answer_lost: int = 0) -> Lengths:
    if not lengths:
        return Lengths(truncated=truncated, answer_lost=answer_lost)
    ordered = sorted(lengths)

    def quantile(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    mean = round(sum(ordered) / len(ordered), 1)
    return Lengths(mean=mean, p50=quantile(0.5), p95=quantile(0.95), max=ordered[-1], truncated=truncated, answer_lost=answer_lost)
