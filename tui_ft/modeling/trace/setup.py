"""What is to be traced: the same values as the planner's, which this child is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tui_ft.recipe.schema import Method


@dataclass(frozen=True)
class Setup:
    """What decides a step's memory besides the model, its rows, their length and the rank; as in `tui_ft.planning.forecast`."""

    kind: str
    quantization: str = "none"
    double_quantization: bool = True
    variant: str = "lora"
    layers: int | None = None
    targets: str | tuple[str, ...] = "all-linear"
    dropout: bool = False
    fused: bool = False
    precision: str = "bf16"
    optimizer: str = "adamw_torch_fused"
    attention: str = "sdpa"
    activation_checkpointing: bool | int | str = False
    clipping: bool = True
    device: str = "cuda"

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Setup:
        known = {field.name for field in fields(cls)}
        targets = value.get("targets", "all-linear")
        return cls(
            **{key: item for key, item in value.items() if key in known} | {"targets": targets if isinstance(targets, str) else tuple(targets)}
        )

    @property
    def every(self) -> int:
        """Each how many layers the activations are dropped and computed again; 0: nowhere."""
        recompute = self.activation_checkpointing
        return 0 if recompute in (False, "offload") else int(recompute)

    def method(self, rank: int, layers: int | None = None) -> Method:
        """The recipe's section that trains so."""
        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        dropout = 0.05 if self.dropout else 0.0
        return Method.model_validate(
            {"kind": self.kind, "quantization": self.quantization, "double_quantization": self.double_quantization, "variant": self.variant}
            | {"layers": layers or self.layers, "r": rank, "alpha": 2 * rank, "dropout": dropout, "targets": targets}
        )
