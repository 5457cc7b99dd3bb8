"""From a few traced steps to the formula: for each moment of a step, bytes by part and by what they grow with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import transformers.masking_utils
import trl.kernels.chunked_logprob
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode

from tui_ft.modeling import varlen
from tui_ft.modeling.trace import build, kernels, quantized, step
from tui_ft.modeling.trace.patching import Patches
from tui_ft.modeling.trace.setup import Setup
from tui_ft.modeling.trace.tracker import CUDA_GRAIN, PARTS, SCALES, Sizes, Tracker

HEAD_TOKENS = trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE
"""Tokens whose logits trl makes together: up to here the head's memory grows with the batch."""
BASIS = SCALES[:5]
_RANK = 13
_CLOSE = 1e-4  # a moment that is the greatest by less than this is another's match

Moments = NDArray[np.float64]
"""Bytes: moment × part × scale."""


@dataclass(frozen=True)
class Case:
    """One kind of batch: with or without a mask, up to so many tokens."""

    padded: bool
    above: int = 0
    upto: int = 2**20


def fit(config: Any, setup: Setup) -> dict[str, Any]:
    """The forecast of `setup` as the planner reads it: regions × phases × parts × coefficients."""
    length = build.period(config, setup)
    return {
        "tier": "traced",
        "padded": [region for case in cases(config, padded=True) for region in _regions(config, setup, case, length)],
        "single": [region for case in cases(config, padded=False) for region in _regions(config, setup, case, length)],
    }


def cases(config: Any, *, padded: bool) -> list[Case]:
    """One row needs no mask, until it is longer than a sliding window."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None) or 0
    sliding = window >= 256 and (getattr(text, "use_sliding_window", True) or "sliding_attention" in (getattr(text, "layer_types", None) or ()))
    if padded or not sliding:
        return [Case(padded)]
    return [Case(padded, 0, window - 1), Case(padded, window - 1)]


def _regions(config: Any, setup: Setup, case: Case, period: int) -> Iterable[dict[str, Any]]:
    """The case's formula between each two sizes where kernels change their ways."""
    sizes = choose_sizes(config, case)
    moments = trace_all(config, setup, sizes, padded=case.padded, period=period)
    edges = {0, HEAD_TOKENS} | ({quantized.NF4_FUSED_TOKENS} if setup.quantization == "nf4" and setup.device == "cuda" else set())
    starts = [case.above, *sorted(edge for edge in edges if case.above < edge < case.upto)]
    for above, upto in zip(starts, [*starts[1:], case.upto], strict=True):
        resolved = {name: _resolved(found, sizes, above) for name, found in moments.items()}
        yield {"above": above, "phases": _phases(resolved, _questions(case, above, upto))}


