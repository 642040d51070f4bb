"""On more than one node: whether the others find the store, the images and the weights where this one does."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pipeline.cluster_error import ClusterError
from storage import files

SECONDS_TO_ANSWER = 120.0
STORE = "store"


def check_shared(ray: Any, paths: Mapping[str, str]) -> None:
    """Raise ClusterError, naming key, path, node and what to do, for a path that a node does not see as this one does.

    `paths` leads from keys of the job file to what stands there; uris (`s3://...`) pass. Of the store a file is looked
    for that is written there just now, since a folder of that name may be anywhere. Nodes that run no tasks, and those
    that die meanwhile, are not asked; where there is no other node, nothing is.
    """
    local = {key: path for key, path in paths.items() if "://" not in path}
    _check_lasting(local)
    here = ray.get_runtime_context().get_node_id()
    others = {
        node["NodeID"]: node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0 and node["NodeID"] != here
    }
    if not others:
        return
    asked = dict(local)
    if STORE in local:
        asked[STORE] = os.path.join(local[STORE], f"probe-{secrets.token_hex(8)}")
        files.write_atomic(asked[STORE], b"", run="probe")
    try:
        for node, unseen in _ask(ray, asked, others).items():
            for key in unseen:
                raise ClusterError(
                    f"{key}: node {others[node]} does not see {local[key]} as {platform.node()} does. On several nodes "
                    "put it in a folder that all of them share, at one path, or on an object store (s3://...)"
                )
    finally:
        if STORE in local:
            files.remove_file(asked[STORE])


def _check_lasting(local: Mapping[str, str]) -> None:
    """A store in Ray's copy of a working directory is gone after the job, on one node as well."""
    if "runtime_resources" in PurePath(local.get(STORE, "")).parts:
        raise ClusterError(
            f"store: {local[STORE]} lies in the copy that Ray makes of a job's working directory, and deletes after "
            "it. Give an absolute path of a folder that all nodes share, or s3://bucket/prefix"
        )


def _ask(ray: Any, asked: Mapping[str, str], nodes: Mapping[str, str]) -> dict[str, list[str]]:
    """Node -> keys of the paths that are not there. Raises ClusterError for a node that does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task, errors = ray.remote(num_cpus=0, max_retries=0)(_unseen), ray.exceptions
    answers = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(asked)
        for node in nodes
    }
    found = {}
    for node, answer in answers.items():
        try:
            found[node] = ray.get(answer, timeout=SECONDS_TO_ANSWER)
        except (errors.NodeDiedError, errors.WorkerCrashedError, errors.TaskUnschedulableError):
            continue
        except errors.GetTimeoutError:
            raise ClusterError(f"node {nodes[node]} did not answer for {SECONDS_TO_ANSWER:g} seconds") from None
    return found


def _unseen(paths: Mapping[str, str]) -> list[str]:
    """Run on a node: the keys of those paths that are not there."""
    return [key for key, path in paths.items() if not files.exists(path)]
