"""Samples on disk, memory-mapped: whole ones as they were encoded, and those of training as the trainer reads them.

Both are Arrow files. Memory holds one batch of tokens and some numbers for each sample, whatever the size of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_ft.data.samples import IGNORED, Sample

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

_BATCH_SAMPLES = 1000
_BATCH_TOKENS = 1 << 22  # a list column of Arrow holds less than 2³¹ values, and a batch has to fit into memory several times


@dataclass(frozen=True)
class Numbers:
    """What is known of each whole sample besides its tokens; all of shape (samples,)."""

    lengths: np.ndarray
    """Tokens, int64."""
    firsts: np.ndarray
    """Place of the first target, int64."""
    stops: np.ndarray
    """Place of the first learned end of a turn; the length where there is none, int64."""
    groups: np.ndarray
    """uint64."""
    contents: np.ndarray
    """uint64."""

    @classmethod
    def of(cls, rows: Sequence[tuple[int, ...]]) -> Numbers:
        """From one tuple for each sample, in the order of the fields."""
        import numpy as np

        kinds = (np.int64, np.int64, np.int64, np.uint64, np.uint64)
        return cls(*(np.array([row[place] for row in rows], dtype=kind) for place, kind in enumerate(kinds)))


@dataclass(frozen=True)
class Tokens:
    """Samples one after the other."""

    ids: np.ndarray
    """int32, shape (tokens of all,)."""
    labels: np.ndarray
    """int32, -100 where not learned, shape (tokens of all,)."""
    lengths: np.ndarray
    """Tokens of each sample, int64, shape (samples,)."""


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write whole samples, batch by batch."""
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as file:
        writer = None
        for batch in _batches(samples):
            table = _batch(batch)
            writer = writer or pyarrow.ipc.new_file(file, table.schema)
            writer.write_batch(table)
        writer = writer or pyarrow.ipc.new_file(file, _batch([]).schema)
        writer.close()


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    tokens = 0
    for sample in samples:
        batch.append(sample)
        tokens += len(sample.encoded.ids)
        if len(batch) >= _BATCH_SAMPLES or tokens >= _BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
    if batch:
        yield batch


def _batch(samples: list[Sample]) -> pyarrow.RecordBatch:
    import numpy as np
    import pyarrow

    offsets = pyarrow.array(np.concatenate([[0], np.cumsum([len(sample.encoded.ids) for sample in samples])]).astype(np.int32))
    empty = np.empty(0, np.int32)
    ids = np.concatenate([empty, *(sample.encoded.ids for sample in samples)])
    learned = np.concatenate([empty.astype(bool), *(sample.encoded.learned for sample in samples)])
    return pyarrow.record_batch(
        {
            "ids": pyarrow.ListArray.from_arrays(offsets, pyarrow.array(ids)),
            "learned": pyarrow.ListArray.from_arrays(offsets, pyarrow.array(learned)),
            "first": pyarrow.array([sample.first for sample in samples], pyarrow.int64()),
            "stop": pyarrow.array([sample.stop for sample in samples], pyarrow.int64()),
            "group": pyarrow.array([sample.group for sample in samples], pyarrow.uint64()),
            "content": pyarrow.array([sample.content for sample in samples], pyarrow.uint64()),
            "origin": pyarrow.array([sample.origin for sample in samples], pyarrow.string()),
        }
    )


def batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    """The batches of a file of whole samples, mapped, in their order."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as file:
        reader = pyarrow.ipc.open_file(file)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def numbers(path: Path) -> Numbers:
    """What is known of each sample of a file, without its tokens."""
    import numpy as np

    found: dict[str, list[np.ndarray]] = {"length": [np.empty(0, np.int64)], "group": [np.empty(0, np.uint64)], "content": [np.empty(0, np.uint64)]}
    found |= {"first": [np.empty(0, np.int64)], "stop": [np.empty(0, np.int64)]}
    for batch in batches(path):
        found["length"].append(np.diff(batch["ids"].offsets.to_numpy()).astype(np.int64))
        for name in ("first", "stop", "group", "content"):
            found[name].append(batch[name].to_numpy())
    joined = {name: np.concatenate(arrays) for name, arrays in found.items()}
    return Numbers(joined["length"], joined["first"], joined["stop"], joined["group"], joined["content"])


def origins(path: Path) -> Iterator[str]:
    """The place in the source of each sample of a file."""
    for batch in batches(path):
        yield from batch["origin"].to_pylist()


def cut_tokens(path: Path, cuts: np.ndarray) -> Iterator[Tokens]:
    """The first `cuts[i]` tokens of each sample i, without the samples of which nothing is left; a batch at a time."""
    import numpy as np

    start = 0
    for batch in batches(path):
        offsets = batch["ids"].offsets.to_numpy().astype(np.int64)
        here = cuts[start : start + len(batch)]
        start += len(batch)
        sizes = np.diff(offsets)
        inside = np.arange(offsets[-1] - offsets[0]) - np.repeat(offsets[:-1] - offsets[0], sizes)  # place of each token in its sample
        taken = inside < np.repeat(here, sizes)
        ids = batch["ids"].flatten().to_numpy()[taken]
        learned = batch["learned"].flatten().to_numpy(zero_copy_only=False)[taken]
        yield Tokens(ids, np.where(learned, ids, np.int32(IGNORED)), here[here > 0])


def in_blocks(stream: Iterable[Tokens], length: int) -> Iterator[Tokens]:
    """Documents one after the other, cut into blocks of `length`; a rest of more than one token is a block of its own."""
    import numpy as np

    ids = labels = np.empty(0, np.int32)
    for tokens in stream:
        ids, labels = np.concatenate([ids, tokens.ids]), np.concatenate([labels, tokens.labels])
        whole = len(ids) // length * length
        if whole:
            yield Tokens(ids[:whole], labels[:whole], np.full(whole // length, length, np.int64))
            ids, labels = ids[whole:], labels[whole:]
    if len(ids) > 1:
        yield Tokens(ids, labels, np.array([len(ids)], np.int64))


@dataclass(frozen=True)
class Written:
    samples: int
    tokens: int
    learned: int
    digest: str
    """Hash of every sample's ids and labels in order."""


def write_training(path: Path, stream: Iterable[Tokens]) -> Written:
    """Write samples as `datasets` reads them: the columns `input_ids` and `labels`, unpadded."""
    import numpy as np
    import pyarrow
    import xxhash

    hashes = [xxhash.xxh3_64() for _ in range(3)]
    samples = tokens = learned = 0
    integers = pyarrow.list_(pyarrow.int32())
    schema = pyarrow.schema({"input_ids": integers, "labels": integers})
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        for part in stream:
            if not len(part.lengths):
                continue
            offsets = pyarrow.array(np.concatenate([[0], np.cumsum(part.lengths)]).astype(np.int32))
            columns = [pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values)) for values in (part.ids, part.labels)]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            for state, values in zip(hashes, (part.lengths, part.ids, part.labels), strict=True):
                state.update(np.ascontiguousarray(values).data)
            samples, tokens = samples + len(part.lengths), tokens + len(part.ids)
            learned += int(np.count_nonzero(part.labels != IGNORED))
    return Written(samples, tokens, learned, "".join(state.hexdigest() for state in hashes))


def training_dataset(path: Path, fingerprint: str) -> Any:
    """A memory-mapped `datasets.Dataset` of a file that `write_training` wrote."""
    import datasets

    loaded = datasets.Dataset.from_file(str(path))
    return datasets.Dataset(loaded.data, fingerprint=fingerprint)  # else it would be hashed anew, and packing would never find its own cache
