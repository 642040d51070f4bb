"""A pool of Ray actors that nodes join and leave: who is at work, who still waits for room, what each has in hand.

An actor gets batches once its `setup` has answered, so one that waits for room, or for its model, holds nothing up.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from stages.batches import Batch
from storage import files


@dataclass(eq=False)
class Member:
    """An actor of the pool."""

    actor: Any
    among: frozenset[str]
    """ids of the nodes that were alive when it was started"""
    node: str | None = None
    """id of its node; None while it waits for room"""
    ready: bool = False
    """whether its setup has answered"""
    load: dict[Any, Batch] = field(default_factory=dict)
    """what it has in hand, by the reference of the answer"""


class Event(NamedTuple):
    """What an actor answered, or the error that says it cannot."""

    member: Member
    what: Batch | Literal["place", "setup"]
    answer: Any = None
    death: Exception | None = None


class ActorPool:
    """Actors that `start_actor()` makes, each with `in_flight` batches at most, on nodes that see all paths `seen`."""

    def __init__(self, ray: Any, start_actor: Callable[[], Any], in_flight: int, seen: Sequence[str]):
        self.ray = ray
        self.start_actor = start_actor
        self.in_flight = in_flight
        self.seen = list(seen)
        self.home = ray.get_runtime_context().get_node_id()
        self.members: list[Member] = []
        self.calls: dict[Any, tuple[Member, Literal["place", "setup"]]] = {}
        self.flying: dict[Any, Member] = {}

    def grow_to(self, wanted: int) -> None:
        """Start actors up to that number, or let go of those beyond it that have not found room."""
        for _ in range(wanted - len(self.members)):
            self._start()
        waiting = [member for member in self.members if member.node is None and not member.ready]
        for member in waiting[::-1][: max(0, len(self.members) - wanted)]:
            self.remove(member)

    def _start(self) -> None:
        member = Member(self.start_actor(), self.living())
        self.members.append(member)
        self.calls[member.actor.__ray_call__.remote(_take_place, self.seen)] = (member, "place")
        self.calls[member.actor.setup.remote()] = (member, "setup")

    def living(self) -> frozenset[str]:
        """Ids of the nodes that are alive, as far as the cluster knows."""
        return frozenset(node["NodeID"] for node in self.ray.nodes() if node["Alive"])

    def check_home(self) -> None:
        """Raise RuntimeError when this process's own node is gone: Ray would never answer, and never say so."""
        if self.home not in self.living():
            raise RuntimeError(
                "Ray ended on this machine: its raylet was killed, or ran out of memory. What is computed is kept; "
                "run again to go on"
            )

    def crowd(self, room: Callable[[str], int]) -> list[Member]:
        """Actors beyond what their living nodes have room for, by `room(node)`, but for the first on each."""
        living, found = self.living(), []
        for node in {member.node for member in self.members} & living:
            here = [member for member in self.members if member.node == node]
            found += here[max(1, room(node)) :]
        return found

    def free(self) -> list[Member]:
        """Actors that may take another batch, the least loaded first."""
        able = [member for member in self.members if member.ready and len(member.load) < self.in_flight]
        return sorted(able, key=lambda member: len(member.load))

    @property
    def at_work(self) -> bool:
        """Whether any actor found room."""
        return any(member.ready or member.node is not None for member in self.members)

    def submit(self, member: Member, batch: Batch, reference: Any) -> None:
        member.load[reference] = batch
        self.flying[reference] = member

    def answered(self, seconds: float) -> list[Any]:
        """All calls that are answered by now, or the first that is within so many seconds; none after these."""
        watched = [*self.calls, *self.flying]
        ready, _ = self.ray.wait(watched, num_returns=len(watched), timeout=0)
        if not ready:
            ready, _ = self.ray.wait(watched, num_returns=1, timeout=seconds)
        return ready  # in the order of `watched`: an actor's place and setup before its answers

    def event_of(self, reference: Any) -> Event | None:
        """What that answer says; None where its actor was let go since. Raises what an actor's own code raised."""
        if reference in self.calls:
            member, what = self.calls.pop(reference)
        elif reference in self.flying:
            member = self.flying.pop(reference)
            what = member.load.pop(reference)
        else:
            return None
        try:
            answer = self.ray.get(reference)
        except deaths(self.ray) as death:
            return Event(member, what, death=death)
        if what == "place":
            member.node = answer
        elif what == "setup":
            member.ready = True
        return Event(member, what, answer)

    def remove(self, member: Member) -> list[Batch]:
        """Let go of an actor, dead, alive or waiting for room; returns the batches that it had in hand."""
        self.members.remove(member)
        self.calls = {call: of for call, of in self.calls.items() if of[0] is not member}
        for reference in member.load:
            del self.flying[reference]
        self.ray.kill(member.actor)
        return list(member.load.values())

    def stop(self) -> None:
        for member in self.members:
            self.ray.kill(member.actor)


def _take_place(actor: Any, seen: list[str]) -> str:
    """Called in an actor: the id of its node. Raises FileNotFoundError for a path that the node does not see.

    A node that joined may not have the shared folder: what is written there would be lost, what is read be rejected.
    """
    import ray

    for path in seen:
        check_seen(path)
    return ray.get_runtime_context().get_node_id()


def check_seen(path: str) -> None:
    """Raise FileNotFoundError for a path that this process's node does not see."""
    if not files.exists(path):
        raise FileNotFoundError(
            f"node {platform.node()} does not see {path}: store and images must be in folders that all nodes share, "
            "or on an object store (s3://...)"
        )


def seen_first(path: str, work: Callable[..., None], *arguments: Any) -> None:
    """A task's work, once its node is known to see the path; raises as `check_seen`."""
    check_seen(path)
    work(*arguments)


def deaths(ray: Any) -> tuple[type[Exception], ...]:
    """Errors that mean a process or node went away, not that code raised."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.ObjectLostError,
        errors.OutOfMemoryError,
        errors.LocalRayletDiedError,
    )


def actor_deaths(ray: Any) -> tuple[type[Exception], ...]:
    """Those after which an actor is gone; Ray says of one that it killed for memory only that memory ran out."""
    return ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError


def is_loss(ray: Any, death: Exception) -> bool:
    """Whether the cluster lost something, a node or touch with it, so that no row can be to blame."""
    errors = ray.exceptions
    lost = (errors.NodeDiedError, errors.ObjectLostError, errors.LocalRayletDiedError, errors.ActorUnavailableError)
    return isinstance(death, lost) or getattr(death, "preempted", False)
