"""One attempt from top to bottom: prepare the data, load the model, fit, finish."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, pack_dataset

from tui_ft import demo
from tui_ft.data import prepare as data
from tui_ft.data import tokenizer as tokenizers
from tui_ft.data.sources import open_source
from tui_ft.hub.download import download
from tui_ft.hub.network import go_offline
from tui_ft.modeling import adapters, fused_lora, load, packing
from tui_ft.recipe import Plan, Recipe
from tui_ft.recipe.schema import parse_bytes
from tui_ft.runs import fingerprint
from tui_ft.runs.fingerprint import Difference
from tui_ft.runs.manifest import Manifest
from tui_ft.runs.store import Run
from tui_ft.worker.conductor import Conductor
from tui_ft.worker.finish import finish
from tui_ft.worker.inbox import Inbox, StopNow
from tui_ft.worker.journal import Journal
from tui_ft.worker.sampler import Order, lengths_of
from tui_ft.worker.starting import manifest_of, starting_point, tell_accepted
from tui_ft.worker.steering import Steering
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
    files: list[Path]
    """What they were read from, on this machine."""
    packed: bool = False


def train(run: Run, plan: Plan, journal: Journal, inbox: Inbox) -> tuple[str, str]:
    """Run one attempt to its end; (outcome, reason).

    Raises:
        StopNow: it was told to leave at once.
        TuiFtError: whatever a person can mend.
    """
    checkpoint = starting_point(run, plan, journal)
    before = manifest_of(checkpoint)
    recipe = _pinned(run.recipe(), before)
    torch.manual_seed(recipe.train.seed)
    snapshot = _download(run, recipe, journal, inbox)
    tokenizer = tokenizers.load(recipe.model, recipe.prompt)
    samples = _prepare(recipe, plan, tokenizer, journal, inbox)
    _same_data(run, plan, samples, before, journal)
    model, samples = _load(run, recipe, plan, tokenizer, samples, journal, inbox)
    steering = Steering(journal, plan)
    plan = _resolve(run, recipe, plan, samples, model, journal, steering)
    steps_per_epoch = _steps_per_epoch(len(samples.train), plan)
    conductor = Conductor(run, recipe, journal, inbox, steps_per_epoch, samples.validation is not None, steering)
    trainer = Trainer(
        model=model,
        args=_arguments(run, recipe, plan, samples, steering),
        train_dataset=samples.train,
        eval_dataset=samples.validation,
        processing_class=tokenizer,
        run=run,
        recipe=recipe,
        journal=journal,
        conductor=conductor,
        order=_order(recipe, plan, samples),
        fingerprint=_fingerprint(recipe, plan, samples, snapshot),
        tokens_before=before.tokens if before else None,
    )
    if checkpoint and journal.progress.step >= (plan.steps or 0):
        trainer.take_back(checkpoint, journal.progress.step)  # every step is done, only the final model is missing; the library would train one more
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if conductor.outcome == "finished":
        finish(run, recipe, trainer, tokenizer, samples.stop_token_ids, conductor.best_step())
    return conductor.outcome, conductor.reason or _done(trainer)


def _done(trainer: Trainer) -> str:
    return f"all {trainer.state.global_step} steps are done"


def _download(run: Run, recipe: Recipe, journal: Journal, inbox: Inbox) -> Path | None:
    def on_progress(done: int, total: int) -> None:
        journal.stage("download", done, total)
        _leave_if_told(inbox)

    return download(recipe.model, on_progress, run.record().get("trust_remote_code"))


def _prepare(recipe: Recipe, plan: Plan, tokenizer: Any, journal: Journal, inbox: Inbox) -> Samples:
    def on_progress(stage: str, done: int, total: int | None) -> None:
        journal.stage(stage, done, total)
        _leave_if_told(inbox)

    prepared = data.prepare(recipe, tokenizer, on_progress)
    report = prepared.report
    for finding in report.findings:
        journal.alert("data", "warning", finding.message, finding.hint)
    return Samples(
        train=prepared.train,
        validation=prepared.validation,
        stop_token_ids=prepared.stop_token_ids,
        fingerprint=prepared.fingerprint,
        tokens=report.tokens,
        singles=report.train_samples,
        files=_files_of(recipe),
    )


def _files_of(recipe: Recipe) -> list[Path]:
    """The local files that the rows come from; none where they come from the Hub or with the program."""
    if recipe.data.source == demo.NAME or not Path(recipe.data.source).exists():
        return []
    sides = [None, recipe.data.validation if isinstance(recipe.data.validation, str) else None]
    return sorted({path for split in dict.fromkeys(sides) for path in open_source(recipe.data, split).paths})


def _leave_if_told(inbox: Inbox) -> None:
    """Before the first step there is nothing to save: every wish to stop or free the memory ends the attempt at once."""
    inbox.poll()
    leaving = [command for command in inbox.waiting if command.name == "stop" or (command.name == "pause" and command.args.get("free_gpu"))]
    for command in leaving:
        inbox.tell(command, "effected", "stopped before the first step")
        inbox.waiting.remove(command)
    if leaving or inbox.terminated:
        raise StopNow("stopped before the first step of this attempt")


def _same_data(run: Run, plan: Plan, samples: Samples, before: Manifest | None, journal: Journal) -> None:
    """A resume on other rows would be another run.

    Raises:
        Changed: the rows are not those the checkpoint was trained on, and nobody has accepted that.
    """
    if before and before.data and before.data != samples.fingerprint:
        why = "the samples made of it are others"
        difference = Difference(key=fingerprint.DATA, before=before.data[:8], now=samples.fingerprint[:8], why=why)
        tell_accepted(journal, fingerprint.require_same(run, [difference], plan.accepted))


def _pinned(recipe: Recipe, before: Manifest | None) -> Recipe:
    """The recipe with the commit of the Hub model that the run began with: its main branch may have moved on since."""
    commit = before.settings.get(fingerprint.REVISION) if before else None
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": commit})}) if isinstance(commit, str) else recipe


def _fingerprint(recipe: Recipe, plan: Plan, samples: Samples, snapshot: Path | None) -> dict[str, Any]:
    """What each checkpoint tells of the training it belongs to."""
    settings = fingerprint.settings_of(recipe, plan)
    if snapshot:
        settings[fingerprint.REVISION] = snapshot.name
    inputs = {fingerprint.MODEL: fingerprint.model_files(recipe.model.name), fingerprint.DATA: samples.files}
    found = {key: fingerprint.files(paths) for key, paths in inputs.items()}
    return {"data": samples.fingerprint, "settings": settings, "versions": fingerprint.versions(), "inputs": found}


def _load(run: Run, recipe: Recipe, plan: Plan, tokenizer: Any, samples: Samples, journal: Journal, inbox: Inbox) -> tuple[Any, Samples]:
    """The model, trainable as the method says, and the samples, packed if the model keeps packed documents apart."""

    def on_progress(done: int, total: int) -> None:
        journal.stage("load", done, total)
        _leave_if_told(inbox)

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
        on_progress=on_progress,
    )
    model.generation_config.eos_token_id = samples.stop_token_ids  # so that a checkpoint, too, can be talked to
    go_offline()  # so that an outage of the Hub cannot stop a save
    _leave_if_told(inbox)
    if plan.packing:
        attention = packing.isolate(model, len(tokenizer), need=plan.attention)
        if attention is None:
            cause = "packed documents would read one another in this model: it does not tell its attention where they end"
            journal.alert("packing", "warning", cause, "Batches of like lengths are padded instead.")
        else:
            samples = _pack(samples, plan.row_length or recipe.prompt.max_length)
    new_tokens = _added_markers(tokenizer) if recipe.prompt.add_tokens else []
    return adapters.make_trainable(model, method, new_tokens, checkpointing=bool(plan.activation_checkpointing), fused=plan.fused_lora), samples


def _limit_memory(recipe: Recipe) -> None:
    """Hold the process to the limit per GPU: beyond it an allocation fails, as on a smaller card."""
    if recipe.hardware.memory_limit and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, parse_bytes(recipe.hardware.memory_limit) / total))


def _pack(samples: Samples, length: int) -> Samples:
    return replace(samples, train=pack_dataset(samples.train, length, "bfd"), packed=True)


def _resolve(run: Run, recipe: Recipe, plan: Plan, samples: Samples, model: Any, journal: Journal, steering: Steering) -> Plan:
    """The plan with what only the rows and the real model could tell; written into the run and told."""
    everything, trainable = adapters.parameter_counts(model)
    changes: dict[str, Any] = {"parameters": everything, "trainable_parameters": trainable, "packing": samples.packed}
    changes["attention"] = str(model.config._attn_implementation)
    reasons = dict(plan.reasons)
    if plan.fused_lora and not fused_lora.count(model):
        changes["fused_lora"] = False
        reasons["fused_lora"] = "off: none of this model's adapted layers is of a kind that is fused"
    if samples.packed:
        rows = max(1, round(plan.effective_batch * len(samples.train) / samples.singles))
        changes |= {"micro_batch": 1, "accumulation": rows}
        reasons["micro_batch"] = f"{rows} packed rows of micro-batch 1 hold the mean tokens of {plan.effective_batch} single samples"
        apart = f"tried on this model: under {changes['attention']} attention packed documents do not read one another"
        reasons["packing"] = "; ".join(dict.fromkeys([*filter(None, reasons.get("packing", "").split("; ")), apart]))
    elif plan.packing:
        changes |= {"length_grouped": True, "row_length": None, **_unpacked(recipe, plan)}
        reason = "packed documents would read one another in this model; batches of like lengths waste little on padding"
        reasons |= {"packing": reason, "length_grouped": reason}
    changes["reasons"] = reasons
    plan = plan.model_copy(update=changes)
    steering.planned = recipe.train.max_steps or math.ceil(recipe.train.epochs * _steps_per_epoch(len(samples.train), plan))
    steps = steering.steps_at(journal.progress.step, steering.planned)
    per_step = round(samples.tokens / len(samples.train) * plan.micro_batch * plan.accumulation)
    plan = plan.model_copy(update={"steps": steps, "tokens_per_step": per_step})
    run.write_plan(journal.attempt, plan)
    journal.tell("plan", **plan.model_dump(mode="json"))
    print(f"trainable parameters: {trainable:,} of {everything:,} ({trainable / max(1, everything):.2%})", flush=True)
    return plan


def _unpacked(recipe: Recipe, plan: Plan) -> dict[str, int]:
    """The micro-batch of single samples that is sure to take no more memory than the packed row of the plan."""
    if plan.row_length is None:
        return {}
    most = max(1, plan.row_length // recipe.prompt.max_length)
    rows = max(n for n in range(1, min(most, plan.effective_batch) + 1) if plan.effective_batch % n == 0)
    return {"micro_batch": rows, "accumulation": plan.effective_batch // rows}


def _steps_per_epoch(rows: int, plan: Plan) -> int:
    return max(1, math.ceil(math.ceil(rows / plan.micro_batch) / plan.accumulation))


def _added_markers(tokenizer: Any) -> list[int]:
    return sorted(index for token, index in tokenizer.get_added_vocab().items() if token in tokenizer.chat_template)


def _order(recipe: Recipe, plan: Plan, samples: Samples) -> Order:
    rows = len(samples.train)
    lengths = lengths_of(samples.train) if plan.length_grouped and not samples.packed else None
    return Order(rows, recipe.train.seed, plan.micro_batch * plan.accumulation, lengths)


def _arguments(run: Run, recipe: Recipe, plan: Plan, samples: Samples, steering: Steering) -> SFTConfig:
    """The library's arguments. Evaluation and saving are `no` there: the conductor decides them."""
    settings = recipe.train
    recompute = plan.activation_checkpointing
    return SFTConfig(
        output_dir=str(run.checkpoints),
        max_steps=steering.furthest(plan.steps or 0),  # the conductor ends it where it is to end
        per_device_train_batch_size=plan.micro_batch,
        per_device_eval_batch_size=_evaluated_at_once(recipe, plan, samples),
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
        dataloader_num_workers=plan.data_workers,
        dataloader_persistent_workers=False,  # with dropout they would not resume exactly
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _evaluated_at_once(recipe: Recipe, plan: Plan, samples: Samples) -> int:
    """Validation samples of a forward pass: as many as train in one; packed, as many as are sure to fit into a row's memory."""
    return max(1, (plan.row_length or 0) // recipe.prompt.max_length) if samples.packed else plan.micro_batch


def _recompute_kwargs(recompute: bool | int | str) -> dict[str, Any] | None:
    if recompute is False or recompute == "offload":
        return None
    every = {"every_n_layers": int(recompute)} if recompute is not True and int(recompute) > 1 else {}
    return {"use_reentrant": False, **every}
