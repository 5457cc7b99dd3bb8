"""Which files of a repository are the weights, and what their headers say. Knows file names and headers, loads no tensor."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tui_ft.errors import RequestError
from tui_ft.text import one_line

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8", "I8": "int8", "U8": "uint8"}
"""safetensors' names of dtypes, as configs write them."""
GGUF = ".gguf"
_KINDS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin", "*.bin", f"*{GGUF}")
"""In the order in which they are looked for; the first kind that is there is the one loaded."""
_NOT_WEIGHTS = ("adapter_model.*", "training_args.bin", "optimizer.bin", "scheduler.bin", "consolidated*.safetensors")


def wanted(names: Iterable[str]) -> list[str]:
    """The weight files that loading takes, of all files in a folder or repository; those in subfolders are other formats."""
    top = [name for name in names if "/" not in name and not any(fnmatch.fnmatchcase(name, pattern) for pattern in _NOT_WEIGHTS)]
    found = next((kind for pattern in _KINDS if (kind := sorted(name for name in top if fnmatch.fnmatchcase(name, pattern)))), [])
    plain = [name for name in found if not _is_variant(name)]
    return plain or found


def _is_variant(name: str) -> bool:
    """`model.fp16.safetensors`: the same weights once more."""
    return name.count(".") > 1 and not name.startswith("model-") and not name.startswith("pytorch_model-")


def is_gguf(names: Iterable[str]) -> bool:
    """Whether a folder or repository holds its weights as GGUF only."""
    return any(name.endswith(GGUF) for name in wanted(names))


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name means: the file itself, or the one in a folder that holds no config; None for any other model.

    Raises:
        RequestError: the folder holds several.
    """
    path = Path(name).expanduser()
    try:
        if path.suffix.lower() == GGUF and path.is_file():
            return path
        inside = [file for file in path.iterdir() if file.suffix.lower() == GGUF] if path.is_dir() and not (path / "config.json").exists() else []
    except OSError:
        return None
    if len(inside) > 1:
        names = ", ".join(one_line(file.name, 60) for file in sorted(inside)[:6])
        raise RequestError(f"{one_line(path, 200)} holds {len(inside)} GGUF files: {names}", "Name one of them in model.name.")
    return inside[0] if inside else None


def counted(files: list[Path]) -> tuple[int | None, str | None]:
    """(number of parameters, the dtype most of them have), from the headers of safetensors files; None where one cannot be read."""
    numbers: dict[str, int] = {}
    try:
        for file in files:
            for tensor in _header(file).values():
                count = 1
                for width in tensor["shape"]:
                    count *= width
                numbers[tensor["dtype"]] = numbers.get(tensor["dtype"], 0) + count
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, None
    if not numbers:
        return None, None
    most = max(numbers, key=numbers.__getitem__)
    return sum(numbers.values()), DTYPES.get(most, most)


def _header(file: Path) -> dict[str, Any]:
    """The JSON that a safetensors file begins with, after its length in eight bytes; the library would map the whole file and want numpy."""
    if file.suffix != ".safetensors":
        raise ValueError("not safetensors")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > 100_000_000:
            raise ValueError("no header of safetensors is that long")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header  # type: ignore[no-any-return]


def gguf_header(file: Path) -> dict[str, Any]:
    """What a GGUF file says of itself, as fields of `ModelDetails`.

    Raises:
        RequestError: it is damaged, or no GGUF file.
    """
    try:
        from gguf import GGUFReader

        reader = GGUFReader(file)
        fields = reader.fields
        kinds = [tensor.tensor_type.name for tensor in reader.tensors]

        def value(key: str) -> Any:
            return fields[key].contents() if key in fields else None

        architecture = value("general.architecture")
        return {
            "architecture": architecture,
            "parameters": sum(int(tensor.n_elements) for tensor in reader.tensors),
            "context_length": int(found) if (found := value(f"{architecture}.context_length")) else None,
            "licence": value("general.license"),
            "chat": "tokenizer.chat_template" in fields,
            "dtype": max(set(kinds), key=kinds.count) if kinds else None,
        }
    except Exception as error:  # its reader meets a foreign file with errors of several libraries
        raise RequestError(f"{one_line(file, 200)} is not a readable GGUF file: {one_line(error, 200)}", "Copy it anew.") from None


def lacking(folder: Path) -> str:
    """The first weight file that a folder should have and has not; empty where it is whole."""
    names = [file.name for file in folder.iterdir() if file.exists()]  # a link into nothing is no file
    files = wanted(names)
    if not files:
        return "the file of its weights"
    for index in folder.glob(f"*{Path(files[0]).suffix}.index.json"):
        try:
            parts = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
        if absent := sorted(str(part) for part in parts if part not in names):
            return absent[0]
    return ""
