"""The forecast of memory against what training really takes: on a GPU real runs of six models, without one real steps of small models.

On a GPU each point is a run of the real worker on a model with random weights: three steps, then it is stopped, and what it measured
of itself is held against the trace's forecast for the very batch it saw. The suggested micro-batch is tried, and one a ninth larger: where that
one runs out of memory, the suggestion is at least nine tenths of the most. Rows are kept as they come, and a later call goes on.

    python scripts/bench_memory.py [--minutes 9] [--only llama-3.2-1b] [--anew] [--out docs/bench/memory.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

WORST_GOAL = 0.03
"""Of allocated bytes, on a GPU."""
CPU_GOAL = 0.01
SHARE_GOAL = 0.9
"""The suggested micro-batch, of the largest that works."""
STEPS = 3
SECONDS = 240.0
"""For one run: a model of eight billion weights is read, quantized and trained for three steps in less."""
ROWS, LENGTH = 4, 1024
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "opt-350m": ("OPTConfig", {"hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 50272,
                               "word_embed_proj_dim": 512, "do_layer_norm_before": False, "max_position_embeddings": 8192}),
    "llama-3.2-1b": ("LlamaConfig", {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                                     "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072,
                                     "tie_word_embeddings": True}),
    "phi-2": ("PhiConfig", {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
                            "vocab_size": 51200, "partial_rotary_factor": 0.4, "max_position_embeddings": 8192}),
    "stablelm-3b": ("StableLmConfig", {"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32, "num_attention_heads": 32,
                                       "num_key_value_heads": 32, "vocab_size": 50304, "max_position_embeddings": 16384}),
    "qwen2.5-7b": ("Qwen2Config", {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
                                   "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 131072}),
    "llama-3.1-8b": ("LlamaConfig", {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                                     "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}),
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "lora": {"kind": "lora", "r": 16},
    "nf4": {"kind": "lora", "r": 16, "quantization": "nf4"},
    "int8": {"kind": "lora", "r": 16, "quantization": "int8"},
}
ALLOCATORS = {"native": "expandable_segments:False", "expandable": "expandable_segments:True"}
START, END = "<!-- bench-memory -->", "<!-- /bench-memory -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin nothing new after these; the rows that are there are kept")
    parser.add_argument("--only", default="", help="models or cases whose name holds this")
    parser.add_argument("--anew", action="store_true", help="forget the rows that are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench" / "memory.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "memory.md")
    options = parser.parse_args()
    from tui_ft import hardware

    machine = hardware.read()
    kept = {} if options.anew else read(options.out)
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as work:
        os.environ["TUI_FT_HOME"] = str(Path(work) / "home")
        if machine.gpus:
            kept["gpu"] = on_gpu(Path(work), machine, kept.get("gpu", []), options, deadline)
        else:
            print(f"{machine.note}: the forecast is checked against steps of small models on the CPU")
            kept["cpu"] = on_cpu(Path(work), kept.get("cpu", []), options, deadline)
    kept["versions"] = {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")}
    kept["machine"] = f"{platform.machine()}, {', '.join(gpu.name for gpu in machine.gpus) or 'no GPU'}, Python {platform.python_version()}"
    kept["date"] = time.strftime("%Y-%m-%d")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return judge(kept, options.docs)


def read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


# --- on a GPU ------------------------------------------------------------------------------------------------------


def on_gpu(work: Path, machine: Any, rows: list[dict[str, Any]], options: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """The points that are not kept yet, model by model, since its weights are written once and lie in the way of the next."""
    done = {(row["model"], row["method"], row["allocator"], row["what"]) for row in rows if row["gpu"] == machine.gpus[0].name}
    for name in MODELS:
        wanted = [key for key in _points(name) if key not in done]
        if options.only not in name or not wanted or time.monotonic() > deadline:
            continue
        folder = work / name
        make_model(name, folder)
        for _, method, allocator, what in wanted:
            if time.monotonic() > deadline:
                break
            row = measure(folder, name, method, allocator, what, machine)
            rows.append(row)
            print(line_of(row), flush=True)
        subprocess.run(["rm", "-rf", str(folder)], check=True)  # up to 16 GB
    return rows


def _points(model: str) -> Iterator[tuple[str, str, str, str]]:
    for method in METHODS:
        for allocator in ALLOCATORS:
            yield model, method, allocator, "point"
        yield model, method, "expandable", "suggestion"


def make_model(name: str, folder: Path) -> None:
    """A folder as the Hub has it, with random weights in bf16 and a tokenizer of bytes; in a process of its own, for its memory."""
    code = (
        "import sys, torch, transformers\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from data_material import byte_tokenizer\n"
        "from pathlib import Path\n"
        f"kind, sizes = {MODELS[name]!r}\n"
        f"byte_tokenizer(Path({str(folder)!r}), eos='</s>', pad='<pad>')\n"
        "with torch.device('cuda'):\n"
        "    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**sizes), dtype=torch.bfloat16)\n"
        f"model.save_pretrained({str(folder)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path, model: str, method: str, allocator: str, what: str, machine: Any) -> dict[str, Any]:
    """One point: a run at a fixed batch, or the suggested one and one a ninth larger."""
    row: dict[str, Any] = {"model": model, "method": method, "allocator": allocator, "what": what, "gpu": machine.gpus[0].name}
    recipe = recipe_of(folder, method, ROWS)
    facts, fits = forecast_of(recipe, machine)
    if what == "point":
        return row | run_once(recipe, facts, fits, machine, allocator)
    suggested = suggestion(recipe, facts, fits, machine)
    if suggested is None:
        return row | {"outcome": "nothing fits"}
    found = run_once(recipe_of(folder, method, suggested), facts, fits, machine, allocator)
    larger, most = int(suggested / SHARE_GOAL) + 1, suggested
    works = found["outcome"] == "stopped"
    while works and larger <= 2 * suggested and run_once(recipe_of(folder, method, larger), facts, fits, machine, allocator)["outcome"] == "stopped":
        most, larger = larger, larger + max(1, suggested // 8)
    return row | found | {"suggested": suggested, "most": most, "share": suggested / most}


def recipe_of(folder: Path, method: str, rows: int) -> Any:
    """Rows of about LENGTH tokens, every second one a little shorter, so that there is padding and a mask."""
    from data_material import write_rows

    from tui_ft.recipe import files

    samples = [
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a" * (LENGTH - 100 - 64 * (number % 2))}]}
        for number in range(4 * rows)
    ]
    return files.validate(
        {
            "name": "bench",
            "model": {"name": str(folder)},
            "data": {"source": str(write_rows(folder.with_suffix(".jsonl"), samples)), "validation": 0},
            "prompt": {"template": "chatml", "max_length": LENGTH},
            "method": {"dropout": 0.0, **METHODS[method]},
            "train": {"max_steps": 1000, "effective_batch": rows, "micro_batch": rows, "activation_checkpointing": True, "packing": False},
            "evaluate": {"every": "never"},
            "checkpoints": {"every": 1000},
        }
    )


def forecast_of(recipe: Any, machine: Any) -> tuple[Any, dict[Any, Any]]:
    """The model's structure, and the traced forecast of the recipe's own setup."""
    from tui_ft.planning import forecasts, model_facts, planner

    facts = model_facts.facts(recipe.model)
    setup = planner.setups_wanted(recipe, facts=facts, hardware=machine)[0]
    known = forecasts.known(recipe.model, facts, [setup])
    return facts, known or forecasts.trace(recipe.model, [setup])


def suggestion(recipe: Any, facts: Any, fits: dict[Any, Any], machine: Any) -> int | None:
    """The most rows whose plan fits: the planner's own judgement, row by row, without its wish to divide an effective batch."""
    low, high = 0, 4096
    while high - low > 1:
        rows = (low + high) // 2
        low, high = (rows, high) if plan_of(recipe, facts, fits, machine, rows).fits else (low, rows)
    return low or None


