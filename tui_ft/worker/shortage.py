"""Whether an error means that memory ran out, and which: libraries say it in several ways. No torch."""

from __future__ import annotations

_GPU = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation")
_MAIN = ("can't allocate memory", "Cannot allocate memory", "Unable to allocate")


def ran_out(error: BaseException) -> tuple[str, str] | None:
    """(what ran out, in words; the cause in one word), also where a library has wrapped the error in one of its own; else None."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        text = str(found)
        if type(found).__name__ == "OutOfMemoryError" or (isinstance(found, RuntimeError) and any(words in text for words in _GPU)):
            return "the GPU ran out of memory", "cuda-oom"
        if isinstance(found, MemoryError) or (isinstance(found, (RuntimeError, OSError)) and any(words in text for words in _MAIN)):
            return "main memory ran out", "host-oom"
        found = found.__cause__ or found.__context__
    return None
