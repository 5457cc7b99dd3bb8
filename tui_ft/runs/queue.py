"""The queue: runs that wait for a GPU, in order. One small file, changed under a lock, and as many waiting supervisors.

Nobody manages it: each waiting supervisor looks for itself whether it is its turn, and whoever looks drops the entries of the dead.
Each machine of a shared home has an order of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from tui_ft import home
from tui_ft.errors import InUse, RequestError, TuiFtError
from tui_ft.hardware import Hardware
from tui_ft.recipe import Plan
from tui_ft.runs import devices, identity
from tui_ft.runs.devices import Busy, Device
from tui_ft.runs.identity import Identity
from tui_ft.runs.store import Run, read_json

LOCK_SECONDS = 10.0
"""A lock on the queue is held for milliseconds; who holds it longer is stopped or on a dead file server."""


class Entry(BaseModel):
    """One run in the queue."""

    run: str
    dir: str
    ticket: int
    """The order: rising, never a time, since clocks step."""
    attempt: int
    device: str
    """A GPU's name, or cpu: only runs that wait for the same stand in each other's way."""
    wants: int | None = None
    """Bytes that must be free on the GPU."""
    supervisor: Identity
    cancelled: bool = False


class Cancelled(Exception):
    """A person took the run out of the queue."""


class Waiting:
    """One supervisor's place in the queue."""

    def __init__(self, run: Run, attempt: int, plan: Plan) -> None:
        self.run, self.plan = run, plan
        self.position = 0
        """Among those that wait on this machine, from 1; 0 before the first look."""
        self.reason = "joining the queue"
        self._entry = Entry(
            run=run.id,
            dir=str(run.path),
            ticket=0,
            attempt=attempt,
            device=devices.kind(plan),
            wants=devices.needed(plan) if plan.gpu else None,
            supervisor=identity.of(os.getpid()),
        )

    def look(self) -> Device | None:
        """The device, once it is this run's turn and it is free; the run has left the queue then.

        Raises:
            Cancelled: it was taken out.
            TuiFtError: the queue cannot be read or written at present.
        """
        machine = devices.read()  # before the lock: a driver that answers slowly must not hold up the others
        found: Device | Busy | None = None
        try:
            with _locked() as entries:
                found = self._try(entries, machine)
        except TuiFtError:
            if isinstance(found, Device):
                found.release()  # the queue still says that it waits, so it does
            raise
        if isinstance(found, Device):
            return found
        self.reason = found.reason
        return None

    def _try(self, entries: list[Entry], machine: Hardware) -> Device | Busy:
        mine = self._mine(entries)
        here = [entry for entry in entries if entry.supervisor.host == mine.supervisor.host and not entry.cancelled]
        ahead = [entry for entry in here if _order(entry) < _order(mine)]
        self.position = len(ahead) + 1
        if mine.cancelled:
            entries.remove(mine)
            raise Cancelled
        if any(entry.device == mine.device for entry in ahead):
            return Busy(f"{ordinal(self.position)} in the queue")
        found = devices.take(self.run, self.plan, machine)
        if isinstance(found, Device):
            entries.remove(mine)
        return found

    def leave(self) -> None:
        """Give the place up; where that cannot be written, the others see that this process is gone."""
        with suppress(TuiFtError), _locked() as entries:
            entries[:] = [entry for entry in entries if entry.run != self.run.id]

    def _mine(self, entries: list[Entry]) -> Entry:
        """This run's entry; a new one at the end, or where it was, should the file have been lost."""
        found = next((entry for entry in entries if entry.run == self.run.id and entry.supervisor == self._entry.supervisor), None)
        if found is None:
            entries[:] = [entry for entry in entries if entry.run != self.run.id]
            ticket = self._entry.ticket or max((entry.ticket for entry in entries), default=0) + 1
            found = self._entry.model_copy(update={"ticket": ticket})
            entries.append(found)
            entries.sort(key=_order)
        self._entry.ticket = found.ticket
        return found


def take_at_once(run: Run, plan: Plan) -> Device | Busy:
    """The device for a run that does not queue.

    Raises:
        TuiFtError: the locks cannot be written.
    """
    machine = devices.read()
    with _locked():
        return devices.take(run, plan, machine)


