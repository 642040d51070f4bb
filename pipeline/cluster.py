"""Reach Ray: a cluster that is named, or a local one; started on first use, stopped at the end."""

from __future__ import annotations

import logging
import os
from types import ModuleType

LOCAL_OBJECT_STORE_BYTES = 1_000_000_000


class Cluster:
    """Ray, when a stage first asks for it. A cluster that was there before is left running."""

    def __init__(self, address: str | None = None):
        self.address = address or os.environ.get("RAY_ADDRESS")
        self._ray: ModuleType | None = None
        self._ours = False

    @property
    def started(self) -> bool:
        return self._ray is not None

    def ray(self) -> ModuleType:
        """The connected `ray` module. Raises ConnectionError when the named cluster does not answer."""
        if self._ray is None:
            # Nothing phones home unless the user turns it on.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # Actors without GPUs leave CUDA_VISIBLE_DEVICES alone; unset, Ray warns of this change at every start.
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            import ray

            if not ray.is_initialized():
                self._start(ray)
                self._ours = True
            self._ray = ray
        return self._ray

    def _start(self, ray: ModuleType) -> None:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self.address:
            ray.init(address=self.address, **quiet)
            return
        ray.init(
            num_cpus=max(2, os.cpu_count() or 1),  # decoding needs a place beside the encoder, on one core too
            object_store_memory=LOCAL_OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )

    def stop(self) -> None:
        if self._ray is not None and self._ours:
            self._ray.shutdown()
            self._ray = None
