"""What this machine has: GPUs read through NVML, processors, memory, disk. No driver is normal, and said."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

MOVED_BYTES = 256 * 2**20
"""Free memory that has changed by more than this is worth a word: less is a desktop's breathing."""
THROTTLES = {0x08: "its hardware protects itself", 0x20: "it is too hot", 0x40: "it is far too hot", 0x80: "its power supply is too weak"}
"""The bits of NVML's clock event reasons that mean a fault of the machine, not a limit that was set."""


@dataclass(frozen=True)
class GpuProcess:
    """Someone who holds memory of a GPU."""

    pid: int
    user: str
    """Empty where it may not be known (another container, another user)."""
    name: str
    memory_bytes: int | None
    """None where the driver does not tell."""


@dataclass(frozen=True)
class GpuReading:
    """One GPU, or one MIG slice of one, at one moment. None: this device or driver does not tell."""

    index: int
    """Its number among those this process may use, as CUDA counts them."""
    uuid: str
    name: str
    capability: tuple[int, int] | None
    """CUDA compute capability, e.g. (8, 6)."""
    total_bytes: int
    free_bytes: int
    utilisation: int | None
    """Percent of the last moments in which a kernel ran."""
    temperature: int | None
    """Degrees Celsius."""
    power_watts: float | None
    processes: tuple[GpuProcess, ...] = ()
    cores: int | None = None
    """CUDA cores; with the clock they bound what it can compute."""
    clock_mhz: int | None = None
    """The most its multiprocessors can run at."""


@dataclass(frozen=True)
class Hardware:
    """One reading of the machine."""

    gpus: tuple[GpuReading, ...] = ()
    cpus: int = 1
    """Logical processors this process may run on."""
    ram_total: int = 0
    ram_free: int = 0
    """Bytes that can be had without swapping."""
    note: str = ""
    """Why there is no GPU; empty where there is one."""
    driver: str = field(default="", compare=False)


def read() -> Hardware:
    """Read the machine now; takes milliseconds, and never fails for want of a GPU."""
    memory = psutil.virtual_memory()
    gpus, driver, note = _read_gpus()
    return Hardware(gpus, _usable_cpus(), memory.total, memory.available, note, driver)


def free_disk(path: Path) -> int | None:
    """Free bytes on the disk that holds `path`, or will once it is made; None where that cannot be told."""
    for folder in (path, *path.parents):
        try:
            return psutil.disk_usage(str(folder)).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def held_by(pid: int) -> int | None:
    """Bytes that a process holds on the first GPU that this process may use, its context included; None where the driver does not tell.

    Inside a container the driver's process numbers are the host's, and none of them is ours.
    """
    readings, _, _ = _read_gpus()
    return next((process.memory_bytes for reading in readings[:1] for process in reading.processes if process.pid == pid), None)


def throttling() -> tuple[tuple[str, ...], int | None]:
    """Why the first GPU that this process may use slows itself down, and its temperature; nothing where the driver does not tell.

    A limit on power that the card keeps to under full load is usual, and no reason.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return (), None
    try:
        nvml.nvmlInit()
        devices = [device for number in range(nvml.nvmlDeviceGetCount()) for device in _devices(nvml, number)]
    except (OSError, nvml.NVMLError):
        return (), None
    visible = _visible(devices, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not visible:
        return (), None
    handle = visible[0][0]
    bits = int(
        _ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle) or _ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle) or 0
    )  # the second is what drivers before 535 call it
    return tuple(words for bit, words in THROTTLES.items() if bits & bit), _temperature(nvml, handle)


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_gpus() -> tuple[tuple[GpuReading, ...], str, str]:
    """The readings, the driver's version, and the note."""
    try:
        import pynvml as nvml
    except ImportError as error:
        return (), "", f"no GPU: the package nvidia-ml-py is missing ({error}); training runs on the CPU"
    try:
        nvml.nvmlInit()  # counted by the driver: quick after the first time, and never shut down, since others poll as well
        driver = str(_ask(nvml, "nvmlSystemGetDriverVersion") or "")
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return (), "", f"no NVIDIA GPU: {_reason(nvml, error)}; training runs on the CPU"
    except OSError as error:  # a broken driver library
        return (), "", f"no NVIDIA GPU: {error}; training runs on the CPU"
    devices = [device for number in range(count) for device in _devices(nvml, number)]
    visible = _visible(devices, os.environ.get("CUDA_VISIBLE_DEVICES"))
    readings = tuple(reading for index, (handle, _) in enumerate(visible) if (reading := _reading(nvml, handle, index)))
    if readings:
        return readings, driver, ""
    reason = "CUDA_VISIBLE_DEVICES hides all of them" if devices and not visible else "the driver lists none that can be read"
    return (), driver, f"no NVIDIA GPU: {reason}; training runs on the CPU"