def check_free(plan: Plan, remedy: str = "--queue waits for it, --force shares it.") -> None:
    """Refuse a run that does not queue while its device is another run's.

    Args:
        remedy: what a person can do about it, as a sentence.

    Raises:
        InUse: with what can be done.
    """
    if plan.queued or plan.shared or not devices.exists():
        return
    machine = devices.read()
    with _locked():
        busy = devices.would_be_busy(plan, machine)
    if busy:
        what = f"GPU {plan.gpu.index} ({plan.gpu.name})" if plan.gpu else "the CPU"
        raise InUse(f"{what} is in use by {busy.holder}", remedy)


def listing() -> list[Entry]:
    """The living entries in order, those of other machines among them.

    Raises:
        TuiFtError: the queue cannot be read.
    """
    if not devices.exists():
        return []  # who only looks leaves nothing behind
    with _locked() as entries:
        return [entry for entry in entries if not entry.cancelled]


def waiting_behind(run: Run) -> int:
    """How many runs on this machine wait for a device like this run's; 0 where that cannot be told."""
    try:
        device = devices.kind(run.plan())
        return sum(entry.device == device and entry.supervisor.is_here() and entry.run != run.id for entry in listing())
    except TuiFtError:
        return 0


def position(entry: Entry, entries: list[Entry]) -> int:
    """From 1, among those of the same machine."""
    return sum(other.supervisor.host == entry.supervisor.host and _order(other) <= _order(entry) for other in entries)


def reason(entry: Entry) -> str:
    """Why it waits, in its supervisor's words."""
    told = read_json(Run(Path(entry.dir)).owner_file).get("queued")
    return str(told.get("reason", "")) if isinstance(told, dict) else ""


def move(run: Run, to: int) -> int:
    """Put a waiting run at position `to` (from 1) among those of its machine; the position it has now.

    Raises:
        RequestError: it does not wait, or `to` is below 1.
        TuiFtError: the queue cannot be written.
    """
    if to < 1:
        raise RequestError(f"{to} is no position in the queue", "1 is the next to begin.")
    with _locked() as entries:
        mine = _find(run, entries)
        order = [entry for entry in entries if entry.supervisor.host == mine.supervisor.host and not entry.cancelled]
        tickets = [entry.ticket for entry in order]
        order.remove(mine)
        order.insert(to - 1, mine)
        for entry, ticket in zip(order, tickets, strict=True):
            entry.ticket = ticket
        entries.sort(key=_order)
        return order.index(mine) + 1


def cancel(run: Run) -> None:
    """Take a waiting run out of the queue: its supervisor ends at its next look, within a second.

    Raises:
        RequestError: it does not wait.
        TuiFtError: the queue cannot be written.
    """
    with _locked() as entries:
        _find(run, entries).cancelled = True


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _find(run: Run, entries: list[Entry]) -> Entry:
    found = next((entry for entry in entries if entry.run == run.id and not entry.cancelled), None)
    if found is None:
        raise RequestError(f"{run.id} is not in the queue", "`tui-ft queue` lists those that wait.")
    return found


@contextmanager
def _locked() -> Iterator[list[Entry]]:
    """The entries of the living, for this process alone; what the block makes of them is written.

    Raises:
        TuiFtError: the queue cannot be locked, read or written.
    """
    try:
        place = devices.folder()
        handle = os.open(place / "queue.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TuiFtError(f"the queue in {home.home() / 'queue'} cannot be used: {error.strerror}", "Check the folder's permissions.") from None
    try:
        _wait_for(handle, place)
        before = _read(place)
        entries = [entry for entry in before if not _is_dead(entry)]
        kept = [entry.model_copy() for entry in before]
        try:
            yield entries
        finally:
            if entries != kept:
                home.write_atomically(place / "queue.json", "[" + ",\n".join(entry.model_dump_json() for entry in entries) + "]")
    except OSError as error:
        raise TuiFtError(f"the queue in {place} cannot be written: {error.strerror}", "Check free space and permissions.") from None
    finally:
        os.close(handle)


def _wait_for(handle: int, place: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TuiFtError(
                    f"another process holds the queue in {place} for over {LOCK_SECONDS:.0f} s", "Is one of your runs suspended?"
                ) from None
            time.sleep(0.01)


def _read(place: Path) -> list[Entry]:
    """The entries in order; none where the file is missing or damaged, for each waiting supervisor enters itself again."""
    try:
        found = [Entry.model_validate(item) for item in json.loads((place / "queue.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, ValidationError):
        return []
    return sorted(found, key=_order)


def _order(entry: Entry) -> tuple[int, str]:
    return entry.ticket, entry.run  # two tickets are the same only after the file was lost


def _is_dead(entry: Entry) -> bool:
    return entry.supervisor.host == socket.gethostname() and not entry.supervisor.is_alive()
