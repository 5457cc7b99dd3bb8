"""Makes the demo's model folder: a byte-level BPE tokenizer learned from the demo's messages, and random Llama weights.

Made rather than shipped: the package stays small, and a first training starts from nothing, so that its loss
falls far within a minute. Written by numpy alone, since importing torch would cost seconds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_ft import demo, home
from tui_ft.errors import TuiFtError

if TYPE_CHECKING:
    import numpy as np

VOCABULARY = 1024
CONTEXT = 512
HIDDEN = 128
LAYERS = 4
HEADS = 4
MLP = 384
INITIAL_DEVIATION = 0.02
SEED = 42

UNKNOWN, PAD, BOS, EOS, TURN_START, TURN_END = SPECIAL = ("<unk>", "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def cached_model() -> Path:
    """The model folder of this version of the demo, built if it is missing. Safe to call from several processes at once.

    Raises:
        TuiFtError: the cache folder cannot be written.
    """
    folder = home.cache_folder() / f"demo-model-{_version()}"
    if folder.is_dir():
        return folder
    try:
        _build_once(folder)
    except OSError as error:
        raise TuiFtError(
            f"the demo's model cannot be written to {folder.parent}: {error.strerror or error}",
            "Free some space, or set TUI_FT_HOME to a folder that can be written.",
        ) from error
    return folder


def _version() -> str:
    """Changes with the messages and with this file, the only two things that the model is made of."""
    return hashlib.sha256(demo.dataset_file().read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]


def _build_once(folder: Path) -> None:
    """Build beside `folder`, then rename: a reader sees the whole folder or none, and of several builders the first wins."""
    staged = Path(tempfile.mkdtemp(dir=home.private_folder(folder.parent), prefix=f".{folder.name}."))
    try:
        _write_model(staged)
        staged.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _write_model(folder: Path) -> None:
    from safetensors.numpy import save

    token_ids = {token: index for index, token in enumerate(SPECIAL)}
    _write(folder / "tokenizer.json", _train_tokenizer().encode())
    _write(folder / "chat_template.jinja", CHAT_TEMPLATE.encode())
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "unk_token": UNKNOWN,
            "additional_special_tokens": [TURN_START, TURN_END],
        },
    )
    special_ids = {"bos_token_id": token_ids[BOS], "eos_token_id": token_ids[EOS], "pad_token_id": token_ids[PAD]}
    _write_json(folder / "config.json", _config() | special_ids)
    _write_json(folder / "generation_config.json", special_ids | {"eos_token_id": [token_ids[TURN_END], token_ids[EOS]]})
    _write(folder / "model.safetensors", save(_weights(), metadata={"format": "pt"}))


def _train_tokenizer() -> str:
    """A tokenizer as JSON. Byte-level: every text can be written, whatever its language."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with demo.dataset_file().open(encoding="utf-8") as rows:
        texts = [json.loads(row)["text"] for row in rows]
    tokenizer.train_from_iterator([*texts, "user\n", "assistant\n", "system\n"], trainer)
    return tokenizer.to_str()


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "initializer_range": INITIAL_DEVIATION,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "use_cache": True,
        "dtype": "float32",
    }


def _weights() -> dict[str, np.ndarray]:
    """Random weights under transformers' names; the head is tied to the embedding and not stored."""
    import numpy as np

    random = np.random.default_rng(SEED)

    def normal(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * INITIAL_DEVIATION * scale).astype(np.float32)

    into_residual = (2 * LAYERS) ** -0.5  # what is added to the residual stream 2 · LAYERS times keeps its size
    weights = {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN), "model.norm.weight": np.ones(HIDDEN, np.float32)}
    for layer in (f"model.layers.{index}" for index in range(LAYERS)):
        for name in ("q_proj", "k_proj", "v_proj"):
            weights[f"{layer}.self_attn.{name}.weight"] = normal(HIDDEN, HIDDEN)
        weights[f"{layer}.self_attn.o_proj.weight"] = normal(HIDDEN, HIDDEN, into_residual)
        weights[f"{layer}.mlp.gate_proj.weight"] = normal(MLP, HIDDEN)
        weights[f"{layer}.mlp.up_proj.weight"] = normal(MLP, HIDDEN)
        weights[f"{layer}.mlp.down_proj.weight"] = normal(HIDDEN, MLP, into_residual)
        weights[f"{layer}.input_layernorm.weight"] = np.ones(HIDDEN, np.float32)
        weights[f"{layer}.post_attention_layernorm.weight"] = np.ones(HIDDEN, np.float32)
    return weights


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, (json.dumps(value, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    """To the disk before the folder gets its name: a power cut must not leave a cache that looks whole."""
    path.touch(mode=0o600)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