def plan_of(recipe: Any, facts: Any, fits: dict[Any, Any], machine: Any, rows: int) -> Any:
    from tui_ft.planning import planner

    train = recipe.train.model_copy(update={"micro_batch": rows, "effective_batch": rows})
    return planner.make_plan(recipe.model_copy(update={"train": train}), facts=facts, hardware=machine, forecasts=fits)


def run_once(recipe: Any, facts: Any, fits: dict[Any, Any], machine: Any, allocator: str) -> dict[str, Any]:
    """A run of the real worker, stopped after a few steps; what it measured beside the forecast for the largest batch that it saw."""
    from tui_ft.planning.forecast import Setup
    from tui_ft.runs import store
    from tui_ft.runs.commands import Command, send

    plan = plan_of(recipe, facts, fits, machine, recipe.train.micro_batch)
    if plan.fits is False and plan.memory.total_bytes - plan.memory.overhead > machine.gpus[0].total_bytes:
        return {"outcome": "too large", "predicted": plan.memory.total_bytes - plan.memory.overhead}
    run = store.create(recipe, plan)
    environment = {**os.environ, "PYTORCH_ALLOC_CONF": ALLOCATORS[allocator], "HF_HUB_OFFLINE": "1"}
    with (run.logs / "bench.log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-m", "tui_ft.worker", str(run.path), "1"], env=environment, stdout=log, stderr=log)
        deadline, asked = time.monotonic() + SECONDS, False
        while worker.poll() is None and time.monotonic() < deadline:
            if not asked and _steps(run) >= STEPS:
                send(run, Command(name="stop", args={"now": True}, attempt=1))
                asked = True
            time.sleep(0.2)
        if worker.poll() is None:
            worker.kill()
            worker.wait()
    told = read(run.path / "measured.json").get("attempts", [{}])[0]
    if not told.get("setup") or told["outcome"] not in ("stopped", "out-of-memory"):
        return {"outcome": told.get("outcome", "failed"), "why": (run.logs / "bench.log").read_text(errors="replace")[-300:]}
    rows, length = told["largest_rows"] or told["rows"], told["largest_length"] or told["length"]
    predicted = fits[Setup.model_validate(told["setup"])].memory(rows, length, told["rank"] or 0).total_bytes
    measured = {name: told[f"{name}_bytes"] for name in ("allocated", "reserved", "process")}
    error = predicted / measured["allocated"] - 1 if told["outcome"] == "stopped" and measured["allocated"] else None
    run.delete()
    return {"outcome": told["outcome"], "rows": rows, "length": length, "predicted": predicted, **measured, "error": error}


