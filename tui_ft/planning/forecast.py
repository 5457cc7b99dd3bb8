"""The memory of a training step as a formula: made once from a few traced steps, answered for every batch, length and rank.

The most that a step holds is a maximum over its phases, and within one phase each part grows in a straight line
with the tokens; a line fitted to the maximum itself would be wrong by a quarter and more.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tui_ft.recipe.plan import Memory, Tier
from tui_ft.recipe.schema import Method, Recipe

BASIS = ("1", "tokens", "squares", "rank", "rank·tokens")
"""What a coefficient is multiplied by: rows × length (`tokens`), rows × length² (`squares`), the adapters' rank."""
_ACCUMULATES = ("forward", "head", "backward")
"""The phases that a step goes through once for each micro-batch."""
PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "head")


def is_fused(method: Method) -> bool:
    """Whether its adapters are computed by `modeling/fused_lora.py`, which knows plain LoRA without dropout over whole or 4-bit weights."""
    return method.kind == "lora" and method.variant != "dora" and not method.dropout and method.quantization != "int8"


class Setup(BaseModel):
    """What decides the formula besides the model. Rows, length and rank are what the formula is asked for."""

    model_config = ConfigDict(frozen=True)

    kind: str
    quantization: str = "none"
    double_quantization: bool = True
    variant: str = "lora"
    layers: int | None = None
    targets: str | tuple[str, ...] = "all-linear"
    dropout: bool = Field(False, description="Whether the adapters drop inputs, which keeps a mask for each.")
    fused: bool = Field(False, description="Adapters are added to their layer's output in one pass.")
    precision: str = "bf16"
    optimizer: str = "adamw_torch_fused"
    attention: str = "sdpa"
    activation_checkpointing: bool | int | str = False
    clipping: bool = True
    device: str = Field("cuda", description="cuda or cpu: whose kernels and their workspaces are counted.")

    @classmethod
    def of(cls, recipe: Recipe, *, precision: str, optimizer: str, attention: str, activation_checkpointing: bool | int | str, device: str) -> Setup:
        """The setup of `recipe` with its `auto` values resolved; settings that its method does not use are left at their defaults."""
        method = recipe.method
        lora = method.kind == "lora"
        return cls(
            kind=method.kind,
            quantization=method.quantization if lora else "none",
            double_quantization=method.double_quantization if lora and method.quantization == "nf4" else True,
            variant=("dora" if method.variant == "dora" else "lora") if lora else "lora",  # rslora scales otherwise, and keeps the same
            layers=method.layers if method.kind == "last-layers" else None,
            targets=(tuple(method.targets) if isinstance(method.targets, list) else method.targets) if lora else "all-linear",
            dropout=lora and method.dropout > 0,
            fused=is_fused(method),
            precision=precision,
            optimizer=optimizer,
            attention=attention,
            activation_checkpointing=activation_checkpointing,
            clipping=recipe.train.max_grad_norm > 0,
            device=device,
        )


class Region(BaseModel):
    """Coefficients that hold beyond so many tokens: kernels change their ways with the size of a batch."""

    model_config = ConfigDict(frozen=True)

    above: int = Field(description="Tokens; the first region's is 0.")
    phases: dict[str, dict[str, tuple[float, ...]]] = Field(
        description="Phase → part → bytes for each of BASIS. A phase in which the most may be held at several moments comes several times: `head #2`."
    )


class Fit(BaseModel):
    """Bytes that tensors take on one device in a training step of one model with one setup."""

    model_config = ConfigDict(frozen=True)

    tier: Tier = "traced"
    padded: tuple[Region, ...] = Field(description="Several rows of different lengths, or packed documents: the attention is given a mask.")
    single: tuple[Region, ...] = Field(description="One row, which needs no mask.")
    flops_per_second: float | None = Field(None, description="Of a large matrix product in the setup's precision on this device, where it was timed.")

    def memory(self, rows: int, length: int, rank: int, *, packed: bool = False, accumulating: bool = False) -> Memory:
        """What tensors take at the worst moment, by part; context and safety are not in it. Some ten microseconds.

        Args:
            rows: sequences in one forward pass.
            length: tokens of the longest of them, to which the others are padded; of the packed row.
            accumulating: several micro-batches a step: the gradients of the first are there while the next one is computed.
        """
        regions = self.padded if rows > 1 or packed else self.single
        region = next(region for region in reversed(regions) if region.above < rows * length or region.above == 0)
        values = (1, rows * length, rows * length * length, rank, rank * rows * length)
        found = {name: _parts(phase, values) for name, phase in region.phases.items()}
        gradients = max(parts.get("gradients", 0) for parts in found.values()) if accumulating else 0
        for name, parts in found.items():
            if gradients and name.startswith(_ACCUMULATES):
                parts["gradients"] = gradients
        phase, parts = max(found.items(), key=lambda one: sum(one[1].values()))
        return Memory(total_bytes=sum(parts.values()), phase=phase.partition(" #")[0], **parts)


def _parts(phase: dict[str, tuple[float, ...]], values: tuple[int, int, int, int, int]) -> dict[str, int]:
    """Written out, since a wizard's slider asks for a hundred of them in a frame."""
    _, tokens, squares, rank, both = values
    found = {}
    for part, (fixed, each, square, ranked, mixed) in phase.items():
        size = fixed + each * tokens + square * squares + ranked * rank + mixed * both
        found[part] = round(size) if size > 0 else 0
    return found
