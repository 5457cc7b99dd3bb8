"""Our preparation of chats against trl's own, on the same rows in the same call, and the speed of language detection.

Each arm runs in a process of its own, in turn (ours, trl, trl, ours, …), and times only the preparation: from the rows on disk to token ids
and labels on disk. Both must give the same tokens and labels. Prints the ratios, writes them as JSON, and ends with 1 below the goal.

    python scripts/bench_data.py [--chats 20000] [--pairs 3] [--tokenizer FOLDER] [--out docs/bench/data.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

GOAL = 1.5
LANGUAGE_GOAL = 52_000 / 60
"""Texts a second: the size of a well-known instruction dataset in a minute."""
PREVIEW_GOAL = 2.0
MEMORY_GOAL = 1_000_000_000
TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}"
    "{%- else -%}{{- message['content'] + '<|im_end|>\\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML with the marks that trl's mask needs; ours needs none."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chats", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer files (the demo's)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large file that is previewed and prepared; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("docs/bench/data.json"))
    parser.add_argument("--arm", choices=("ours", "trl", "languages", "preview", "large"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps({"ours": ours, "trl": trls, "languages": languages, "preview": preview, "large": large}[options.arm](options.work)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_chats(work / "chats.jsonl", options.chats)
        tokenizer_folder(work / "tokenizer", options.tokenizer)
        return compare(work, options)


def compare(work: Path, options: argparse.Namespace) -> int:
    pairs = []
    for number in range(options.pairs):
        arms = ("ours", "trl") if number % 2 == 0 else ("trl", "ours")
        pair = {arm: run(arm, work) for arm in arms}
        if pair["ours"]["digest"] != pair["trl"]["digest"]:
            print("the arms made different samples: the comparison is void", file=sys.stderr)
            return 1
        pairs.append(pair)
        print(f"pair {number + 1}: " + ", ".join(f"{arm} {told['cpu_seconds']:.1f} CPU-s {told['seconds']:.1f} s" for arm, told in pair.items()))
    ratios = {unit: [pair["trl"][unit] / pair["ours"][unit] for pair in pairs] for unit in ("cpu_seconds", "seconds")}
    detection = run("languages", work)
    many = {"rows": options.rows}
    if options.rows:
        write_large(work / "chats.jsonl", options.rows)
        many |= run("preview", work) | run("large", work)
    figures = {
        "chats": options.chats,
        "tokens": pairs[0]["ours"]["tokens"],
        "ratio_cpu": statistics.median(ratios["cpu_seconds"]),
        "ratio_wall": statistics.median(ratios["seconds"]),
        "ratios_cpu": ratios["cpu_seconds"],
        "ratios_wall": ratios["seconds"],
        "goal": GOAL,
        "pairs": pairs,
        "languages": {**detection, "goal_texts_per_second": LANGUAGE_GOAL},
        "large": many,
        "versions": {name: version(name) for name in ("tui-ft", "trl", "transformers", "tokenizers", "datasets", "py3langid")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"trl / ours: {figures['ratio_cpu']:.2f}× CPU time, {figures['ratio_wall']:.2f}× wall time (goal {GOAL}×, CPU time)")
    print(f"languages: {detection['texts_per_second']:,.0f} texts/s (goal {LANGUAGE_GOAL:,.0f})")
    small = True
    if options.rows:
        print(
            f"{options.rows:,} rows: preview of a sample {many['preview_cpu_seconds']:.2f} CPU-s after imports (goal {PREVIEW_GOAL:g}), "
            f"preparation {many['prepare_seconds']:.0f} s with {many['prepare_peak_bytes'] / 1e6:,.0f} MB (goal {MEMORY_GOAL / 1e6:,.0f})"
        )
        small = many["preview_cpu_seconds"] < PREVIEW_GOAL and many["prepare_peak_bytes"] < MEMORY_GOAL
    reached = small and figures["ratio_cpu"] >= GOAL and figures["ratio_wall"] >= GOAL and detection["texts_per_second"] >= LANGUAGE_GOAL
    return 0 if reached else 1


def run(arm: str, work: Path) -> dict[str, Any]:
    """One arm in a process and a home of its own, so that nothing prepared before is found."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TUI_FT_HOME": home, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--arm", arm, "--work", str(work)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def recipe_of(work: Path) -> Any:
    from tui_ft.recipe.files import validate

    return validate(
        {
            "model": {"name": str(work / "tokenizer")},
            "data": {"source": str(work / "chats.jsonl"), "validation": 0.0},
            "prompt": {"template": "model", "max_length": 1024},
        }
    )


def ours(work: Path) -> dict[str, Any]:
    from tui_ft.data import prepare, tokenizer

    recipe = recipe_of(work)
    loaded = tokenizer.load(recipe.model, recipe.prompt)
    import datasets  # noqa: F401 - imports are not part of the comparison
    import pyarrow.ipc  # noqa: F401

    clock = Clock()
    prepared = prepare.prepare(recipe, loaded)
    return clock.told(prepared.train)


