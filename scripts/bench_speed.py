"""Our training against plain trl, on the same rows, model and real tokens a step, in one call.

Each arm trains one epoch of the same samples in a process of its own; the arms take turns, forwards and backwards. A speed counts only if
every real token was trained on once, and if the epoch's mean loss is that of the plain padded training. Prints real tokens a second and the
paired ratios, writes them as JSON, and ends with 1 below the goals.

    python scripts/bench_speed.py [--texts FILE.jsonl] [--tokenizer FOLDER] [--rows 320] [--pairs 5] [--arms …] [--out docs/bench/speed.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

NAIVE_GOAL = 2.4
"""Times the real tokens a second of a script that pads every sample to the maximum."""
BEST_GOAL = 1.0
"""Times those of the fastest of trl's own ways."""
LOSS_TOLERANCE = 0.03
"""Of the epoch's mean loss, for orders that differ: the model changes while it is measured."""
LENGTH = 512
BATCH, PASS = 16, 4
"""Samples an optimizer step, and in one pass of trl's arms."""
RATE = 5e-4
SIZES = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4, "max_position_embeddings": LENGTH}
NAIVE, REFERENCE, LORA_REFERENCE = "trl, padded to the maximum", "trl, padded", "trl, LoRA, padded"
LORA = {"kind": "lora", "r": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}


@dataclass(frozen=True)
class Arm:
    """One way to train the samples."""

    train: dict[str, Any] = field(default_factory=dict)
    """What the recipe's section train says besides; for trl's arms, what its arguments say besides. Empty: the planner's own choice."""
    method: dict[str, Any] = field(default_factory=lambda: {"kind": "full"})
    plan: dict[str, Any] = field(default_factory=dict)
    """Values of the plan that are not the planner's: one lever less."""
    environment: dict[str, str] = field(default_factory=dict)
    reference: str = REFERENCE
    """The arm whose tokens and loss this one must have."""


OURS = {
    "ours": Arm(),
    "ours, padded": Arm({"packing": False, "length_grouped": False}),
    "ours, like lengths": Arm({"packing": False, "length_grouped": True}),
    "ours, packed": Arm({"packing": True, "length_grouped": False}),
    "ours, threads that spin": Arm(environment={"OMP_WAIT_POLICY": "ACTIVE"}),
    "ours, LoRA": Arm(method=LORA, reference=LORA_REFERENCE),
    "ours, LoRA not fused": Arm(method=LORA, plan={"fused_lora": False}, reference=LORA_REFERENCE),
}
PACKED = {"padding_free": True, "per_device_train_batch_size": 1}
TRLS = {
    NAIVE: Arm(),
    REFERENCE: Arm(),
    "trl, like lengths": Arm({"train_sampling_strategy": "group_by_length"}),
    "trl, packed": Arm(PACKED),
    LORA_REFERENCE: Arm(method=LORA, reference=LORA_REFERENCE),
    "trl, LoRA, packed": Arm(PACKED, method=LORA, reference=LORA_REFERENCE),
}
ARMS = {**OURS, **TRLS}
OUR_OWN = {REFERENCE: "ours", LORA_REFERENCE: "ours, LoRA"}
"""What an arm is compared with, by its reference."""
START, END = "<!-- bench-speed -->", "<!-- /bench-speed -->"
"""What stands between them in docs/speed.md is written here."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="JSON lines with a column `text`; made up if not given")
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer files (the demo's)")
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--arms", nargs="*", help="only these, besides ours and the two that goals speak of")
    parser.add_argument("--out", type=Path, default=Path("docs/bench/speed.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs/speed.md"))
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(train_ours(options.work, options.arm) if options.arm in OURS else train_trl(options.work, options.arm)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options)
        return compare(work, options)


def prepare(work: Path, options: argparse.Namespace) -> None:
    """The rows, the model and its tokenizer: the same files for every arm."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from tui_ft import demo

    chance = random.Random(0)
    if options.texts:
        texts = [json.loads(line)["text"] for line in options.texts.open(encoding="utf-8")]
        chance.shuffle(texts)
    else:
        words = ["data", "model", "learns", "the", "a", "token", "is", "small", "and", "fast", "of", "many"]
        texts = [" ".join(chance.choices(words, k=int(chance.lognormvariate(4.6, 1.0)) + 3)) for _ in range(options.rows)]
    (work / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[: options.rows]), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(str(options.tokenizer or demo.model_folder()))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **SIZES))
    model.save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")


