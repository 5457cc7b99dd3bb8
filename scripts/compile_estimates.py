"""Compile what the forecast of memory says at once, before a trace: one traced step of each family and setup, kept as polynomials.

Each family is traced with dimensions that are numbers of their own, so a tensor's shape tells which of them its bytes grow with
(`tui_ft/modeling/trace/symbolic.py`). Kept are the moments that can be the greatest for some model and batch. `--check` compares
the result with traces of published models instead.

    python scripts/compile_estimates.py [--only llama] [--check]        a quarter of an hour on two cores
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tui_ft.modeling import inventory
from tui_ft.modeling.trace import fit as tracing
from tui_ft.modeling.trace import quantized, symbolic
from tui_ft.modeling.trace.setup import Setup
from tui_ft.modeling.trace.tracker import PARTS, SCALES
from tui_ft.planning import estimate
from tui_ft.planning.forecast import Fit
from tui_ft.planning.forecast import Setup as Asked
from tui_ft.planning.model_facts import ModelFacts

INNER, WIDTH, POSITIONS, PROJECTED = 5056, 128, 2946, 704
GROUPED, WHOLE = (33, 11), (29, 29)  # heads, and those of keys and values
HIDDEN = {GROUPED: 2112, WHOLE: 1856}  # a multiple of the heads, and no other dimension
SMALL, LARGE = 30464, 54784  # below and above the head's tile of 32,768 tokens of the vocabulary
_WEIGHTS = PARTS.index("weights")

_LORA = [
    {"kind": "lora", "quantization": weights, "dropout": drops, "fused": not drops and weights != "int8"}
    for weights, drops in product(("none", "nf4", "int8"), (True, False))
]
_FULL = [{"kind": "full", "optimizer": optimizer} for optimizer in ("adamw_torch_fused", "adamw_8bit")]
SETUPS = [Asked(**method, activation_checkpointing=level) for method, level in product([*_LORA, *_FULL], (False, True))]

SHAPES = [  # hidden, inner, heads, groups, width of a head, layers
    (576, 1536, 9, 3, 64, 30), (896, 4864, 14, 2, 64, 24), (1024, 4096, 16, 16, 64, 24), (2048, 8192, 32, 8, 64, 16), (2560, 10240, 32, 32, 80, 32),
    (3584, 18944, 28, 4, 128, 28), (4096, 14336, 32, 8, 128, 32), (5120, 25600, 64, 8, 128, 64), (8192, 28672, 64, 8, 128, 80),
]  # fmt: skip
BATCHES = [(rows, length) for rows in (1, 2, 4, 16, 64) for length in (64, 256, 512, 1024, 2048, 8192) if rows * length <= 65536]


def families() -> dict[str, tuple[Any, dict[str, int]]]:
    """Configs with dimensions of their own, and these by name."""
    import transformers as t

    def llama_like(kind: Any, heads: tuple[int, int], vocabulary: int, tied: bool, width: int = WIDTH, **more: Any) -> tuple[Any, dict[str, int]]:
        asked, groups = heads
        hidden = HIDDEN[heads] if "head_dim" in more else asked * width
        sizes = {"hidden_size": hidden, "intermediate_size": INNER, "num_attention_heads": asked, "num_key_value_heads": groups}
        config = kind(**sizes, vocab_size=vocabulary, max_position_embeddings=POSITIONS, tie_word_embeddings=tied, num_hidden_layers=4, **more)
        named = {"hidden": hidden, "inner": INNER, "vocabulary": vocabulary, "heads": asked, "width": width}
        if asked * width != hidden:
            named["queries"] = asked * width
        if groups != asked:
            named |= {"groups": groups, "keys": groups * width}
        return config, named

    own = {"head_dim": WIDTH}
    found = {
        "llama 3.2": llama_like(t.LlamaConfig, GROUPED, LARGE, True, **own),
        "llama 3": llama_like(t.LlamaConfig, GROUPED, LARGE, False, **own),
        "tinyllama": llama_like(t.LlamaConfig, GROUPED, SMALL, False, **own),
        "llama 2": llama_like(t.LlamaConfig, WHOLE, SMALL, False, **own),
        "smollm2": llama_like(t.LlamaConfig, WHOLE, LARGE, True, **own),
        "mistral": llama_like(t.MistralConfig, GROUPED, SMALL, False, sliding_window=None, **own),
        "mistral nemo": llama_like(t.MistralConfig, GROUPED, LARGE, False, sliding_window=None, **own),
        "qwen2.5 small": llama_like(t.Qwen2Config, GROUPED, LARGE, True),
        "qwen2.5": llama_like(t.Qwen2Config, GROUPED, LARGE, False),
        "qwen3 small": llama_like(t.Qwen3Config, GROUPED, LARGE, True, **own),
        "qwen3": llama_like(t.Qwen3Config, GROUPED, LARGE, False, **own),
        "phi-2": llama_like(t.PhiConfig, WHOLE, LARGE, False, 160, partial_rotary_factor=0.4),
        "stablelm": llama_like(t.StableLmConfig, WHOLE, LARGE, False),
    }
    hidden = WHOLE[0] * WIDTH
    common = {"hidden": hidden, "vocabulary": LARGE, "heads": WHOLE[0], "width": WIDTH}
    gpt2 = t.GPT2Config(n_embd=hidden, n_inner=INNER, n_head=WHOLE[0], n_positions=POSITIONS, vocab_size=LARGE, n_layer=4)
    found["gpt2"] = gpt2, {**common, "inner": INNER, "positions": POSITIONS}
    sizes = {"hidden_size": hidden, "ffn_dim": INNER, "num_attention_heads": WHOLE[0], "num_hidden_layers": 4, "vocab_size": LARGE}
    opt = t.OPTConfig(**sizes, max_position_embeddings=POSITIONS, word_embed_proj_dim=hidden)
    found["opt"] = opt, {**common, "inner": INNER, "positions": POSITIONS + 2}
    projected = t.OPTConfig(**sizes, max_position_embeddings=POSITIONS, word_embed_proj_dim=PROJECTED, do_layer_norm_before=False)
    found["opt-350m"] = projected, {**common, "inner": INNER, "positions": POSITIONS + 2, "projected": PROJECTED}
    return found


def compile_family(name: str) -> dict[str, Any]:
    quieten()
    began = time.monotonic()
    config, named = families()[name]
    symbols, with_outliers = symbolic.Symbols(named), symbolic.Symbols(named, parts=quantized.OUTLIERS)
    facts = inventory.describe(inventory.on_meta(config, name))
    setups = []
    for asked in SETUPS:
        setup = Setup.parse(asked.model_dump(mode="json"))
        told = with_outliers if setup.quantization == "int8" else symbols
        kept = {kind: _kept(config, setup, told, padded=kind == "padded") for kind in ("padded", "single")}
        setups.append({"setup": asked.model_dump(mode="json", exclude_defaults=True), **kept})
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return {
        "name": name,
        "model_type": facts["model_type"],
        "traits": facts["traits"],
        "grouped": named.get("groups") is not None,
        "large": named["vocabulary"] > estimate.TILE,
        "parameters": {group["name"]: [_dimension(symbols, size) for size in group["shape"]] for group in facts["parameters"]},
        "setups": setups,
    }


def _dimension(symbols: symbolic.Symbols, size: int) -> list[Any]:
    name = next(iter(symbols.of((size,))), None)
    return [name, size / symbols.values[name]] if name else [None, size]


def _kept(config: Any, setup: Setup, symbols: symbolic.Symbols, *, padded: bool) -> list[Any]:
    """Moments as [phase, [[part, scale, monomial, bytes, bytes a layer], …]], the fewest that are the greatest somewhere."""
    told = symbolic.moments(config, (2, 3), setup, symbols, padded=padded)
    keys = sorted({key for _, moments in told for moment in moments for key in moment if key[0] != _WEIGHTS})
    second, third = (symbolic.matrix([moments[depth] for _, moments in told], keys) for depth in (0, 1))
    each = third - second
    fixed = second - 2 * each
    values, gradients = _asked(keys, fixed, each, symbols)
    kept: list[int] = []
    for wanted in (values, values - gradients):
        kept += tracing.envelope(wanted, kept)
    names = [name for name, _ in told]
    for name in dict.fromkeys(names):
        own = [index for index, other in enumerate(names) if other == name]
        if not any(index in kept for index in own):
            kept.append(own[int(values[own].sum(1).argmax())])
    return [
        [
            names[index],
            [[*key[:2], "·".join(key[2]), _short(a), _short(b)] for key, a, b in zip(keys, fixed[index], each[index], strict=True) if a or b],
        ]
        for index in sorted(kept)
    ]


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _asked(keys: list[Any], fixed: Any, each: Any, symbols: symbolic.Symbols) -> tuple[Any, Any]:
    """Bytes of each moment for many models and batches, and of gradients alone."""
    values, gradients = [], []
    is_gradient = np.array([key[0] == PARTS.index("gradients") for key in keys])
    vocabularies = (50272, 128256, 151936) if symbols.values["vocabulary"] > estimate.TILE else (32000,)
    for (hidden, inner, heads, groups, width, layers), vocabulary in product(SHAPES, vocabularies):
        dimensions = {"hidden": hidden, "inner": inner, "vocabulary": vocabulary, "heads": heads, "width": width, "groups": groups}
        dimensions |= {"queries": heads * width, "keys": groups * width, "repeats": heads // groups, "positions": 2048, "projected": 512}
        units = np.array([np.prod([dimensions[name] for name in key[2]]) for key in keys])
        for (rows, length), rank in product(BATCHES, (8, 64)):
            scales = estimate.scales(rows, length, rank)
            column = units * np.array([scales[key[1]] for key in keys])
            amounts = (fixed + layers * each) * column
            values.append(amounts.sum(1))
            gradients.append(amounts[:, is_gradient].sum(1))
    return np.array(values).T, np.array(gradients).T


def check(only: str) -> int:
    """Estimates against traces of published models, in some setups and batches; the worst of each."""
    from published import MODELS

    worst_of_all = 0.0
    for name, config in MODELS.items():
        if only not in name:
            continue
        facts = ModelFacts.model_validate(inventory.describe(inventory.on_meta(config, name)))
        for asked in SETUPS:
            told = estimate.estimated(facts, asked)
            if told is None:
                print(f"{name}: no estimate")
                break
            traced = Fit.model_validate(tracing.fit(config, Setup.parse(asked.model_dump(mode="json"))))
            errors = [told.memory(*batch, 16).total_bytes / traced.memory(*batch, 16).total_bytes - 1 for batch in BATCHES]
            worst = max(errors, key=abs)
            worst_of_all = max(worst_of_all, abs(worst))
            what = f"{asked.kind} {asked.quantization} {asked.optimizer}{' dropout' if asked.dropout else ''} {asked.activation_checkpointing}"
            print(f"{name:<14} {what:<50} {worst:+.3%} at {BATCHES[errors.index(worst)]}", flush=True)
    print(f"worst {worst_of_all:.3%}")
    return 0 if worst_of_all <= 0.007 else 1


def quieten() -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="families or models whose name holds this")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=estimate.FILE)
    options = parser.parse_args()
    quieten()
    if options.check:
        return check(options.only)
    names = [name for name in families() if options.only in name]
    with ProcessPoolExecutor(min(options.processes, len(names)), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(compile_family, names))
    content = {"versions": estimate.versions(), "head_tokens": tracing.HEAD_TOKENS, "unpacked_above": quantized.NF4_FUSED_TOKENS, "families": found}
    assert len(SCALES) == len(estimate.scales(1, 1, 1)) and PARTS == estimate.PARTS
    options.out.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
