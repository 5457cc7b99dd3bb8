"""`tui-ft doctor`: is this machine ready, and what would make it so. Loads no torch, shows no token."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from tui_ft import __version__, home, units
from tui_ft.findings import Finding
from tui_ft.hardware import Hardware, free_disk, read
from tui_ft.runs.launch import is_lingering
from tui_ft.text import one_line

LITTLE_DISK = 10 * 10**9
"""Free bytes below which a model and its checkpoints soon meet the end of the disk."""
LITTLE_MEMORY = 4 * 10**9
SMALL_SCREEN = (80, 24)
SYSTEMD = Path("/run/systemd/system")
"""There where systemd has booted the machine."""
LOGIND = tuple(Path(root, "systemd") for root in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
"""Where the login manager is configured, the most telling first."""
_WITHOUT_METADATA = ("torch", "transformers", "datasets", "peft", "trl", "bitsandbytes", "textual")  # checked where we run uninstalled


def examine() -> list[Finding]:
    """Every check with its result, in the order a person reads them; `error` means that training cannot work."""
    machine = read()
    return [*_python(), *_packages(), *_gpus(machine), *_memory(machine), *_home(), *_terminal(), *_session(), *_hub()]


def _python() -> Iterator[Finding]:
    found = f"Python {platform.python_version()}, tui-ft {__version__}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("ok", "python", found)
    else:
        yield Finding("error", "python", found, "tui-ft needs Python 3.11 to 3.13.")


def _packages() -> Iterator[Finding]:
    """Each dependency against the versions that this release was made for."""
    try:
        wanted = [Requirement(text) for text in requires("tui-ft") or []]
    except PackageNotFoundError:
        wanted = [Requirement(name) for name in _WITHOUT_METADATA]
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("error", "package", f"{requirement.name} is missing", f"pip install '{requirement}'")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding("ok", "package", f"{requirement.name} {found}")
        else:
            yield Finding("error", "package", f"{requirement.name} {found} is not {requirement.specifier}", f"pip install '{requirement}'")


def _gpus(machine: Hardware) -> Iterator[Finding]:
    if not machine.gpus:
        yield Finding("warning", "gpu", machine.note, "Small models train on a CPU as well.")
        return
    for gpu in machine.gpus:
        age = f", compute capability {gpu.capability[0]}.{gpu.capability[1]}" if gpu.capability else ""
        text = f"{gpu.index}: {gpu.name}, {gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB free{age}, driver {machine.driver}"
        holders = ", ".join(f"{p.name or 'process'} ({p.user or 'unknown user'}, pid {p.pid})" for p in gpu.processes[:4])
        yield Finding("ok", "gpu", f"{text}; in use by {holders}" if holders else text)
    yield from _cuda_build()


def _cuda_build() -> Iterator[Finding]:
    """A CPU build of torch beside a GPU is the commonest fault of all; its version says so without importing it."""
    try:
        build = version("torch").partition("+")[2]
        cuda = any("nvidia" in text or "cuda" in text for text in distribution("torch").requires or [])
    except PackageNotFoundError:
        return
    if build == "cpu" or not (cuda or build.startswith("cu")):
        yield Finding("error", "gpu", "torch is installed without CUDA, so the GPU would stay idle", "Install torch's CUDA build; see pytorch.org.")


def _memory(machine: Hardware) -> Iterator[Finding]:
    text = f"{units.size(machine.ram_free)} of {units.size(machine.ram_total)} free, {machine.cpus} processors"
    scarce = machine.ram_free < LITTLE_MEMORY
    yield Finding("warning" if scarce else "ok", "memory", text, "Weights pass through main memory on their way to the GPU." if scarce else "")


def _home() -> Iterator[Finding]:
    place = home.home()
    try:
        home.private_folder(place)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Finding("error", "home", f"{place} cannot be written: {error.strerror}", "Set TUI_FT_HOME to a folder that can.")
    else:
        exposed = home.exposure(place)
        hint = f"`chmod go-w {place}`, or set TUI_FT_HOME to a folder of your own." if exposed else ""
        yield Finding("error" if exposed else "ok", "home", f"{place} can be written" + (f", but {exposed}" if exposed else ""), hint)
    free = free_disk(place)
    if free is None:
        return
    if free < LITTLE_DISK:
        yield Finding("warning", "disk", f"{units.size(free)} free at {place}", "Set TUI_FT_HOME to a larger disk; HF_HOME moves downloaded models.")
    else:
        yield Finding("ok", "disk", f"{units.size(free)} free at {place}")


def _terminal() -> Iterator[Finding]:
    if not sys.stdout.isatty():
        yield Finding("ok", "terminal", "none here (output goes to a file or a program)")
        return
    size = shutil.get_terminal_size()
    if size.columns < SMALL_SCREEN[0] or size.lines < SMALL_SCREEN[1]:
        yield Finding("warning", "terminal", f"{size.columns}×{size.lines} cells", "The screens want 80×24 or more.")
    else:
        yield Finding("ok", "terminal", f"{size.columns}×{size.lines} cells")
    if os.environ.get("NO_COLOR"):
        yield Finding("ok", "colours", "off, by NO_COLOR")
    elif os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        yield Finding("ok", "colours", "16 million")
    elif "256color" in os.environ.get("TERM", ""):
        yield Finding("ok", "colours", "256")
    else:
        term = one_line(os.environ.get("TERM") or "not set", 40)
        yield Finding("warning", "colours", f"TERM is {term}: few colours", "Set TERM=xterm-256color if it can show them.")


def _session() -> Iterator[Finding]:
    """Runs outlive the terminal by themselves; only a login manager set to end all processes of a user can stop them."""
    if os.environ.get("TMUX") or os.environ.get("STY"):
        yield Finding("ok", "session", "inside tmux or screen")
    else:
        installed = "tmux is installed" if shutil.which("tmux") else "tmux is not installed"
        yield Finding("ok", "session", f"{installed}; runs go on without it when the terminal closes")
    if SYSTEMD.is_dir():
        yield _logout()


def _logout() -> Finding:
    """What systemd does to a run when its owner logs out."""
    place = _kills_at_logout()
    if is_lingering():
        scope = "runs are started under your own manager, out of reach of the login" if shutil.which("systemd-run") else "processes outlive the login"
        return Finding("ok", "logout", f"linger is on: {scope}")
    if place is None:
        return Finding("ok", "logout", "linger is off, but the login manager does not end processes at logout (KillUserProcesses is not set)")
    return Finding(
        "warning",
        "logout",
        f"linger is off, and the login manager ends all your processes at logout, your runs among them (KillUserProcesses=yes in {place})",
        "loginctl enable-linger     (once; where you may not, ask the administrator)",
    )


def _kills_at_logout() -> Path | None:
    """The file that says `KillUserProcesses=yes`; None where nothing does, as is the default.

    A drop-in beats the file, a later name an earlier one, whichever folder it is in; of two with one name that in the first folder counts.
    """
    drop_ins: dict[str, Path] = {}
    for folder in reversed(LOGIND):
        drop_ins |= {file.name: file for file in (folder / "logind.conf.d").glob("*.conf")}
    base = next((folder / "logind.conf" for folder in LOGIND if (folder / "logind.conf").is_file()), None)
    found = None
    for file in [*([base] if base else []), *(drop_ins[name] for name in sorted(drop_ins))]:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for setting in lines:
            key, equals, value = setting.partition("=")
            if equals and key.strip() == "KillUserProcesses":
                found = file if value.split("#")[0].strip().lower() in ("yes", "true", "on", "1", "y", "t") else None
    return found


def _hub() -> Iterator[Finding]:
    from huggingface_hub import get_token

    if get_token():
        yield Finding("ok", "hub", "a token is there (it is not shown)")
    else:
        yield Finding("ok", "hub", "no token: public models and datasets only; `hf auth login` adds one")