def recipe_of(work: Path, arm: Arm) -> dict[str, Any]:
    return {
        "name": "speed",
        "model": {"name": str(work / "model")},
        "data": {"source": str(work / "texts.jsonl"), "format": "text", "validation": 0},
        "prompt": {"template": "text", "max_length": LENGTH},
        "method": arm.method,
        "train": {"epochs": 1, "effective_batch": BATCH, "learning_rate": RATE, "schedule": "constant", "warmup": 0, **arm.train},
        "evaluate": {"every": "never"},
        "checkpoints": {"every": 100_000},
    }


def train_ours(work: Path, arm: str) -> dict[str, Any]:
    """A real attempt in this process, as the supervisor starts one; its events tell tokens and speed."""
    from tui_ft.planning import data_facts, model_facts
    from tui_ft.planning.planner import make_plan
    from tui_ft.recipe.files import validate
    from tui_ft.runs import store
    from tui_ft.runs.events import EventReader
    from tui_ft.worker import __main__ as worker

    recipe = validate(recipe_of(work, OURS[arm]))
    plan = make_plan(recipe, facts=model_facts.facts(recipe.model), data=data_facts.look(recipe)).model_copy(update=OURS[arm].plan)
    run = store.create(recipe, plan)
    told, sys.stdout = sys.stdout, sys.stderr
    sys.argv = ["worker", str(run.path), "1"]
    worker.main()
    sys.stdout = told
    steps = [event for event in EventReader(run).poll() if event["type"] == "step"]
    made = run.plan()
    fused = ", fused LoRA" if made.fused_lora else ""
    how = f"packed, {made.attention}" if made.packing else "like lengths" if made.length_grouped else "padded"
    return {"how": how + fused, **summary([(datetime.fromisoformat(step["t"]).timestamp(), step["tokens"], step["loss"]) for step in steps])}


