"""trl's SFTTrainer under our control: own checkpoints, own log, commands obeyed between two steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, get_scheduler
from trl import SFTTrainer

from tui_ft.recipe import Recipe
from tui_ft.runs import checkpoints
from tui_ft.runs.store import Run
from tui_ft.worker.conductor import Conductor
from tui_ft.worker.journal import Journal
from tui_ft.worker.measuring import resident_peak
from tui_ft.worker.sampler import Order


class Trainer(SFTTrainer):
    """The parts of the training loop that a run needs otherwise than the library does them."""

    def __init__(
        self,
        *args: Any,
        run: Run,
        recipe: Recipe,
        journal: Journal,
        conductor: Conductor,
        order: Order,
        fingerprint: dict[str, Any],
        tokens_before: int | None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            fingerprint: what each checkpoint tells of the training it belongs to.
            tokens_before: trained on up to the checkpoint this attempt goes on from; None: as the events tell.
        """
        adapters = [(p, p.data) for p in kwargs["model"].parameters() if p.requires_grad]
        super().__init__(*args, callbacks=[Hooks(conductor)], **kwargs)
        self.remove_callback(PrinterCallback)  # the journal prints
        for parameter, data in adapters:
            parameter.data = data  # trl casts adapters on quantized weights to bf16, where small updates are lost
        self.run = run
        self.recipe = recipe
        self.journal = journal
        self.conductor = conductor
        self.order = order
        self.fingerprint = fingerprint
        self.tokens_before = journal.progress.tokens if tokens_before is None else tokens_before
        self._counted_tokens = 0
        self._uncounted: list[torch.Tensor] = []
        """Tokens of the step's batches, where they lie: reading each one would wait for the device."""
        self._clock = time.monotonic()
        conductor.trainer = self

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """A line a step to the journal; to the trackers every `log.every` steps, as the recipe says."""
        if "loss" in logs:
            self._tell_step(logs)
        if "loss" not in logs or self.state.global_step % self.recipe.log.every == 0:
            super().log(logs, start_time)
            del self.state.log_history[:]  # the journal is ours; a second one costs 6 s a save at 100 000 rows
        else:
            self._metrics["train"].clear()

    def _tell_step(self, logs: dict[str, float]) -> None:
        tokens_so_far = self._tokens()  # waits for the device, as the loss did that is told
        now = time.monotonic()
        tokens = self._total_train_tokens
        speed = round((tokens - self._counted_tokens) / max(now - self._clock, 1e-9), 2)
        self.journal.measured.step(now - self._clock, int(tokens - self._counted_tokens))
        self.journal.tell(
            "step",
            step=self.state.global_step,
            epoch=round(self.state.epoch or 0.0, 5),
            loss=logs["loss"],
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens=tokens_so_far,
            tokens_per_second=speed,
            memory_bytes=peak_memory_bytes(),
        )
        self._counted_tokens = tokens
        self.conductor.check_health(logs["loss"], logs.get("grad_norm"), logs.get("learning_rate"), tokens_so_far, speed)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.journal.measured.batch(*inputs["input_ids"].shape)
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The library's loss in training without its entropy and accuracy, which only a tracker would be told.

        It reads five numbers from the device between forward and backward pass, and each time a GPU runs out of work.
        """
        plain = self.model.training and num_items_in_batch is not None and not return_outputs and not self.aux_loss_enabled
        if not plain or self.recipe.log.trackers:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        if "attention_mask" in inputs:
            self._uncounted.append(inputs["attention_mask"].sum())
        else:
            self._total_train_tokens += inputs["position_ids"].size(1)  # a packed row has no padding
        return -outputs.log_probs.sum() / torch.as_tensor(num_items_in_batch).clamp(min=1)

    def _tokens(self) -> int:
        """Real tokens trained on since the run began; the library counts those of this process."""
        if self._uncounted:
            self._total_train_tokens += int(torch.stack(self._uncounted).sum())
            self._uncounted = []
        return int(self.tokens_before + self._total_train_tokens)

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return self.order

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Laid out for the steps that were meant at the checkpoint, which a person may have changed later on."""
        steering = self.conductor.steering
        return super().create_scheduler(steering.horizon_at(self.journal.progress.step, steering.planned or num_training_steps), optimizer)

    def lay_out_schedule(self, steps: int) -> None:
        """The schedule for another number of steps, at the same place and with the same peak."""
        stand_in = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        arguments = {"num_warmup_steps": self.args.get_warmup_steps(steps), "scheduler_specific_kwargs": self.args.lr_scheduler_kwargs}
        fresh: Any = get_scheduler(self.args.lr_scheduler_type, optimizer=stand_in, num_training_steps=steps, **arguments)
        now: Any = self.lr_scheduler
        if hasattr(now, "lr_lambdas"):  # the others do not look ahead
            now.lr_lambdas = [fresh.lr_lambdas[0]] * len(now.lr_lambdas)
            for group, base in zip(self.optimizer.param_groups, now.base_lrs, strict=True):
                group["lr"] = base * fresh.lr_lambdas[0](now.last_epoch)
            now._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self.conductor.after_step()
        self._clock = time.monotonic()  # evaluation, saving and pauses are not training time

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluation that leaves no trace in the random numbers: a run with a stop in it draws the same ones."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            return super().evaluate(*args, **kwargs)

    def take_back(self, checkpoint: Path, step: int) -> None:
        """The weights of a checkpoint, without going on from it."""
        self._load_from_checkpoint(str(checkpoint), self.model)
        self.state.global_step = step

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(self.run.checkpoints / ".staging")

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        """Write into staging, then publish whole and rotate. What fails is told to the conductor, who tries again when there is room."""
        step = self.state.global_step
        started = time.monotonic()
        if not _is_finite(self.model):
            self.conductor.end_not_finite("weight")
        try:
            self.conductor.require_room()
            staged = checkpoints.staging(self.run)
            self.save_model(str(staged), _internal_call=True)
            self._save_optimizer_and_scheduler(str(staged))
            self._save_scaler(str(staged))
            self._save_rng_state(str(staged))
            self.state.save_to_json(str(staged / "trainer_state.json"))
            (staged / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody may load
            facts = {"eval_loss": self.conductor.eval_loss_at(step), "attempt": self.journal.attempt, "tokens": self._tokens(), **self.fingerprint}
            published = checkpoints.publish(staged, self.run, step, facts)
        except Exception as error:  # a full disk arrives as OSError, SafetensorError or RuntimeError
            checkpoints.discard_staging(self.run)
            self.conductor.save_failed(error)
            return
        self.conductor.saved(step, published, time.monotonic() - started)
        self.journal.measured.write()


class Hooks(TrainerCallback):
    """Hands the trainer's moments to the conductor."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.conductor.begin(state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.conductor.step_end(state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any) -> None:
        self.conductor.evaluated(state, control, metrics)

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self.conductor.between_batches()

    on_prediction_step = on_substep_end


def _is_finite(model: Any) -> bool:
    """Whether all trained weights are numbers: a look at each costs a hundredth of writing it, and a bad checkpoint the run."""
    return all(bool(torch.isfinite(parameter.detach()).all()) for parameter in model.parameters() if parameter.requires_grad)


def peak_memory_bytes() -> int:
    """The most this process has held: allocated by torch on a GPU, resident in main memory without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident_peak()