def _steps(run: Any) -> int:
    from tui_ft.runs.events import EventReader

    return max((event["step"] for event in EventReader(run).poll() if event["type"] == "step"), default=0)


# --- without a GPU -------------------------------------------------------------------------------------------------


def on_cpu(work: Path, rows: list[dict[str, Any]], options: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """Our trainer on small models of each family, its allocations counted by torch's profiler, against forecasts from shallower models."""
    import pytest
    import test_memory_trace as cases

    from tui_ft.modeling import inventory
    from tui_ft.modeling.trace.fit import fit
    from tui_ft.planning.forecast import Fit

    done = {row["model"] for row in rows}
    with pytest.MonkeyPatch.context() as patch:
        bench = cases.Bench(work, patch)
        for name, (family, method, plan, count, length) in {**cases.ALWAYS, **cases.MORE}.items():
            if name in done or options.only not in name or time.monotonic() > deadline:
                continue
            folder = bench.model(family, cases.LAYERS)
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                step = bench.train(folder, method, plan, count, length)
            setup, rank = cases.setup_of(method, plan)
            told = Fit.model_validate(fit(inventory.read_config(str(folder)), setup)).memory(step.rows, step.length, rank)
            error = told.total_bytes / step.bytes - 1
            row = {"model": name, "rows": step.rows, "length": step.length, "predicted": told.total_bytes, "allocated": step.bytes, "error": error}
            rows.append(row)
            print(line_of(row), flush=True)
    return rows


# --- what it comes to ----------------------------------------------------------------------------------------------


def line_of(row: dict[str, Any]) -> str:
    name = " ".join(str(row[key]) for key in ("model", "method", "allocator", "what") if key in row)
    if row.get("error") is None:
        return f"{name}: {row.get('outcome')} {row.get('why', '')}"
    more = f", suggested {row['suggested']} of {row['most']} that work" if "suggested" in row else ""
    batch = f"{row['rows']} × {row['length']}"
    return f"{name}: {batch}, forecast {mib(row['predicted'])}, measured {mib(row['allocated'])}: {row['error']:+.2%}{more}"


def mib(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"


def judge(kept: dict[str, Any], docs: Path) -> int:
    """Say how far off the forecasts are, write the table into the page, and give 1 beyond the goals."""
    table, reached = ["| where | points | mean error | worst | goal |", "|---|---|---|---|---|"], True
    for where, rows, goal in (("a GPU, against allocated bytes", kept.get("gpu", []), WORST_GOAL), ("the CPU", kept.get("cpu", []), CPU_GOAL)):
        errors = [row["error"] for row in rows if row.get("error") is not None]
        if not errors:
            table.append(f"| {where} | 0 | not measured yet | | ≤ {goal:.0%} |")
            continue
        worst, mean = max(errors, key=abs), sum(map(abs, errors)) / len(errors)
        table.append(f"| {where} | {len(errors)} | {mean:.2%} | {worst:+.2%} | ≤ {goal:.0%} |")
        print(f"{where}: {len(errors)} points, mean error {mean:.2%}, worst {worst:+.2%} (goal {goal:.0%})")
        reached = reached and abs(worst) <= goal
    shares = [row for row in kept.get("gpu", []) if "suggested" in row]
    if shares:
        out = [row for row in shares if row["outcome"] == "out-of-memory"]
        least = min(row["share"] for row in shares)
        print(f"suggestions: {len(shares)}, {len(out)} ran out of memory (goal 0), the smallest is {least:.0%} of what works (goal {SHARE_GOAL:.0%})")
        table += [
            "",
            f"Of {len(shares)} suggested micro-batches {len(out)} ran out of memory; the smallest was {least:.0%} of the largest that works.",
        ]
        reached = reached and not out and least >= SHARE_GOAL
    held = [row["reserved"] / row["allocated"] for row in kept.get("gpu", []) if row.get("reserved") and row.get("allocated")]
    if held:
        table += ["", f"The allocator held {min(held):.2f} to {max(held):.2f} times what its tensors took."]
    if docs.exists():
        page = docs.read_text(encoding="utf-8")
        told = f"{START}\n{kept['date']}, {kept['machine']}\n\n" + "\n".join(table) + f"\n{END}"
        docs.write_text(re.sub(f"{START}.*{END}", lambda _: told, page, flags=re.DOTALL), encoding="utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
