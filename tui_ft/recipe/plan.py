"""The plan: what a recipe became on this machine, each value with its reason.

The planner writes it, the run keeps it per attempt, the worker obeys it. It stands beside the recipe because
planner and worker know each other only through it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Tier = Literal["lower-bound", "estimate", "traced", "measured"]


class Memory(BaseModel):
    """Bytes on one GPU (or in main memory, without one) in the phase that peaks; the parts add up to `total_bytes`."""

    model_config = ConfigDict(extra="ignore")

    total_bytes: int = 0
    weights: int = 0
    adapters: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = Field(0, description="0 in the tier lower-bound: not counted, not free.")
    head: int = Field(0, description="Logits and the loss; 0 in the tier lower-bound.")
    overhead: int = Field(0, description="Context and safety together; 0 in the tier lower-bound.")
    context: int = Field(0, description="What the driver and the libraries take before the first tensor.")
    safety: int = Field(0, description="Kept free because an allocator holds more than its tensors take.")
    phase: str = Field("", description="The part of a training step in which the most is held, in words.")


class Gpu(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str
    total_bytes: int
    free_bytes: int
    index: int = 0
    uuid: str = Field("", description="What CUDA_VISIBLE_DEVICES takes: numbers are counted differently by CUDA and the driver. Empty: assumed.")


class Option(BaseModel):
    """Another setting: what it would cost or save, or how it would make a run fit that does not."""

    model_config = ConfigDict(extra="ignore")

    changes: dict[str, Any] = Field(description="Recipe keys and their values, as `--set` takes them.")
    words: str = Field(description="What it is, e.g. without activation checkpointing.")
    text: str = Field(description="The whole sentence: what it costs or saves, and whether it fits.")
    total_bytes: int
    seconds: float | None = None
    fits: bool | None = None
    remedy: bool = Field(False, description="The run does not fit as it is, and would so.")


class Plan(BaseModel):
    """Every value that `auto` stood for, and what the run will take."""

    model_config = ConfigDict(extra="ignore")

    tier: Tier = "lower-bound"
    memory: Memory = Field(default_factory=Memory)
    gpu: Gpu | None = None
    fits: bool | None = Field(None, description="None without a GPU, or where the tier cannot tell.")
    micro_batch: int
    accumulation: int = Field(description="Micro-batches per optimizer step; micro_batch × accumulation = effective_batch on one GPU.")
    effective_batch: int
    precision: Literal["bf16", "fp16", "fp32"]
    optimizer: str = "adamw_torch"
    packing: bool = False
    row_length: int | None = Field(None, description="Tokens of a packed row; None: prompt.max_length, or nothing is packed.")
    attention: str = "sdpa"
    activation_checkpointing: bool | int | Literal["offload"] = False
    length_grouped: bool = Field(False, description="Batches of like lengths, so that less padding is computed.")
    fused_lora: bool = Field(False, description="Adapters are added to their layer's output in one pass.")
    data_workers: int = Field(0, description="Processes that put batches together ahead of the training; 0: the training does it itself.")
    from_step: int | None = Field(None, description="The checkpoint that a resumed attempt goes back to; None takes the newest whole one.")
    settings: dict[str, float] = Field(
        default_factory=dict, description="learning_rate, max_steps: given by a person with the resume that made this attempt."
    )
    settings_id: str = Field("", description="Under which the events tell of these settings, so that a restart does not make them again.")
    accepted: list[str] = Field(
        default_factory=list, description="What has changed since the run began and a person resumes with all the same, by name."
    )
    queued: bool = Field(False, description="Wait in the queue until the GPU (without one, the processor) is no other run's.")
    shared: bool = Field(False, description="Begin although another run of ours holds the GPU: a person forced it.")
    when_free: int | None = Field(None, description="Bytes that must be free on the GPU before a queued attempt begins; None: what the plan needs.")
    steps: int | None = Field(None, description="Optimizer steps; None until the rows have been counted.")
    tokens_per_step: int | None = None
    seconds: float | None = Field(None, description="Of training, without downloads and evaluation.")
    seconds_range: tuple[float, float] | None = Field(None, description="The least and the most that is likely.")
    longest: int | None = Field(None, description="Tokens of the longest sample, for which the memory is counted; None: prompt.max_length.")
    setup: dict[str, Any] | None = Field(None, description="What the memory was counted for, as the forecast names it; kept with what is measured.")
    rank: int | None = Field(None, description="Of the adapters; None where none are trained.")
    flops_per_token: float | None = Field(
        None, description="Floating-point operations that a real token costs, with its share of padding, recomputing and idle kernels."
    )
    options: list[Option] = Field(default_factory=list, description="Other settings and what they would change, the most useful first.")
    disk_bytes: int | None = Field(None, description="Checkpoints kept + their ZIPs + the final model.")
    output_bytes: int | None = Field(None, description="What of disk_bytes goes to output.dir, which may be another disk.")
    trainable_parameters: int | None = None
    parameters: int | None = None
    reasons: dict[str, str] = Field(default_factory=dict, description="For each resolved value, one sentence: why this one.")
    warnings: list[str] = Field(default_factory=list)

    @property
    def batch_words(self) -> str:
        """`4 × 4`, or `2 packed rows of 3,396 tokens`."""
        if not self.packing or self.row_length is None:
            return f"{self.micro_batch} × {self.accumulation}"
        rows = "one packed row" if self.accumulation == 1 else f"{self.accumulation} packed rows"
        return f"{rows} of {self.row_length:,} tokens"
