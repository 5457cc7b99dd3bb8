"""Counts what tensors take while a program runs: by part, and by what the bytes grow with."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "head")
SCALES = ("1", "tokens", "squares", "rank", "rank·tokens", "chunk", "unpacked")
"""What bytes grow with: nothing, rows × length, rows × length², the adapters' rank; as the forecast has them. Two more hold within a trace
only: `chunk`, the tokens up to the most that trl's head looks at together, and `unpacked`, which is there beyond so many tokens only."""
CELLS = len(PARTS) * len(SCALES)
CUDA_GRAIN = 512
"""Bytes: CUDA's allocator rounds every request up to a multiple of this."""

Snapshot = list[int]
"""Bytes by part and scale, part after part."""


@dataclass(frozen=True)
class Sizes:
    """How a step is recognized in the shapes of its tensors; these numbers must not be dimensions of the model itself.

    A dimension that equals the rank scales with the rank, one that equals the length with the length, and so on: so one traced step tells
    what each tensor would take with any other numbers, where a fit to several steps would need a trace for each unknown.
    """

    rows: int
    length: int
    rank: int
    chunk: int = 0
    """Tokens that trl's head looks at together in this trace; 0: as many as in training, and told apart from nothing."""

    def scale(self, shape: Sequence[int]) -> int:
        """Which of SCALES the bytes of a tensor grow with."""
        tokens = ranked = chunk = 0
        for size in shape:
            if size in self.lengths:
                tokens += 1
            elif size in self.squares:
                tokens += 2
            ranked |= size == self.rank
            chunk |= size == self.chunk
        if tokens > 1:
            return 2
        if tokens:
            return 4 if ranked else 1
        if chunk:
            return 5
        return 3 if ranked else 0

    @cached_property
    def lengths(self) -> frozenset[int]:
        near = (self.length, self.length - 1, self.length + 1)  # labels are shifted by one
        return frozenset(near) | {self.rows * size for size in near}

    @cached_property
    def squares(self) -> frozenset[int]:
        return frozenset((self.length**2, self.rows * self.length**2))

    def clashes(self, dimensions: set[int]) -> bool:
        """Whether a model with these dimensions would be mistaken for its batch."""
        return bool(dimensions & {*self.lengths, *self.squares, self.rank, self.chunk})