def trls(work: Path) -> dict[str, Any]:
    import contextlib

    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    loaded = AutoTokenizer.from_pretrained(work / "tokenizer")
    clocks: list[Clock] = []

    class Timed(SFTTrainer):
        def _prepare_dataset(self, *arguments: Any, **named: Any) -> Any:
            clocks.append(Clock())
            rows = datasets.load_dataset("json", data_files=str(work / "chats.jsonl"), split="train")
            prepared = super()._prepare_dataset(rows, *arguments[1:], **named)
            clocks[0].stop()
            return prepared

    datasets.disable_progress_bars()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(loaded), **sizes))
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stdout(sys.stderr):
        arguments = SFTConfig(output_dir=output, max_length=1024, assistant_only_loss=True, report_to="none", use_cpu=True, bf16=False)
        one = datasets.Dataset.from_list([{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}])
        trainer = Timed(model=model, args=arguments, train_dataset=one, processing_class=loaded)
    return clocks[0].told(trainer.train_dataset)


def languages(work: Path) -> dict[str, Any]:
    """As a preparation does it: the whole conversation, its first 500 characters, on one core."""
    from tui_ft.data import language, reading
    from tui_ft.recipe.schema import Data

    conversations = list(reading.open_reading(Data(source=str(work / "chats.jsonl"))).conversations())
    texts = [language.text_of(conversation) for conversation in conversations]
    language.detect("warm")
    start = time.perf_counter()
    language.Detector().judge(texts)
    seconds = time.perf_counter() - start
    return {"texts": len(texts), "characters": statistics.mean(map(len, texts)), "texts_per_second": len(texts) / seconds}


def preview(work: Path) -> dict[str, Any]:
    """A sample of the large file, as the wizard first sees it."""
    import datasets  # noqa: F401 - imports are not part of it
    import transformers

    from tui_ft.data import preview as previews

    transformers.AutoTokenizer.from_pretrained(work / "tokenizer")  # its lazy imports neither
    clock = Clock()
    seen = previews.preview(recipe_of(work))
    clock.stop()
    assert seen.sampled and clock.end
    return {"preview_cpu_seconds": clock.end[0] - clock.start[0], "preview_seconds": clock.end[1] - clock.start[1], "sampled": seen.sampled}


def large(work: Path) -> dict[str, Any]:
    """All of the large file, prepared for training."""
    import resource

    from tui_ft.data import prepare, tokenizer

    recipe = recipe_of(work)
    loaded = tokenizer.load(recipe.model, recipe.prompt)
    clock, reports = Clock(), 0

    def told(stage: str, done: int, total: int | None) -> None:
        nonlocal reports
        reports += 1

    prepared = prepare.prepare(recipe, loaded, told)
    clock.stop()
    start = time.perf_counter()
    prepare.prepare(recipe, loaded)
    again = time.perf_counter() - start
    assert clock.end and reports
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = clock.end[1] - clock.start[1]
    told_of = {"samples": prepared.report.train_samples, "tokens": prepared.report.tokens, "progress_reports": reports}
    return {"prepare_seconds": seconds, "prepare_peak_bytes": peak, "second_start_seconds": again, **told_of}


class Clock:
    """CPU time of this process and its threads and children, and wall time."""

    def __init__(self) -> None:
        self.start = self._now()
        self.end: tuple[float, float] | None = None

    def _now(self) -> tuple[float, float]:
        times = os.times()
        return sum(times[:4]), time.perf_counter()

    def stop(self) -> None:
        self.end = self.end or self._now()

    def told(self, dataset: Any) -> dict[str, Any]:
        self.stop()
        assert self.end
        state, tokens = hashlib.sha256(), 0
        for row in dataset:
            state.update(json.dumps([row["input_ids"], row["labels"]]).encode())
            tokens += len(row["input_ids"])
        cpu, wall = (end - start for end, start in zip(self.end, self.start, strict=True))
        return {"cpu_seconds": cpu, "seconds": wall, "samples": len(dataset), "tokens": tokens, "digest": state.hexdigest()}


def write_chats(path: Path, count: int) -> None:
    """Chats of two to six turns, some two hundred tokens each on average, from the words of the demo's conversations; the same every time."""
    from tui_ft import demo

    rows = map(json.loads, demo.dataset_file().read_text(encoding="utf-8").splitlines())
    words = " ".join(str(row["text"]) for row in rows).split()
    draw = random.Random(7)

    def text(mean: int) -> str:
        size = max(2, int(draw.lognormvariate(0, 0.8) * mean))
        start = draw.randrange(len(words))
        return " ".join(words[(start + index * draw.choice((1, 1, 1, 7))) % len(words)] for index in range(size))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            turns = []
            for _ in range(draw.choice((1, 1, 1, 2, 2, 3))):
                turns += [{"role": "user", "content": text(20)}, {"role": "assistant", "content": text(60)}]
            file.write(json.dumps({"messages": turns}) + "\n")


def write_large(path: Path, count: int) -> None:
    """Short chats, each of its own."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            turns = [
                {"role": "user", "content": f"What follows {number}?"},
                {"role": "assistant", "content": f"{number + 1}, as everybody knows. " * 3},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")


def tokenizer_folder(target: Path, source: Path | None) -> None:
    """The tokenizer of both arms, with a template that marks the answers for trl."""
    from transformers import AutoTokenizer

    from tui_ft import demo

    loaded = AutoTokenizer.from_pretrained(source or demo.model_folder())
    loaded.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    loaded.chat_template = TEMPLATE
    loaded.save_pretrained(target)


if __name__ == "__main__":
    sys.exit(main())
