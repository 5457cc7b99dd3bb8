"""The end of a training: the best weights, the final model with all that is needed to talk to it, its copies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from peft import PeftModel
from transformers import GenerationConfig

from tui_ft.errors import TuiFtError
from tui_ft.modeling import load
from tui_ft.recipe import Recipe
from tui_ft.runs import checkpoints
from tui_ft.runs.store import Run
from tui_ft.text import one_line


def finish(run: Run, recipe: Recipe, trainer: Any, tokenizer: Any, stop_token_ids: list[int], best: int | None) -> None:
    """Write the final model into the run, then wherever the recipe wants copies. A failed copy is told, never fatal.

    Raises:
        TuiFtError: the model itself could not be written; the last checkpoint holds its weights.
    """
    if recipe.evaluate.early_stopping and best is not None and best != trainer.state.global_step:
        _take_weights_of(run, trainer, best)
    try:
        _write(run, recipe, trainer, tokenizer, stop_token_ids)
    except (OSError, RuntimeError) as error:
        newest = max(checkpoints.steps(run), default=None)
        shutil.rmtree(run.path / ".model", ignore_errors=True)
        raise TuiFtError(
            f"the final model could not be written: {one_line(error, 300)}",
            f"Free some space, then `tui-ft resume {run.id}`: checkpoint {newest} is whole.",
        ) from error
    if recipe.output.dir:
        _copy(run, Path(recipe.output.dir), trainer)
    if recipe.output.push_to_hub:
        _push(run, recipe.output.push_to_hub, trainer)


def _take_weights_of(run: Run, trainer: Any, step: int) -> None:
    """Early stopping means the best weights, not the last ones."""
    place = checkpoints.folder(run, step)
    why = checkpoints.verify(place)
    if why:
        trainer.journal.alert("checkpoint", "warning", f"the best checkpoint {step} cannot be used: {why}", "The final model has the last weights.")
        return
    trainer.take_back(place, step)


def _write(run: Run, recipe: Recipe, trainer: Any, tokenizer: Any, stop_token_ids: list[int]) -> None:
    """Staged beside its place and renamed, so that a model folder is always whole."""
    staged = run.path / ".model"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(mode=0o700)
    model = _merged(recipe, trainer, tokenizer, staged) if recipe.output.merge and isinstance(trainer.model, PeftModel) else trainer.model
    model.config.use_cache = True
    model.save_pretrained(staged)
    tokenizer.save_pretrained(staged)
    generation = getattr(model, "generation_config", None) or GenerationConfig()
    generation.eos_token_id = stop_token_ids
    generation.pad_token_id = tokenizer.pad_token_id
    generation.bos_token_id = tokenizer.bos_token_id
    generation.save_pretrained(staged)
    shutil.rmtree(run.model, ignore_errors=True)
    staged.rename(run.model)


def _merged(recipe: Recipe, trainer: Any, tokenizer: Any, staged: Path) -> Any:
    """The adapter folded into the base weights; quantized ones are loaded anew in full, since folding into 4 bits would round the adapter away."""
    if recipe.method.quantization == "none":
        return trainer.model.merge_and_unload()
    adapter = staged / "adapter"
    trainer.model.save_pretrained(adapter)
    base = load.load_model(recipe.model, precision="bf16" if trainer.args.bf16 else "fp32", vocabulary=len(tokenizer), vocabulary_multiple=1)
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    shutil.rmtree(adapter)
    return merged


def _copy(run: Run, target: Path, trainer: Any) -> None:
    try:
        shutil.copytree(run.model, target, dirs_exist_ok=True)
    except OSError as error:
        trainer.journal.alert("output", "error", f"the model could not be copied to {target}: {one_line(error, 200)}", f"It is whole in {run.model}.")


def _push(run: Run, repository: str, trainer: Any) -> None:
    """Upload with the token of the Hub's own login; ours never sees it."""
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = False
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=run.model, commit_message=f"Fine-tuned with tui-ft ({run.id})")
    except Exception as error:  # the network has more ways to fail than can be named
        cause = f"the model could not be pushed to {repository}: {one_line(error, 200)}"
        trainer.journal.alert("push", "error", cause, f"It is whole in {run.model}; `hf upload {repository} {run.model}` tries again.")
