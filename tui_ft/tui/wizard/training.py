"""Step 6: how long, how fast, on what; with who holds the GPUs now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui_ft import units
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.wizard.alternatives import Alternatives
from tui_ft.tui.wizard.step import Step

if TYPE_CHECKING:
    from tui_ft.hardware import GpuReading, Hardware

GROUPS: dict[str, tuple[str, ...]] = {
    "Length": ("train.epochs", "train.max_steps"),
    "Batch": ("train.effective_batch", "train.micro_batch", "train.packing", "train.length_grouped", "train.activation_checkpointing"),
    "Optimizer": (
        "train.learning_rate",
        "train.schedule",
        "train.warmup",
        "train.optimizer",
        "train.weight_decay",
        "train.max_grad_norm",
        "train.precision",
        "train.seed",
    ),
    "Evaluation": ("evaluate.every", "evaluate.early_stopping", "evaluate.samples"),
    "Checkpoints": ("checkpoints.every", "checkpoints.keep", "checkpoints.zip"),
    "Machine": ("hardware.gpus", "hardware.memory_limit"),
    "Log and result": ("log.every", "log.trackers", "output.dir", "output.push_to_hub", "output.merge"),
}
_EMPTY = {
    "train.max_steps": "epochs decide",
    "evaluate.early_stopping": "off; 2 stops after two evaluations without improvement",
    "evaluate.samples": "none; write prompts with | between them",
    "hardware.memory_limit": "none; or 6GB",
    "log.trackers": "none; tensorboard, wandb, mlflow",
    "output.dir": "the run's own folder only",
    "output.push_to_hub": "nowhere",
}


class TrainingStep(Step):
    TITLE = "Training"
    LEAD = "Length, batch and learning rate matter most; the rest has usual values."
    KEYS = ("train", "evaluate", "checkpoints", "hardware", "log", "output")

    def compose(self) -> ComposeResult:
        for title, group in GROUPS.items():
            yield Static(title, classes="group" if title != "Length" else "group -first")
            for key in group:
                yield self.field(key, _EMPTY.get(key, ""))
            if title == "Batch":
                yield Static("", id="training-batch", classes="found", markup=False)
                yield Alternatives()
            if title == "Machine":
                yield Static("", id="training-gpus", classes="found", markup=False)

    def irrelevant(self) -> set[str]:
        return set() if self.draft.value("method.kind") == "lora" else {"output.merge"}

    def show(self) -> None:
        plan = self.backstage.plan.value
        if plan:
            shown = Content.assemble(
                ("a step is " if plan.packing else "micro-batch ", MUTED),
                (plan.batch_words, "bold"),
                content(f"  {plan.reasons.get('micro_batch', '')}", MUTED),
            )
            self.query_one("#training-batch", Static).update(shown)
        if self.backstage.hardware:
            self.query_one("#training-gpus", Static).update(machine_content(self.backstage.hardware))


def machine_content(found: Hardware) -> Content:
    if not found.gpus:
        return Content.assemble(
            ("CPU mode  ", "bold"), content(f"{found.note}\n{found.cpus} processors, {units.size(found.ram_free)} of memory free", MUTED)
        )
    return Content("\n").join([_gpu(gpu) for gpu in found.gpus])


def _gpu(gpu: GpuReading) -> Content:
    """One GPU, and who holds its memory."""
    busy = f", {gpu.utilisation} % busy" if gpu.utilisation is not None else ""
    lines = [
        Content.assemble(
            (f"{gpu.index}  ", "bold"), line(gpu.name, style="bold"), f"  {units.size(gpu.free_bytes)} free of {units.size(gpu.total_bytes)}{busy}"
        )
    ]
    for process in gpu.processes:
        who = " ".join(part for part in (process.user, process.name) if part) or "another process"
        lines.append(line(f"   {units.size(process.memory_bytes)} held by {who} ({process.pid})", style=MUTED))
    return Content("\n").join(lines)