class Tracker(TorchDispatchMode):
    """While it is entered, every new storage on the CPU is counted until its last tensor is gone.

    Works on fake tensors, whose storages know their size and hold nothing, and on real ones. A snapshot is taken at each allocation, since
    only there can a peak be; `segment` says into which lists it goes.
    """

    def __init__(self, sizes: Sizes, *, grain: int = 1) -> None:
        """
        Args:
            grain: bytes that each allocation is rounded up to.
        """
        super().__init__()
        self.sizes = sizes
        self.grain = grain
        self.live: Snapshot = [0] * CELLS
        self.segments: dict[str, list[Snapshot]] = {}
        self.part = "activations"
        self.rewrites: dict[Any, Callable[..., Any]] = {}
        """Operators that are to run otherwise, for the kernels of another device."""
        self.workspaces: dict[Any, Callable[..., list[torch.Tensor]]] = {}
        """What an operator's kernel allocates for itself and frees again, which its outputs do not show."""
        self.unpacking: dict[Any, Callable[..., list[torch.Tensor]]] = {}
        """The same, where it is there only beyond so many tokens."""
        self.in_backward = False
        self._recording: list[list[Snapshot]] = []
        self._known: dict[int, _Entry] = {}

    def segment(self, *names: str, part: str = "activations") -> None:
        """From here on snapshots go into the lists of these names, and new tensors are counted as `part`."""
        self.part = part
        self._recording = [self.segments.setdefault(name, []) for name in names]
        self._record()

    def tag(self, tensor: torch.Tensor | None, part: str, like: Sequence[int] | None = None) -> None:
        """Count the storage of `tensor` as `part`; `like` is the shape it scales with, where its own does not show it."""
        if tensor is None or tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        entry = self._known.get(id(storage))
        if entry is None or entry.storage() is not storage:
            self._add(tensor, part, like)
            return
        self.live[entry.cell] -= entry.bytes
        entry.cell = self.cell(part, like or tensor.shape)
        self.live[entry.cell] += entry.bytes

    def cell(self, part: str, shape: Sequence[int], scale: int | None = None) -> int:
        """Where in a snapshot a tensor of this shape is counted."""
        return PARTS.index(part) * len(SCALES) + (self.sizes.scale(shape) if scale is None else scale)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rewrite = self.rewrites.get(func)
        if rewrite is not None:
            out = rewrite(*args, **kwargs)
        else:
            held = self._workspace(func, args, kwargs)  # noqa: F841 - alive until the output is there
            out = func(*args, **kwargs)
        if func is torch.ops.aten.add.Tensor and self.in_backward and self._is_accumulation(args, out):
            self._hand_over(args[0], out)
        if isinstance(out, torch.Tensor):
            self._add(out, self.part)
        elif isinstance(out, tuple | list):
            for item in out:
                if isinstance(item, torch.Tensor):
                    self._add(item, self.part)
        return out

    def _workspace(self, func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
        tensors = []
        if func in self.workspaces:
            tensors = self.workspaces[func](*args, **kwargs)
            for tensor in tensors:
                self._add(tensor, self.part)
        if func in self.unpacking:
            tensors += self.unpacking[func](*args, **kwargs)
            for tensor in tensors:
                self._add(tensor, self.part, scale=SCALES.index("unpacked"))
        return tensors

    def _add(self, tensor: torch.Tensor, part: str, like: Sequence[int] | None = None, scale: int | None = None) -> None:
        if tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        known = self._known.get(key)
        if known is not None and known.storage() is storage:
            return
        size = -(-storage.nbytes() // self.grain) * self.grain
        if not size:
            return
        cell = self.cell(part, like or tensor.shape, scale)
        self._watch(storage, _Entry(size, cell))
        self.live[cell] += size
        self._record()

    def _watch(self, storage: Any, entry: _Entry) -> None:
        key = id(storage)

        def gone(_: Any) -> None:
            if self._known.get(key) is entry:
                del self._known[key]
            if entry.owned:
                self.live[entry.cell] -= entry.bytes

        entry.storage = weakref.ref(storage, gone)
        self._known[key] = entry

    def _is_accumulation(self, args: Any, out: torch.Tensor) -> bool:
        """Whether autograd adds up two gradients of one tensor: in place for real tensors, but not for fake ones.

        It does so only where the first gradient is its own storage: one that is a view may be needed elsewhere.
        """
        first, second = args[0], args[1]
        return (
            not torch.is_grad_enabled()
            and isinstance(second, torch.Tensor)
            and first.shape == second.shape
            and first.dtype == second.dtype
            and not first._is_view()
            and out.device.type == "cpu"
        )

    def _hand_over(self, first: torch.Tensor, out: torch.Tensor) -> None:
        """Count `out` as the storage of `first`, which the real addition would have written into."""
        old, new = first.untyped_storage(), out.untyped_storage()
        entry = self._known.get(id(old))
        if entry is None or entry.storage() is not old or id(new) in self._known or old.nbytes() != new.nbytes():
            return
        entry.owned = False
        self._watch(new, _Entry(entry.bytes, entry.cell))

    def _record(self) -> None:
        for snapshots in self._recording:
            snapshots.append(self.live.copy())


class _Entry:
    """A storage that is counted."""

    __slots__ = ("bytes", "cell", "owned", "storage")

    def __init__(self, size: int, cell: int) -> None:
        self.bytes = size
        self.cell = cell
        self.owned = True
        """Nobody else has taken over its bytes."""
        self.storage: Callable[[], Any] = lambda: None
