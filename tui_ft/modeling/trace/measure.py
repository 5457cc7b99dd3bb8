"""The same steps with real tensors on the real device: what its allocator and kernels take beyond the trace, and how fast it multiplies."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import transformers.masking_utils

from tui_ft.errors import RequestError
from tui_ft.modeling.load import DTYPES
from tui_ft.modeling.trace import build, step
from tui_ft.modeling.trace.fit import Case, cases, choose_sizes, trace, words
from tui_ft.modeling.trace.patching import Patches
from tui_ft.modeling.trace.setup import Setup
from tui_ft.modeling.trace.tracker import Sizes, Tracker

TOKENS = (1024, 2048)
"""Of the measured batches: small enough for a few layers of a large model, large enough to be seen beside its weights."""


class CudaMeter:
    """The peaks of the segments of a step, as torch's allocator counts them."""

    def __init__(self) -> None:
        self.in_backward = False
        self.peaks: dict[str, int] = {}
        self._names: tuple[str, ...] = ()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def segment(self, *names: str, part: str = "activations") -> None:
        peak = torch.cuda.max_memory_allocated()
        for name in self._names:
            self.peaks[name] = max(self.peaks.get(name, 0), peak)
        self._names = names
        torch.cuda.reset_peak_memory_stats()

    def tag(self, tensor: torch.Tensor | None, part: str, like: Sequence[int] | None = None) -> None:
        """The allocator knows no purposes."""


class CountingMeter(Tracker):
    """The same without a GPU: real tensors on the CPU, counted one by one."""

    @property
    def peaks(self) -> dict[str, int]:
        return {name: max(map(sum, found)) for name, found in self.segments.items() if found}


def measured(config: Any, setup: Setup, forecast: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The traced forecast corrected by what real steps took, and the seconds of the largest of them.

    Beside the formula of each phase stands what the trace does not see: it is fitted as a straight line over tokens and counted as activations.

    Raises:
        RequestError: even a few layers do not fit, or there is no such device.
    """
    if setup.device == "cuda" and not torch.cuda.is_available():
        raise RequestError("there is no GPU to measure on", "The traced forecast needs none.")
    forecast = copy.deepcopy(forecast)
    period = build.period(config, setup)
    seconds = 0.0
    for kind in ("padded", "single"):
        for case in cases(config, padded=kind == "padded"):
            errors, seconds = _errors(config, setup, case, period)
            for region in forecast[kind]:
                if case.above <= region["above"] < case.upto:
                    _correct(region["phases"], errors)
    return {**forecast, "tier": "measured", "flops_per_second": flops_per_second(setup.device, setup.precision)}, seconds


def _errors(config: Any, setup: Setup, case: Case, period: int) -> tuple[dict[str, tuple[float, float]], float]:
    """For each phase the bytes beyond the trace, as (fixed, per token) of the whole model; and the seconds of the last step."""
    layers = config.get_text_config().num_hidden_layers
    found = build.depths(layers, period, setup)
    factors = build.shares(layers, found, setup)
    rows = 2 if case.padded else 1
    lengths = [min(tokens, case.upto) // rows - 4 for tokens in (TOKENS if case.upto > TOKENS[0] else (case.upto // 2, case.upto))]
    if case.above:
        lengths = [case.above + 124, case.above + 636]
    beyond: list[dict[str, float]] = []
    seconds = 0.0
    for length in lengths:
        sizes = Sizes(rows, length, choose_sizes(config, case).rank)
        total: dict[str, float] = {}
        for depth, factor in zip(found, factors, strict=True):
            traced = {name: float(moments.sum((1, 2)).max()) for name, moments in _traced(config, depth, setup, sizes, case, period).items()}
            real, seconds = _real(config, depth, setup, sizes, case, period)
            for name, peak in real.items():
                total[name] = total.get(name, 0.0) + factor * (peak - traced.get(name, peak))
        beyond.append(total)
    first, second = (rows * length for length in lengths)
    slopes = {name: (beyond[1].get(name, 0.0) - value) / (second - first) for name, value in beyond[0].items()}
    return {name: (beyond[0][name] - slope * first, slope) for name, slope in slopes.items()}, seconds


def _traced(config: Any, depth: build.Depth, setup: Setup, sizes: Sizes, case: Case, period: int) -> dict[str, Any]:
    return trace(config, depth, setup, sizes, padded=case.padded, period=period)


def _real(config: Any, depth: build.Depth, setup: Setup, sizes: Sizes, case: Case, period: int) -> tuple[dict[str, int], float]:
    meter = CudaMeter() if setup.device == "cuda" else CountingMeter(sizes)
    try:
        with Patches() as patches, torch.device(setup.device):
            if not case.padded:  # it would take some layers' tokens for packed ones where positions repeat
                patches.set(transformers.masking_utils, "find_packed_sequence_indices", lambda *_: None)
            model = build.build(config, depth, setup, sizes.rank, patches)
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    torch.nn.init.normal_(parameter, std=0.02)
            began = time.perf_counter()
            with meter if isinstance(meter, Tracker) else torch.enable_grad():
                step.run(model, setup, meter, rows=sizes.rows, length=sizes.length, padded=case.padded, period=period)
            return meter.peaks, time.perf_counter() - began
    except torch.OutOfMemoryError:
        raise RequestError(
            "a few layers of this model are too large for what is free on the GPU", "Free memory on it, or keep the traced forecast."
        ) from None
    finally:
        if setup.device == "cuda":
            torch.cuda.empty_cache()


def _correct(phases: dict[str, dict[str, list[float]]], errors: dict[str, tuple[float, float]]) -> None:
    for phase, parts in phases.items():
        found = [error for name, error in errors.items() if words(name) == phase.partition(" #")[0]]
        if found:
            fixed, each = max(found)
            activations = parts.setdefault("activations", [0.0] * 5)
            activations[0] += fixed
            activations[1] += each


@cache
def flops_per_second(device: str, precision: str) -> float:
    """Of a large matrix product in this precision, the best of three: 2·n³ operations each."""
    size, repeats = (8192, 10) if device == "cuda" else (1024, 1)
    left, right = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    best = 0.0
    for _ in range(3):
        wait()
        began = time.perf_counter()
        for _ in range(repeats):
            left @ right
        wait()
        best = max(best, repeats * 2 * size**3 / (time.perf_counter() - began))
    return round(best, -6)