def choose_sizes(config: Any, case: Case) -> Sizes:
    """Numbers that no dimension of the model equals: a length that is no multiple of 8, as real ones, and a divisor of its labels."""
    dimensions = {value for value in config.get_text_config().to_dict().values() if isinstance(value, int)}
    hidden, heads = (getattr(config.get_text_config(), key, 0) or 0 for key in ("hidden_size", "num_attention_heads"))
    dimensions |= {hidden // max(1, heads), 2 * hidden, 3 * hidden}
    rows = 2 if case.padded else 1
    first = max(892, case.above + 100) if case.upto > 892 else max(36, case.upto * 3 // 4 // 8 * 8 + 4)
    for length in range(first // 8 * 8 + 4, first + 4000, 8):
        for parts in range(3, 40):
            chunk = rows * (length - 1) // parts
            sizes = Sizes(rows, length, _RANK, chunk)
            if (length - 1) % parts == 0 and chunk > 50 and not sizes.clashes(dimensions) and chunk not in sizes.lengths:
                return sizes
    raise ValueError("no length could be told from the model's own dimensions")


def trace_all(config: Any, setup: Setup, sizes: Sizes, *, padded: bool, period: int, options: step.Options | None = None) -> dict[str, Moments]:
    """What a step of the whole model holds at each moment, put together from traces of a few layers."""
    layers = config.get_text_config().num_hidden_layers
    found = build.depths(layers, period, setup)
    factors = build.shares(layers, found, setup)
    traces = [trace(config, depth, setup, sizes, padded=padded, period=period, options=options) for depth in found]
    return {name: _combined([one[name] for one in traces], factors) for name in traces[0]}


def trace(
    config: Any, depth: build.Depth, setup: Setup, sizes: Sizes, *, padded: bool, period: int, options: step.Options | None = None
) -> dict[str, Moments]:
    """One step on fake tensors; the moments of each of its segments."""
    tracker = Tracker(sizes, grain=CUDA_GRAIN if setup.device == "cuda" else 1)
    follow(tracker, config, depth, setup, padded=padded, period=period, options=options)
    shape = (-1, len(PARTS), len(SCALES))
    return {name: np.array(found, np.float64).reshape(shape) for name, found in tracker.segments.items() if found}


def follow(
    tracker: Tracker, config: Any, depth: build.Depth, setup: Setup, *, padded: bool, period: int, options: step.Options | None = None
) -> None:
    """Run one step on fake tensors under the eyes of `tracker`."""
    sizes = tracker.sizes
    with Patches() as patches, FakeTensorMode(allow_non_fake_inputs=True):
        # it looks at values, and takes every fake batch for a packed one, which would need a mask
        patches.set(transformers.masking_utils, "find_packed_sequence_indices", lambda *_: None)
        patches.set(varlen, "_ends", lambda _: (None, None))  # looks at values, too; without them a packed row costs as one long text
        if sizes.chunk:
            patches.set(trl.kernels.chunked_logprob, "TOKEN_CHUNK_SIZE", sizes.chunk)
        if setup.device == "cuda":
            kernels.use_cuda(patches, tracker)
        quantized.count_unpacking(patches, tracker, setup.device)
        model = build.build(config, depth, setup, sizes.rank, patches)
        with tracker:
            step.run(model, setup, tracker, rows=sizes.rows, length=sizes.length, padded=padded, period=period, options=options)


def _combined(found: list[Moments], factors: list[float]) -> Moments:
    """The same moments at several depths; where they differ in number (a list as long as the model), the greatest of each."""
    if len({len(moments) for moments in found}) > 1:
        found = [moments[[moments.sum((1, 2)).argmax()]] for moments in found]
    return np.sum([moments * factor for moments, factor in zip(found, factors, strict=True)], axis=0)


def _resolved(moments: Moments, sizes: Sizes, above: int) -> Moments:
    """Bytes become coefficients of BASIS, for batches of more than `above` tokens."""
    tokens = sizes.rows * sizes.length
    basis = moments[:, :, : len(BASIS)] / np.array([1, tokens, tokens * sizes.length, sizes.rank, sizes.rank * tokens])
    per_token = moments[:, :, SCALES.index("chunk")] / max(1, sizes.chunk)
    if above >= HEAD_TOKENS:
        basis[:, :, 0] += per_token * HEAD_TOKENS
    else:
        basis[:, :, 1] += per_token
    if above >= quantized.NF4_FUSED_TOKENS:
        basis[:, :, 0] += moments[:, :, SCALES.index("unpacked")]
    return basis


def _questions(case: Case, above: int, upto: int) -> NDArray[np.float64]:
    """Batches of the region, as values of BASIS."""
    asked = []
    for length in (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768):
        for rows in (1, 2, 4, 8, 16, 32, 64, 128) if case.padded else (1,):
            tokens = rows * length
            if above < tokens <= upto:
                asked += [(1, tokens, tokens * length, rank, rank * tokens) for rank in (4, 16, 64, 256)]
    middle = (above + min(upto, 4 * above + 1024)) // 2
    return np.array(asked or [(1, middle, middle**2, 16, 16 * middle)], np.float64)


def _phases(moments: dict[str, Moments], questions: NDArray[np.float64]) -> dict[str, dict[str, list[float]]]:
    """The moments that are the greatest for some batch, with and without gradients of an earlier micro-batch, and one of each other phase."""
    names = [name for name, found in moments.items() for _ in found]
    everything = np.concatenate(list(moments.values()))
    bytes_of = np.einsum("mpb,qb->mpq", everything, questions)
    total = bytes_of.sum(1)
    without_gradients = total - bytes_of[:, PARTS.index("gradients")]
    kept: list[int] = []
    for values in (total, without_gradients):
        kept += envelope(values, kept)
    for phase in dict.fromkeys(map(words, names)):
        own = [index for index, name in enumerate(names) if words(name) == phase]
        if not any(index in kept for index in own):
            kept.append(own[int(total[own].sum(1).argmax())])
    phases: dict[str, dict[str, list[float]]] = {}
    for index in sorted(kept):
        name = words(names[index])
        count = sum(known.partition(" #")[0] == name for known in phases)
        parts = {part: [round(float(value), 4) for value in everything[index, number]] for number, part in enumerate(PARTS)}
        phases[name if not count else f"{name} #{count + 1}"] = {part: values for part, values in parts.items() if any(values)}
    return phases


def envelope(values: NDArray[np.float64], kept: list[int]) -> list[int]:
    """As few rows as give each column its maximum."""
    best = values.max(0)
    covered = values[kept].max(0) >= best * (1 - _CLOSE) if kept else np.zeros(len(best), bool)
    more: list[int] = []
    while not covered.all():
        reach = (values >= best * (1 - _CLOSE)) & ~covered
        index = int(reach.sum(1).argmax())
        more.append(index)
        covered |= reach[index]
    return more


def words(segment: str) -> str:
    """What a person calls it: forward and evaluation are one phase each."""
    return re.sub(r"^(forward|evaluation): .*", r"\1", segment)
