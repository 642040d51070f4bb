"""Reach Ray: a cluster that is named, or a local one; started on first use, stopped at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from pipeline.connection import connect, prepare_connection
from pipeline.shared_paths import check_shared
from pipeline.signals import held_back

LOCAL_OBJECT_STORE_BYTES = 1_000_000_000


class Cluster:
    """Ray, when a stage first asks for it. A cluster that was there before is left running.

    `address` (default RAY_ADDRESS) is HOST:PORT of a cluster's head, or `auto` for one that runs on this machine;
    without one, or for `local`, Ray is started here. `wait` is for how many minutes a named cluster is waited for that
    has less than a stage asks for. `keys` are names of environment variables that stay with this process: what is
    started here does not inherit them.
    """

    def __init__(self, address: str | None = None, wait: float = 10.0, keys: Iterable[str] = ()):
        named = address or os.environ.get("RAY_ADDRESS")
        self.address = None if named == "local" else named or None
        self.wait_minutes = wait if self.address else None
        """for how long to wait for more; None for a Ray of this machine alone, which never grows"""
        self.keys = frozenset(keys)
        self.dashboard: str | None = None
        """where Ray's dashboard is, once it is reached and where there is one"""
        self._ray: ModuleType | None = None
        self._ours = contextlib.ExitStack()
        self._described: dict[str, Any] | None = None

    @property
    def started(self) -> bool:
        return self._ray is not None

    def ray(self) -> ModuleType:
        """The connected `ray` module. Raises ClusterError when the named cluster does not answer, or not to us."""
        if self._ray is None:
            # Nothing phones home unless the user turns it on.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # Actors without GPUs leave CUDA_VISIBLE_DEVICES alone; unset, Ray warns of this change at every start.
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            if self.address:
                prepare_connection(self.address)
            import ray

            if not ray.is_initialized():
                self._start(ray)
            self._ray = ray
            self._describe()
        return self._ray

    def _start(self, ray: ModuleType) -> None:
        # Ray tells of lost nodes on standard output, which is for answers alone.
        self._ours.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            with held_back():
                self._ours.callback(ray.shutdown)
                if self.address:
                    self.dashboard = connect(ray, self.address)
                else:
                    with _kept_from_children(self.keys):
                        _start_here(ray)
        except BaseException:
            self.stop()
            raise

    def describe(self) -> dict[str, Any] | None:
        """`nodes`, `cpus`, `gpus` and `address` (None for a local Ray) at the last look; None before it was started."""
        if self.started:
            self._describe()
        return self._described

    def _describe(self) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
        self._described = {"nodes": len(nodes), "cpus": cpus, "gpus": gpus, "address": self.address}

    def check_shared(self, paths: Mapping[str, str]) -> None:
        """Raise ClusterError for a path that other nodes do not see as this one does (`pipeline.shared_paths`).

        `paths` leads from keys of the job file to what stands there. With one node there is nothing to ask.
        """
        check_shared(self.ray(), paths)

    def stop(self) -> None:
        """Leave a cluster that was there; end what was started, however often it is interrupted."""
        with held_back():
            self._ours.close()
            self._ray = None


@contextlib.contextmanager
def _kept_from_children(names: Iterable[str]) -> Iterator[None]:
    """While this lasts, processes that are started do not get these environment variables."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _start_here(ray: ModuleType) -> None:
    ray.init(
        address="local",
        num_cpus=max(2, os.cpu_count() or 1),  # decoding needs a place beside the encoder, on one core too
        object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
