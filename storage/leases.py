"""Who works on what in a store: a claim a run, a small file `leases/<run>.json`, on folders and object stores alike.

No atomic create is needed. A run writes its claim, then lists and reads all others: of two that want the same thing the
one that wrote last sees the other, and withdraws. So two never hold it at once; both may withdraw, and try again.

A claim is renewed every few seconds. One that is older than a minute by the store's own clock is dead (stamps are
compared with that of the file just written, so the clocks of hosts do not matter), and so is at once one whose process
on this host is gone. Whoever takes removes dead claims.
"""

from __future__ import annotations

import json
import os
import platform
import random
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from storage import files

RENEWED_EVERY = 10.0
"""Seconds between renewals."""
LOST_AFTER = 45.0
"""Seconds without a renewal after which a run itself no longer relies on its claim: before anybody calls it dead."""
DEAD_AFTER = 60.0
"""Seconds without a renewal, by the store's clock, after which a claim counts for nothing."""
TRIES = 4
PAUSE = 0.3
"""Seconds, at most, before the second try; each further one may wait longer, so that two do not meet again."""


class Held(RuntimeError):
    """What was asked for is held by other runs: `holders`, each with run, job, host, process, since and resources."""

    def __init__(self, holders: list[dict[str, Any]]):
        super().__init__("; ".join(f"{one['resources'][0]} is held by run {one['run']}" for one in holders))
        self.holders = holders


class LeaseLost(RuntimeError):
    """The claim was not renewed in time or was removed: others may have taken what it named."""


