"""Which paths of a job its workers read and write: on more than one node all of them must see these."""

from __future__ import annotations

from pipeline.settings import Job
from stages.stage import Inputs
from stages.weights import is_weights_file
from storage.uris import RemoteFile, parse_uri


def paths_that_workers_use(job: Job, inputs: Inputs) -> dict[str, str]:
    """Key of the job file -> path: the store, a file with images, and weights that are no published ones.

    One file stands for the data set, which may be a list of addresses, a pattern of tars or a folder.
    """
    paths = {"store": job.store}
    if inputs.manifest.num_rows:
        place = parse_uri(inputs.manifest["uri"][0].as_py())
        if not isinstance(place, RemoteFile):
            paths["dataset"] = place.path
    if job.model.name.startswith("local-dir:"):
        paths["model.name"] = job.model.name.removeprefix("local-dir:")
    elif job.model.weights is not None and is_weights_file(job.model.weights):
        paths["model.weights"] = job.model.weights
    guides = {f"guides.{name}.weights": getattr(guide, "weights", None) for name, guide in job.guides.items()}
    return paths | {key: path for key, path in guides.items() if path is not None}
