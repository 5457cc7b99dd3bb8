"""How long a step takes: the operations it needs, over how many this device does a second."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from tui_ft import units
from tui_ft.hardware import GpuReading
from tui_ft.planning.forecast import Setup
from tui_ft.planning.history import History
from tui_ft.planning.model_facts import ModelFacts

FILL_TOKENS = 512
"""What starting a pass's kernels costs, as tokens: a pass of 512 leaves a GPU idle half of the time, one of 4096 a ninth."""
CPU_FILL_TOKENS = 128
"""The same on a CPU, whose passes need less to be busy; an assumption."""
DEQUANTIZE_TOKENS = 215
"""What unpacking 4- or 8-bit weights costs a pass, as tokens: 42 % at 512 tokens, 11 % at 2048, 3 % at 8192."""
OFFLOAD_FACTOR = 1.6
"""What moving activations to main memory and back costs; an assumption that no GPU has settled yet."""
GPU_FACTOR = 0.3
"""The share of a GPU's peak that a training reaches, until a run on it has been measured: the best published is 0.41 (Llama 3.1 8B, LoRA)."""
TIMED_FACTOR = 0.4
"""The same of a large matrix product as it was timed on the device; the demo's small matrices reach 0.33 of it on a CPU."""
UNMEASURED_RANGE = (0.5, 2.5)
"""Of the seconds, with a factor that nothing has measured."""
LEAST_SPREAD = 0.15
"""No two runs are alike: the seconds are never told more exactly."""

# Tensor-core operations a core and clock, over the 2 of a fused multiply-add, in 16 bits with sums in 32: the published peaks of V100, T4,
# A100, A40, L40S, H100, B200 and RTX 5090 over their cores × boost clock × 2. GeForce cards do half of it (RTX 3090: 71 TFLOP/s).
_TENSOR_MULTIPLES = {(7, 0): 8, (7, 5): 8, (8, 0): 16, (8, 6): 4, (8, 7): 4, (8, 9): 4, (9, 0): 16, (10, 0): 32, (10, 3): 32, (12, 0): 4, (12, 1): 4}
_TF32_SINCE = (8, 0)


@dataclass(frozen=True)
class Shape:
    """What decides how much a model computes, taken from its facts once a plan. Counts of numbers."""

    linears: int
    """Weights of the linear modules in the layers, all layers together."""
    head: int
    widths: int
    """Hidden width × layers: attention's cost grows with it and the length."""
    layers: int

    @classmethod
    def of(cls, facts: ModelFacts) -> Shape:
        sizes = [(linear.width_in * linear.width_out * max(1, len(linear.layers)), linear.head) for linear in facts.linears]
        head = sum(size for size, is_head in sizes if is_head) or facts.vocab_size * facts.hidden_size
        return cls(sum(size for size, is_head in sizes if not is_head), head, facts.hidden_size * facts.layers, max(1, facts.layers))


def flops_per_token(shape: Shape, setup: Setup, adapters: int, length: int) -> float:
    """Floating-point operations of a training step for each token in a row of `length`, padding as much as others.

    A linear module costs 2 a weight forward, 2 for its input's gradient and 2 for its own where it is trained; attention
    costs 2 × length × width forward in a causal mask and twice that backward (Kaplan et al. 2020, appendix B; PaLM, appendix B).

    Args:
        adapters: numbers in the adapters; 0 without.
    """
    attention = 2.0 * length * shape.widths
    forward = 2.0 * shape.linears + attention
    reached = min(1.0, (setup.layers or shape.layers) / shape.layers) if setup.kind == "last-layers" else 1.0  # how far gradients go back
    backward = reached * (2.0 * shape.linears + 2 * attention)
    own = 0.0 if setup.kind == "lora" else reached * 2.0 * shape.linears + 2.0 * shape.head
    recomputed = _recomputed(setup.activation_checkpointing) * forward * reached
    return forward + backward + recomputed + own + 4.0 * shape.head + 6.0 * adapters


def _recomputed(level: bool | int | str) -> float:
    """The share of the layers whose forward pass is done twice."""
    if level is False or isinstance(level, str):
        return 0.0
    return 1.0 / max(1, int(level))


def pass_tokens(tokens: float, setup: Setup) -> float:
    """A pass of `tokens`, as the number of tokens that would take as long without what a pass costs by itself."""
    if setup.device != "cuda":
        return tokens + CPU_FILL_TOKENS
    whole = tokens + FILL_TOKENS + (DEQUANTIZE_TOKENS if setup.quantization != "none" else 0)
    return whole * (OFFLOAD_FACTOR if setup.activation_checkpointing == "offload" else 1.0)


def peak(gpu: GpuReading, precision: str) -> float | None:
    """FLOPs a second that a GPU's tensor cores do at most; None where the driver tells too little."""
    if not gpu.cores or not gpu.clock_mhz or gpu.capability is None:
        return None
    plain = 2.0 * gpu.cores * gpu.clock_mhz * 1e6
    multiple = _TENSOR_MULTIPLES.get(gpu.capability, 4.0 if gpu.capability >= (7, 0) else 1.0)
    if "geforce" in gpu.name.lower():
        multiple = max(1.0, multiple / 2)
    if precision == "fp32":
        multiple = max(1.0, multiple / 2) if gpu.capability >= _TF32_SINCE else 1.0
    return plain * multiple


@dataclass(frozen=True)
class Rate:
    """How fast a device trains."""

    flops_per_second: float
    low: float
    """The least seconds that are likely, as a multiple of those expected."""
    high: float
    words: str
    """Where it comes from, as the end of a sentence."""


def rate(gpu: GpuReading | None, setup: Setup, timed: float | None, history: History, work_per_token: float) -> Rate | None:
    """How fast this device trains what costs `work_per_token` FLOPs a real token; None where nothing tells.

    Args:
        timed: FLOPs a second of a matrix product on this device, as a trace or a measurement timed it; None where none did.
    """
    speeds = history.speeds(gpu.name if gpu else None, setup.precision, work_per_token)
    if speeds:
        middle = statistics.median(speeds)
        spread = max(LEAST_SPREAD if len(speeds) > 2 else 2 * LEAST_SPREAD, max(speeds) / middle - 1, middle / min(speeds) - 1)
        runs = f"{len(speeds)} earlier attempt{'s' if len(speeds) > 1 else ''} on {gpu.name if gpu else 'this CPU'}"
        return Rate(middle, 1 / (1 + spread), 1 + spread, f"at the {units.count(middle)}FLOP/s that {runs} reached")
    if timed:
        reached = f"the {units.count(timed)}FLOP/s that a matrix product reached here"
        words = f"at {100 * TIMED_FACTOR:.0f} % of {reached}, a cautious guess until a run has been measured"
        return Rate(TIMED_FACTOR * timed, *UNMEASURED_RANGE, words)
    most = peak(gpu, setup.precision) if gpu else None
    if most is None:
        return None
    words = f"at {100 * GPU_FACTOR:.0f} % of its peak of {units.count(most)}FLOP/s, a cautious guess until a run on it has been measured"
    return Rate(GPU_FACTOR * most, *UNMEASURED_RANGE, words)