def summary(steps: list[tuple[float, int, float]]) -> dict[str, Any]:
    """Of (time of its end, tokens up to here, loss) of each step. The first warms up: its tokens count for the loss alone."""
    times, tokens, losses = zip(*steps, strict=True)
    each = [now - before for now, before in zip(tokens, (0, *tokens), strict=False)]
    loss = sum(count * loss for count, loss in zip(each, losses, strict=True)) / tokens[-1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens": tokens[-1], "speed": (tokens[-1] - tokens[0]) / (times[-1] - times[0]), "loss": loss, "steps": len(steps), "peak": peak}


def train_trl(work: Path, arm: str) -> dict[str, Any]:
    """The library's own trainer, with the real tokens of each batch counted beside it."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer, pack_dataset

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = [json.loads(line)["text"] for line in (work / "texts.jsonl").open(encoding="utf-8")]
    ids = [tokenizer(text, truncation=True, max_length=LENGTH - 1)["input_ids"] + [tokenizer.eos_token_id] for text in rows]
    samples = Dataset.from_dict({"input_ids": ids, "labels": ids})
    settings = {"per_device_train_batch_size": PASS, **TRLS[arm].train}
    accumulation = BATCH // PASS
    if settings.get("padding_free"):
        samples = pack_dataset(samples, LENGTH, "bfd")
        accumulation = max(1, round(BATCH * len(samples) / len(ids)))
    if arm == NAIVE:
        settings["pad_to_multiple_of"] = LENGTH
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
    told: list[tuple[float, int, float]] = []

    class Losses(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                told.append((time.perf_counter(), counted[0], logs["loss"]))

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            counted[0] += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()
            return super().training_step(model, inputs, *args, **kwargs)

    counted = [0]
    trainer = Counting(
        model=model,
        peft_config=_lora(TRLS[arm].method),
        train_dataset=samples,
        processing_class=tokenizer,
        callbacks=[Losses()],
        args=SFTConfig(
            output_dir=str(work / "trl"), num_train_epochs=1, gradient_accumulation_steps=accumulation, learning_rate=RATE,
            lr_scheduler_type="constant", warmup_steps=0, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            bf16=False, activation_checkpointing=False, optim="adamw_torch", max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
            seed=42, **settings,
        ),
    )  # fmt: skip
    trainer.train()
    return {"how": arm.removeprefix("trl, "), **summary(told)}


def _lora(method: dict[str, Any]) -> Any:
    from peft import LoraConfig

    named = {"r": method["r"], "lora_alpha": method["alpha"], "lora_dropout": method["dropout"]} if method["kind"] == "lora" else None
    return LoraConfig(**named, target_modules=method["targets"], task_type="CAUSAL_LM") if named else None


def compare(work: Path, options: argparse.Namespace) -> int:
    asked = {arm for arm in (*OURS, *TRLS) if options.arms is None or arm in options.arms}
    needed = {"ours", NAIVE, REFERENCE, *(ARMS[arm].reference for arm in asked), *(OUR_OWN[ARMS[arm].reference] for arm in asked)}
    arms = [arm for arm in ARMS if arm in asked | needed]
    rounds = []
    for number in range(options.pairs):
        turn = {arm: run(arm, work) for arm in (arms if number % 2 == 0 else reversed(arms))}
        void = reasons_against(turn)
        if void:
            print("\n".join(void), file=sys.stderr)
            return 1
        rounds.append(turn)
        told = (f"{arm} {turn[arm]['speed']:,.0f}" for arm in arms)
        print(f"round {number + 1}, real tokens/s: {', '.join(told)}", flush=True)
    speeds = {arm: [turn[arm]["speed"] for turn in rounds] for arm in arms}
    bases = {arm: OUR_OWN[ARMS[arm].reference] for arm in arms}
    ratios = {arm: [ours / its for ours, its in zip(speeds[base], speeds[arm], strict=True)] for arm, base in bases.items() if arm != base}
    best = max((arm for arm in arms if arm in TRLS and ARMS[arm].reference == REFERENCE), key=lambda arm: statistics.median(speeds[arm]))
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "tui-ft")},
        "rows": options.rows,
        "tokens": rounds[0]["ours"]["tokens"],
        "ours": rounds[0]["ours"]["how"],
        "fastest_of_trl": best,
        "arms": {
            arm: {
                "tokens_per_second": statistics.median(speeds[arm]),
                "spread": [min(speeds[arm]), max(speeds[arm])],
                "loss": statistics.median(turn[arm]["loss"] for turn in rounds),
                "peak_bytes": statistics.median(turn[arm]["peak"] for turn in rounds),
                "how": rounds[0][arm]["how"],
                **({"ours_over_it": statistics.median(ratios[arm]), "ratio_spread": [min(ratios[arm]), max(ratios[arm])]} if arm in ratios else {}),
            }
            for arm in arms
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.docs.exists():
        page = options.docs.read_text(encoding="utf-8")
        told = f"{START}\n{table(figures)}\n{END}"
        options.docs.write_text(re.sub(f"{START}.*{END}", lambda _: told, page, flags=re.DOTALL), encoding="utf-8")
    return verdict(figures)


def reasons_against(turn: dict[str, dict[str, Any]]) -> list[str]:
    """What voids the speeds of a round."""
    found = []
    for arm, told in turn.items():
        reference = turn[ARMS[arm].reference]
        if told["tokens"] != reference["tokens"]:
            found.append(f"{arm} trained on {told['tokens']:,} tokens, the reference on {reference['tokens']:,}")
        if abs(told["loss"] / reference["loss"] - 1) > LOSS_TOLERANCE:
            found.append(f"{arm} has a mean loss of {told['loss']:.4f}, the reference {reference['loss']:.4f}")
    return found


def table(figures: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    lines = [
        f"{figures['date']}, {figures['hardware']}, {libraries}.",
        f"{figures['rows']} samples, {figures['tokens']:,} real tokens; ours: {figures['ours']}.",
        "",
        "| arm | real tokens/s | most memory | ours over it | spread |",
        "|---|---|---|---|---|",
    ]
    for arm, told in figures["arms"].items():
        low, high = told.get("ratio_spread", (1, 1))
        ratio = f"{told['ours_over_it']:.2f} | {low:.2f} to {high:.2f}" if "ours_over_it" in told else " | "
        lines.append(f"| {arm} | {told['tokens_per_second']:,.0f} | {told['peak_bytes'] / 2**30:.1f} GiB | {ratio} |")
    return "\n".join(lines)


def verdict(figures: dict[str, Any]) -> int:
    arms = figures["arms"]
    print(f"\n{'arm':<28} {'tokens/s':>10} {'ours over it':>13}   (of {figures['tokens']:,} real tokens; ours: {figures['ours']})")
    for arm, told in arms.items():
        low, high = told.get("ratio_spread", (1, 1))
        ratio = f"{told['ours_over_it']:>13.2f}   {low:.2f} to {high:.2f}" if "ours_over_it" in told else ""
        print(f"{arm:<28} {told['tokens_per_second']:>10,.0f} {ratio}")
    naive, best = arms[NAIVE]["ours_over_it"], arms[figures["fastest_of_trl"]]["ours_over_it"]
    reached = naive >= NAIVE_GOAL and best >= BEST_GOAL
    print(f"\nours is {naive:.2f} times the naive script (goal {NAIVE_GOAL}),")
    print(f"and {best:.2f} times trl's fastest, {figures['fastest_of_trl']} (goal {BEST_GOAL})")
    return 0 if reached else 1


def run(arm: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--arm", arm, "--work", str(work)]
    environment = {**os.environ, "TUI_FT_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= ARMS[arm].environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


if __name__ == "__main__":
    sys.exit(main())
