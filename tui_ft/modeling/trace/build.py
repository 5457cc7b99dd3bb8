"""The model of a trace: from its config alone, with as few layers as stand for all of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from tui_ft.modeling import varlen
from tui_ft.modeling.adapters import make_trainable
from tui_ft.modeling.load import DTYPES, attention_of
from tui_ft.modeling.structure import structure
from tui_ft.modeling.trace import quantized
from tui_ft.modeling.trace.patching import Patches
from tui_ft.modeling.trace.setup import Setup


@dataclass(frozen=True)
class Depth:
    """How many layers a traced model has, and how many of the last ones are trained (method last-layers)."""

    layers: int
    trained: int | None = None


def period(config: Any, setup: Setup) -> int:
    """After how many layers the kinds of layers repeat; the number of layers itself where they never do."""
    every = max(1, setup.every)
    count = config.get_text_config().num_hidden_layers
    kinds = _kinds(config)
    for length in range(every, count, every):
        if all(kinds[index] == kinds[index - length] for index in range(length, count)):
            return length
    return int(count)


def _kinds(config: Any) -> list[Any]:
    """What sets each layer apart: its shapes, and its entry in each of the config's lists."""
    text = config.get_text_config()
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    parts = structure(model)
    layers = model.get_submodule(parts.layers) if parts.layers else []
    lists = [value for value in text.to_dict().values() if isinstance(value, list) and len(value) == parts.count]
    shapes = [tuple((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()) for layer in layers]
    return [(shape, *(str(value[index]) for value in lists)) for index, shape in enumerate(shapes)]


def depths(layers: int, length: int, setup: Setup) -> list[Depth]:
    """The fewest layers whose traces tell that of all `layers`: bytes grow in a straight line with each period of `length` layers.

    Two depths, or three where trained and frozen layers both vary; only the model itself where it is hardly deeper.
    """
    whole = Depth(layers, setup.layers)
    if setup.kind != "last-layers":
        small = length + (layers % length or length)
        return [Depth(small), Depth(small + length)] if small + length < layers else [whole]
    trained = setup.layers or 1
    frozen = layers - trained
    few = length + (trained % length or length)
    if trained <= few:
        few = trained
    rest = length + (frozen % length or length)
    if frozen <= rest or few + rest + length >= layers:
        return [whole]
    shallow = [Depth(few + rest, few), Depth(few + rest + length, few)]
    return shallow if few == trained else [*shallow, Depth(few + rest + length, few + length)]


def shares(layers: int, found: list[Depth], setup: Setup) -> list[float]:
    """What each depth's trace is multiplied by, so that their sum is the trace of the model with all its layers."""
    if len(found) == 1:
        return [1.0]
    first, second, *third = found
    step = second.layers - first.layers
    if setup.kind != "last-layers":
        more = (layers - first.layers) / step
        return [1 - more, more]
    trained, few = setup.layers or 1, first.trained or 1
    more_frozen = (layers - trained - (first.layers - few)) / step
    more_trained = (trained - few) / step if third else 0.0
    return [1 - more_frozen - more_trained, more_frozen, *([more_trained] if third else [])]


def shortened(config: Any, layers: int) -> Any:
    """A copy of `config` with so many layers; the lists that have an entry for each layer are cut."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    count = text.num_hidden_layers
    for key, value in list(vars(text).items()):
        if isinstance(value, list | tuple) and len(value) == count:
            setattr(text, key, value[:layers])
    text.num_hidden_layers = layers
    text.use_cache = False
    return config


def build(config: Any, depth: Depth, setup: Setup, rank: int, patches: Patches) -> PreTrainedModel:
    """A model with random or fake weights, trainable as `setup` says, made by the same function as the run's."""
    dtype = DTYPES["fp32" if setup.kind == "full" else setup.precision]  # what is trained in full is loaded and then made fp32
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            shortened(config, depth.layers), dtype=dtype, attn_implementation=attention_of(config, setup.attention), trust_remote_code=False
        )
    model.tie_weights()  # skipped with the initial values
    if setup.attention == varlen.NAME:
        varlen.register()
        model.set_attn_implementation(varlen.NAME)
    if setup.quantization != "none":
        quantized.quantize(model, setup, dtype)
    patches.set(torch.nn.Module, "to", lambda self, *_, **__: self)  # peft moves adapters to where the layer is; fake parameters cannot be swapped
    if setup.kind == "full":
        patches.set(torch.nn.Module, "float", lambda self: self)
    return make_trainable(model, setup.method(rank, depth.trained), [], checkpointing=bool(setup.activation_checkpointing), fused=setup.fused)