class Claims:
    """What one run holds in a store. A context manager that releases at its end; nothing is written before `take`.

    `holder` says who it is to those it keeps waiting, at least {"job": name}.
    """

    def __init__(self, store: str, run: str, holder: Mapping[str, Any]):
        self.store, self.run = store, run
        self.path = os.path.join(_folder(store), f"{run}.json")
        self.holder = {"run": run, **holder, **_this_process()}
        self.exclusive: frozenset[str] = frozenset()
        self.shared: frozenset[str] = frozenset()
        self._lock = threading.RLock()
        self._renewed, self._lost = 0.0, False
        self._visible = False
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def take(self, exclusive: Iterable[str], shared: Iterable[str] = ()) -> None:
        """Hold these as well, all or none. Raises Held with those who hold some of it, after a few tries."""
        wanted = self.exclusive | set(exclusive), self.shared | set(shared)
        if wanted == (self.exclusive, self.shared) and self.is_intact():
            return
        for attempt in range(TRIES):
            if attempt:
                time.sleep(random.uniform(0, PAUSE * 2**attempt))
            with self._lock:
                holders = _finish(self.attempt(*wanted))
            if not holders:
                self._keep_renewing()
                return
        raise Held(holders)

    def attempt(self, exclusive: frozenset[str], shared: frozenset[str]) -> Generator[str, None, list[dict[str, Any]]]:
        """One try of `take`, which stops after each step that others can see; returns who is in the way, if anybody."""
        # What was not renewed in time may be another's by now: it is asked for anew, never written back.
        former = (self.exclusive, self.shared) if self.is_intact() else (frozenset(), frozenset())
        self._write(exclusive, shared)
        yield "written"
        others = yield from self._living_others()
        holders = [_told(other, disputed) for other in others if (disputed := _disputed(exclusive, shared, other))]
        if not holders:
            self.exclusive, self.shared, self._lost = exclusive, shared, False
        else:
            self.exclusive, self.shared = former
            if any(former):
                self._write(*former)
            else:
                files.remove_file(self.path)
            yield "withdrawn"
        return holders

    def give_up(self, resources: Iterable[str]) -> None:
        """Hold these no longer, so that others can take them while this run goes on."""
        gone = set(resources)
        with self._lock:
            self._lost = not self.is_intact()
            self.exclusive, self.shared = self.exclusive - gone, self.shared - gone
            if self._renewing is not None:
                self._write(self.exclusive, self.shared)

    def in_the_way(self, exclusive: Iterable[str], shared: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Who keeps this run from taking these now, as in `Held`; for one that waits and holds nothing meanwhile."""
        with self._lock:
            self._write(self.exclusive, self.shared)  # its stamp is the clock, and wanting is not told to others
            others = _finish(self._living_others())
        return [_told(other, disputed) for other in others if (disputed := _disputed(exclusive, shared, other))]

    def check(self) -> None:
        """Raise LeaseLost unless all that was taken has been this run's without a gap."""
        if not self.is_intact():
            self._lost = True
            raise LeaseLost(
                f"this run was out of touch with {self.store} for a while (its machine or the store did not answer), "
                "and another run may have gone on in its place. What is computed is kept: run again"
            )

    def is_intact(self) -> bool:
        """Whether all that was taken has been this run's without a gap."""
        with self._lock:
            return not self._lost and _now() - self._renewed <= LOST_AFTER and files.exists(self.path)

    def release(self) -> None:
        """Give everything up. A store that does not answer is left: the claim dies of its age."""
        self._ended.set()
        if not self._visible or not self._lock.acquire(timeout=5):
            return
        try:
            self.exclusive, self.shared, self._renewing = frozenset(), frozenset(), None
            self._visible = False
            with suppress(OSError):
                files.remove_file(self.path)
        finally:
            self._lock.release()

    def _keep_renewing(self) -> None:
        if self._renewing is None:
            self._ended = threading.Event()
            self._renewing = threading.Thread(target=self._renew_always, args=(self._ended,), daemon=True)
            self._renewing.start()

    def _renew_always(self, ended: threading.Event) -> None:
        while not ended.wait(RENEWED_EVERY):
            with suppress(OSError), self._lock:  # a store that hiccups is asked again; `check` knows how long it took
                if not ended.is_set():
                    self.renew()

    def renew(self) -> None:
        """Write the claim anew. One that came too late is lost, and what another run took since is given up."""
        with self._lock:
            was_there, before = files.exists(self.path), self._renewed
            self._write(self.exclusive, self.shared)
            if was_there and _now() - before <= LOST_AFTER:
                return
            self._lost = True  # `take` alone makes up for it, since somebody may have come and gone in the gap
            others = _finish(self._living_others())
            if any(_disputed(self.exclusive, self.shared, other) for other in others):
                self.exclusive = self.shared = frozenset()
                self._write(self.exclusive, self.shared)

    def _write(self, exclusive: Iterable[str], shared: Iterable[str]) -> None:
        claim = {**self.holder, "exclusive": sorted(exclusive), "shared": sorted(shared)}
        begun, self._visible = _now(), True
        data = json.dumps(claim, indent=1).encode()
        files.write_atomic(self.path, data, self.run)
        self._renewed = begun

    def _living_others(self) -> Generator[str, None, list[dict[str, Any]]]:
        """The living claims but this one, read after the own one was written; dead ones are removed."""
        stamps = dict(files.list_stamped(_folder(self.store), ".json"))
        yield "listed"
        now, living = stamps.get(self.path, max(stamps.values(), default=0.0)), []
        for path, stamp in stamps.items():
            if path == self.path:
                continue
            claim = _read(path)
            yield "read"
            if claim is None:
                continue
            if _is_dead(claim, now - stamp):
                files.remove_file(path)
                yield "removed"
            else:
                living.append(claim)
        return living


def living_runs(store: str) -> set[str]:
    """Ids of the runs that hold a claim.

    The newest claim's stamp is the clock, and exact where the asking run has just taken one. Else a claim that another
    host left behind may still count as living, as long as nobody takes one.
    """
    return {claim["run"] for claim in _living_claims(store)}


def claimed(store: str) -> set[str]:
    """Resources that any living run holds, exclusive or shared; living as in `living_runs`."""
    return {name for claim in _living_claims(store) for name in (*claim["exclusive"], *claim["shared"])}


def _living_claims(store: str) -> list[dict[str, Any]]:
    stamps = dict(files.list_stamped(_folder(store), ".json"))
    now = max(stamps.values(), default=0.0)
    claims = ((_read(path), now - stamp) for path, stamp in stamps.items())
    return [claim for claim, age in claims if claim is not None and not _is_dead(claim, age)]


def _folder(store: str) -> str:
    return os.path.join(store, "leases")


def _read(path: str) -> dict[str, Any] | None:
    """A claim; None where it has just been given up, or is not one."""
    try:
        claim = json.loads(files.read_bytes(path))
    except (FileNotFoundError, ValueError):
        return None
    return claim if isinstance(claim, dict) and {"run", "exclusive", "shared"} <= claim.keys() else None


def _disputed(exclusive: Iterable[str], shared: Iterable[str], claim: Mapping[str, Any]) -> list[str]:
    """What of this cannot be had beside a claim: exclusive goes with nothing, shared with shared alone."""
    against = set(exclusive) & {*claim["exclusive"], *claim["shared"]}
    return sorted(against | set(shared).intersection(claim["exclusive"]))


def _told(claim: Mapping[str, Any], resources: list[str]) -> dict[str, Any]:
    """What a person should know of a claim that is in the way of these resources."""
    return {name: claim.get(name) for name in ("run", "job", "host", "process", "since")} | {"resources": resources}


def _is_dead(claim: Mapping[str, Any], age: float) -> bool:
    """`age`: seconds since the claim was written, by the store's clock."""
    if age > DEAD_AFTER:
        return True
    machine = _machine()
    if machine is None or claim.get("machine") != machine:
        return False
    try:
        os.kill(claim["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, which /proc may hide
        return _started(claim["process"]) not in (None, claim["started"])
    return _started(claim["process"]) != claim["started"]


def _this_process() -> dict[str, Any]:
    """Host and process of this claim, and since when, by the host's clock: for people, and for others on this host."""
    return {
        "host": platform.node(),
        "machine": _machine(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _machine() -> str | None:
    """What is the same for processes that see each other: host, its boot, and the namespace that numbers processes.

    None where the system does not tell (no Linux): then claims die of their age alone.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(process: int) -> str | None:
    """When a process of this host was started, in ticks since it booted, since numbers are given again; None: gone."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _now() -> float:
    """Seconds on a clock that also runs while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _finish(steps: Generator[str, None, Any]) -> Any:
    """What a generator returns once all of its steps are done."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            return ended.value
