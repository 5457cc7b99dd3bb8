"""Forecasts made by hand of a model like Llama 3.1 8B, for tests of what the planner does with them."""

from __future__ import annotations

from tui_ft.planning.forecast import Fit, Region, Setup
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.recipe.plan import Tier

GIB = 2**30
WIDTH, INNER, LAYERS, VOCABULARY = 4096, 14336, 32, 128256
_LINEARS = {"q_proj": (WIDTH, WIDTH), "k_proj": (WIDTH, 1024), "v_proj": (WIDTH, 1024), "o_proj": (WIDTH, WIDTH)}
_LINEARS |= {"gate_proj": (WIDTH, INNER), "up_proj": (WIDTH, INNER), "down_proj": (INNER, WIDTH)}
_EVERY = list(range(LAYERS))


def _group(name: str, shape: tuple[int, int], role: str, layers: list[int]) -> dict[str, object]:
    return {"name": name, "shape": shape, "count": shape[0] * shape[1], "role": role, "embedding": role != "layer", "layers": layers}


FACTS = ModelFacts.model_validate(
    {
        "architecture": "LlamaForCausalLM", "model_type": "llama", "context_length": 131072, "vocab_size": VOCABULARY, "hidden_size": WIDTH,
        "layers": LAYERS, "layer_list": "model.layers", "dtype": "bfloat16", "tie_word_embeddings": False, "quantized": None,
        "parameters": [
            _group("model.embed_tokens.weight", (VOCABULARY, WIDTH), "other", []),
            *(_group(f"model.layers.*.{name}.weight", shape, "layer", _EVERY) for name, shape in _LINEARS.items()),
            _group("lm_head.weight", (VOCABULARY, WIDTH), "head", []),
        ],
        "linears": [
            *({"name": f"model.layers.*.{name}", "in": a, "out": b, "head": False, "layers": _EVERY} for name, (a, b) in _LINEARS.items()),
            {"name": "lm_head", "in": WIDTH, "out": VOCABULARY, "head": True, "layers": []},
        ],
    }
)  # fmt: skip
_ADAPTERS = sum(a + b for a, b in _LINEARS.values()) * LAYERS
_KEPT = {False: 8_000_000, 4: 6_200_000, 3: 5_600_000, 2: 4_300_000, True: 600_000, "offload": 500_000}


def fit(setup: Setup, tier: Tier = "traced") -> Fit:
    """Weights, states and activations of the right size, in two phases of which either may hold the most."""
    total = FACTS.total
    weights = {"none": 2.0, "int8": 1.15, "nf4": 0.68}[setup.quantization] * total if setup.kind == "lora" else 4.0 * total
    states = 2.1 if "8bit" in setup.optimizer else 8.0
    if setup.kind == "lora":
        trained = {"adapters": (0, 0, 0, 4 * _ADAPTERS, 0), "gradients": (0, 0, 0, 4 * _ADAPTERS, 0), "optimizer": (0, 0, 0, states * _ADAPTERS, 0)}
    else:
        trained = {"gradients": (4.0 * total, 0, 0, 0, 0), "optimizer": (states * total, 0, 0, 0, 0)}
    kept = float(_KEPT[setup.activation_checkpointing])
    fixed = {"weights": (weights, 0, 0, 0, 0), **trained}
    head = {**fixed, "activations": (0, kept, 0, 0, 0), "head": (5e8, 10_000.0, 0, 0, 0)}
    last = {**fixed, "activations": (0, kept + 400_000, 0.5, 0, 40.0)}
    region = Region(above=0, phases={"head": head, "backward: last layer": last})
    return Fit(tier=tier, padded=(region,), single=(region,))
