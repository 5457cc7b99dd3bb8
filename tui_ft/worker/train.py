"""One attempt from top to bottom: prepare the data, load the model, fit, finish."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, pack_dataset

from tui_ft.data import prepare as data
from tui_ft.data import tokenizer as tokenizers
from tui_ft.errors import TuiFtError
from tui_ft.hub.download import download
from tui_ft.hub.network import go_offline
from tui_ft.modeling import adapters, load
from tui_ft.recipe import Plan, Recipe
from tui_ft.recipe.schema import parse_bytes
from tui_ft.runs import checkpoints
from tui_ft.runs.store import Run, read_json
from tui_ft.worker.conductor import Conductor
from tui_ft.worker.finish import finish
from tui_ft.worker.inbox import Inbox, StopNow
from tui_ft.worker.journal import Journal
from tui_ft.worker.starting import starting_point
from tui_ft.worker.trainer import Trainer


@dataclass
class Samples:
    """The prepared rows and what they mean for the plan."""

    train: Any
    validation: Any
    stop_token_ids: list[int]
    fingerprint: str
    tokens: int
    """Tokens of all training samples."""
    singles: int
    """Training samples before packing."""
    packed: bool = False


def train(run: Run, plan: Plan, journal: Journal, inbox: Inbox) -> tuple[str, str]:
    """Run one attempt to its end; (outcome, reason).

    Raises:
        StopNow: it was told to leave at once.
        TuiFtError: whatever a person can mend.
    """
    recipe = run.recipe()
    checkpoint = starting_point(run, plan, journal)
    torch.manual_seed(recipe.train.seed)
    _download(run, recipe, journal, inbox)
    tokenizer = tokenizers.load(recipe.model, recipe.prompt)
    samples = _prepare(recipe, plan, tokenizer, journal, inbox)
    _same_data(samples, checkpoint)
    model, samples = _load(run, recipe, plan, tokenizer, samples, journal, inbox)
    plan = _resolve(run, recipe, plan, samples, model, journal)
    steps_per_epoch = _steps_per_epoch(len(samples.train), plan)
    conductor = Conductor(run, recipe, journal, inbox, steps_per_epoch, samples.validation is not None)
    journal.history.clear()  # hundreds of megabytes after 100 000 steps, and nobody needs it from here on
    trainer = Trainer(
        model=model,
        args=_arguments(run, recipe, plan, samples),
        train_dataset=samples.train,
        eval_dataset=samples.validation,
        processing_class=tokenizer,
        run=run,
        recipe=recipe,
        journal=journal,
        conductor=conductor,
        data_fingerprint=samples.fingerprint,
    )
    if checkpoint and journal.progress.step >= conductor.last_step(plan.steps or 0):
        trainer.take_back(checkpoint, journal.progress.step)  # every step is done, only the final model is missing; the library would train one more
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if conductor.outcome == "finished":
        finish(run, recipe, trainer, tokenizer, samples.stop_token_ids, conductor.best_step())
    return conductor.outcome, conductor.reason or _done(trainer)


def _done(trainer: Trainer) -> str:
    return f"all {trainer.state.global_step} steps are done"


def _download(run: Run, recipe: Recipe, journal: Journal, inbox: Inbox) -> None:
    def on_progress(done: int, total: int) -> None:
        journal.stage("download", done, total)
        _leave_if_told(inbox)

    download(recipe.model, on_progress, run.record().get("trust_remote_code"))


def _prepare(recipe: Recipe, plan: Plan, tokenizer: Any, journal: Journal, inbox: Inbox) -> Samples:
    def on_progress(stage: str, done: int, total: int | None) -> None:
        journal.stage(stage, done, total)
        _leave_if_told(inbox)

    prepared = data.prepare(recipe, tokenizer, on_progress)
    report = prepared.report
    for finding in report.findings:
        journal.alert("data", "warning", finding.message, finding.hint)
    return Samples(prepared.train, prepared.validation, prepared.stop_token_ids, prepared.fingerprint, report.tokens, report.train_samples)


def _leave_if_told(inbox: Inbox) -> None:
    """Before the first step there is nothing to save: every wish to stop or free the memory ends the attempt at once."""
    inbox.poll()
    leaving = [command for command in inbox.waiting if command.name == "stop" or (command.name == "pause" and command.args.get("free_gpu"))]
    for command in leaving:
        inbox.tell(command, "effected", "stopped before the first step")
        inbox.waiting.remove(command)
    if leaving or inbox.terminated:
        raise StopNow("stopped before the first step of this attempt")


def _same_data(samples: Samples, checkpoint: Path | None) -> None:
    """A resume on other rows would be another run.

    Raises:
        TuiFtError: the rows are not those the checkpoint was trained on.
    """
    before = read_json(checkpoint / checkpoints.MANIFEST).get("data") if checkpoint else None
    if before and before != samples.fingerprint:
        raise TuiFtError("the dataset has changed since this run began", "Restore it (data.source), or start a new run with `tui-ft run`.")


def _load(run: Run, recipe: Recipe, plan: Plan, tokenizer: Any, samples: Samples, journal: Journal, inbox: Inbox) -> tuple[Any, Samples]:
    """The model, trainable as the method says, and the samples, packed if the model keeps packed documents apart."""
    journal.stage("load")
    _limit_memory(recipe)
    method = recipe.method
    model = load.load_model(
        recipe.model,
        precision=plan.precision,
        quantization=method.quantization,
        double_quantization=method.double_quantization,
        attention=plan.attention,
        vocabulary=len(tokenizer),
        vocabulary_multiple=1 if method.kind == "lora" else load.VOCABULARY_MULTIPLE,
        consent=run.record().get("trust_remote_code"),
    )
    model.generation_config.eos_token_id = samples.stop_token_ids  # so that a checkpoint, too, can be talked to
    go_offline()  # so that an outage of the Hub cannot stop a save
    _leave_if_told(inbox)
    if plan.packing:
        if adapters.is_leaking(model, len(tokenizer)):
            cause = "packed documents would read one another in this model: it does not pass position ids to its attention"
            journal.alert("packing", "warning", cause, "Samples are padded instead of packed.")
        else:
            samples = _pack(samples, recipe.prompt.max_length)
    new_tokens = _added_markers(tokenizer) if recipe.prompt.add_tokens else []
    return adapters.make_trainable(model, method, new_tokens, checkpointing=bool(plan.activation_checkpointing)), samples


def _limit_memory(recipe: Recipe) -> None:
    """Hold the process to the limit per GPU: beyond it an allocation fails, as on a smaller card."""
    if recipe.hardware.memory_limit and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, parse_bytes(recipe.hardware.memory_limit) / total))


def _pack(samples: Samples, length: int) -> Samples:
    return replace(samples, train=pack_dataset(samples.train, length, "bfd"), packed=True)


def _resolve(run: Run, recipe: Recipe, plan: Plan, samples: Samples, model: Any, journal: Journal) -> Plan:
    """The plan with what only the rows and the real model could tell; written into the run and told."""
    everything, trainable = adapters.parameter_counts(model)
    changes: dict[str, Any] = {"parameters": everything, "trainable_parameters": trainable, "packing": samples.packed}
    if samples.packed:
        rows = max(1, round(plan.effective_batch * len(samples.train) / samples.singles))
        changes |= {"micro_batch": 1, "accumulation": rows}
        reason = f"{rows} packed rows of micro-batch 1 hold the mean tokens of {plan.effective_batch} single samples"
        changes["reasons"] = {**plan.reasons, "micro_batch": reason}
    plan = plan.model_copy(update=changes)
    steps = recipe.train.max_steps or math.ceil(recipe.train.epochs * _steps_per_epoch(len(samples.train), plan))
    per_step = round(samples.tokens / len(samples.train) * plan.micro_batch * plan.accumulation)
    plan = plan.model_copy(update={"steps": steps, "tokens_per_step": per_step})
    run.write_plan(journal.attempt, plan)
    journal.tell("plan", **plan.model_dump(mode="json"))
    print(f"trainable parameters: {trainable:,} of {everything:,} ({trainable / max(1, everything):.2%})", flush=True)
    return plan


def _steps_per_epoch(rows: int, plan: Plan) -> int:
    return max(1, math.ceil(math.ceil(rows / plan.micro_batch) / plan.accumulation))


def _added_markers(tokenizer: Any) -> list[int]:
    return sorted(index for token, index in tokenizer.get_added_vocab().items() if token in tokenizer.chat_template)


def _arguments(run: Run, recipe: Recipe, plan: Plan, samples: Samples) -> SFTConfig:
    """The library's arguments. Evaluation and saving are `no` there: the conductor decides them."""
    settings = recipe.train
    recompute = plan.activation_checkpointing
    return SFTConfig(
        output_dir=str(run.checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=plan.micro_batch,
        per_device_eval_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        optim=plan.optimizer,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=plan.precision == "bf16",
        fp16=plan.precision == "fp16",
        tf32=True if torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8 else None,
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=bool(recompute) and recompute != "offload",
        activation_checkpointing_kwargs=_recompute_kwargs(recompute),
        activation_offloading=recompute == "offload",
        padding_free=samples.packed,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to=list(recipe.log.trackers) or "none",
        run_name=run.id,
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _recompute_kwargs(recompute: bool | int | str) -> dict[str, Any] | None:
    if recompute is False or recompute == "offload":
        return None
    every = {"every_n_layers": int(recompute)} if recompute is not True and int(recompute) > 1 else {}
    return {"use_reentrant": False, **every}