def _reason(nvml: Any, error: Exception) -> str:
    plain = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no driver is installed",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the driver is not loaded",
        nvml.NVML_ERROR_NO_PERMISSION: "this user may not ask the driver",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver and library differ in version (reboot after the update)",
    }
    return plain.get(getattr(error, "value", None), str(error))


def _devices(nvml: Any, number: int) -> list[tuple[Any, str]]:
    """The card `number` as (handle, uuid), or its slices where MIG is on: only those can be used then."""
    card = _ask(nvml, "nvmlDeviceGetHandleByIndex", number)
    if card is None:
        return []
    slices = []
    mode = _ask(nvml, "nvmlDeviceGetMigMode", card)
    if mode and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE:
        for slot in range(_ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", card) or 0):
            part = _ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", card, slot)
            if part is not None:
                slices.append((part, _text(_ask(nvml, "nvmlDeviceGetUUID", part))))
    return slices or [(card, _text(_ask(nvml, "nvmlDeviceGetUUID", card)))]


def _visible(devices: list[tuple[Any, str]], setting: str | None) -> list[tuple[Any, str]]:
    """What CUDA would show under CUDA_VISIBLE_DEVICES: numbers or uuids (also shortened), up to the first that is unknown."""
    if setting is None:
        return devices
    chosen: list[tuple[Any, str]] = []
    for name in (part.strip() for part in setting.split(",")):
        if name.isdigit():
            match = devices[int(name)] if int(name) < len(devices) else None
        else:
            match = next((device for device in devices if name and device[1].startswith(name)), None)
        if match is None:
            break
        chosen.append(match)
    return chosen


def _reading(nvml: Any, handle: Any, index: int) -> GpuReading | None:
    memory = _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    if memory is None:
        return None
    capability = _ask(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    use = _ask(nvml, "nvmlDeviceGetUtilizationRates", handle)
    power = _ask(nvml, "nvmlDeviceGetPowerUsage", handle)
    return GpuReading(
        index=index,
        uuid=_text(_ask(nvml, "nvmlDeviceGetUUID", handle)),
        name=_text(_ask(nvml, "nvmlDeviceGetName", handle)) or "GPU",
        capability=(capability[0], capability[1]) if capability else None,
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        utilisation=int(use.gpu) if use else None,
        temperature=_temperature(nvml, handle),
        power_watts=power / 1000 if power is not None else None,
        processes=_processes(nvml, handle),
        cores=_ask(nvml, "nvmlDeviceGetNumGpuCores", handle),
        clock_mhz=_ask(nvml, "nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM),
    )


def _temperature(nvml: Any, handle: Any) -> int | None:
    return _ask(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU)


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    """Who holds memory, the most first; who computes and draws as well is listed twice by the driver, with the same memory."""
    held: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        query = f"nvmlDeviceGet{kind}RunningProcesses"
        listed = _ask(nvml, query, handle)
        for item in (_ask(nvml, f"{query}_v2", handle) if listed is None else listed) or ():  # an old driver knows the older form alone
            held[item.pid] = max(held.get(item.pid) or 0, item.usedGpuMemory or 0) or None
    return tuple(_process(pid, memory) for pid, memory in sorted(held.items(), key=lambda entry: -(entry[1] or 0)))


def _process(pid: int, memory_bytes: int | None) -> GpuProcess:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return GpuProcess(pid, process.username(), process.name(), memory_bytes)
    except (psutil.Error, KeyError):  # gone, another container's, or a user without a name
        return GpuProcess(pid, "", "", memory_bytes)


def _ask(nvml: Any, query: str, *arguments: Any) -> Any:
    """The answer, or None: consumer cards, MIG slices and old drivers each leave some questions out, and a card may fall off its bus."""
    try:
        return getattr(nvml, query)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None
    except Exception as error:
        if type(error).__name__ != "NVMLLibraryMismatchError":  # what the package raises where the driver is older than itself
            raise
        return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
