"""Where things stand in a causal language model: its list of layers, its final norm, its head, its linear modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Structure:
    """Dotted module names inside a model."""

    layers: str
    """The list of transformer layers, e.g. `model.layers`; empty where none was found."""
    count: int
    """How many layers that list has."""
    norms: tuple[str, ...]
    """The norms after the last layer: none in some models, one in most."""
    head: str
    """The module that makes logits, e.g. `lm_head`; empty where there is none."""


def structure(model: PreTrainedModel) -> Structure:
    """Find the parts of `model` by looking at it; families name them differently."""
    name, layers = _layer_list(model)
    norms: tuple[str, ...] = ()
    if name:
        parent = name.rpartition(".")[0]
        prefix = f"{parent}." if parent else ""
        norms = tuple(  # an embedding's norm comes before the layers, any other sibling norm after them
            f"{prefix}{child}"
            for child, module in model.get_submodule(parent).named_children()
            if "norm" in type(module).__name__.lower() and "emb" not in child
        )
    head = model.get_output_embeddings()
    head_name = next((n for n, module in model.named_modules() if module is head), "") if head is not None else ""
    return Structure(name, len(layers) if layers is not None else 0, norms, head_name)


def _layer_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList | None]:
    """The outermost module list with the most parameters, of the configured length where there is one of that length."""
    from torch.nn import ModuleList

    lists = {name: module for name, module in model.named_modules() if isinstance(module, ModuleList) and len(module)}
    outer = {n: m for n, m in lists.items() if not any(n.startswith(f"{other}.") for other in lists)}
    configured = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    candidates = {n: m for n, m in outer.items() if len(m) == configured} or outer
    if not candidates:
        return "", None
    name = max(candidates, key=lambda n: sum(p.numel() for p in candidates[n].parameters()))
    return name, candidates[name]


def last_layers(model: PreTrainedModel, n: int) -> set[str]:
    """Names of the parameters that the method `last-layers` trains: the last `n` layers, the final norm and the head.

    A head tied to the input embedding is one parameter with it, under the embedding's name, and is trained.

    Raises:
        ValueError: the model has fewer layers.
    """
    parts = structure(model)
    if n > parts.count:
        raise ValueError(f"the model has {parts.count} layers, not {n}")
    modules = [f"{parts.layers}.{index}" for index in range(parts.count - n, parts.count)]
    modules += [*parts.norms, *([parts.head] if parts.head else [])]
    trained = {id(parameter) for module in modules for parameter in model.get_submodule(module).parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in trained}


def linear_modules(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Each linear module's name with its input and output width; GPT-2's transposed `Conv1D` is one as well."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[name] = (module.weight.shape[0], module.weight.shape[1])
    return found
