"""A job over files that are no pictures, and made-up features of them: all but the encoders and Ray is real."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.job_file import load_job
from pipeline.plan import Plan, make_plan
from stages.build_caches import _choose_and_append, _lacking
from stages.encode_images import describe_table
from stages.stage import Run
from storage.schemas import fixed_list
from storage.shards import ShardTable

D = 8
SCALE = 20.0
"""the model's logit scale, where a world has no other"""
FOLDERS = {"query": "test", "validation": "val", "support": "train"}


class World:
    """A job in `folder`; methods that make features and rows of the stages, each as far as the plan wants them."""

    def __init__(self, folder: Path, model: Path, write_job: Callable[..., Path]):
        self.folder, self.model, self.write_job = folder, model, write_job
        self.marks: dict[str, list[str]] = {}
        self.scale = SCALE

    def add(self, split: str, **counts: int) -> None:
        """Files of a split until there are so many of each class; without a label under the name `_`."""
        for name, count in counts.items():
            where = self.folder / "photos" / FOLDERS[split] / ("" if name == "_" else name)
            where.mkdir(parents=True, exist_ok=True)
            for file in (where / f"{number}.png" for number in range(count)):
                if not file.exists():
                    file.write_bytes(b"")

    def job(self, *methods: str | Mapping[str, Any], classes: Sequence[str] = (), **keys: Any) -> None:
        """Write the job file, and let describe run; descriptions are those of `marks`, the set `marks`.

        `classes` are all there are, where folders do not say them.
        """
        (self.folder / "marks.json").write_text(json.dumps(self.marks))
        splits = {split: name for split, name in FOLDERS.items() if (self.folder / "photos" / name).exists()}
        dataset: dict[str, Any] = {"path": "photos", "splits": splits}
        if classes:
            (self.folder / "classes.txt").write_text("\n".join(classes))
            dataset["classes"] = "classes.txt"
        self.file = self.write_job(
            self.folder,
            dataset=dataset,
            model={"name": f"local-dir:{self.model}"},
            **({"descriptors": {"marks": {"provider": "file", "path": "marks.json"}}} if self.marks else {}),
            methods=list(methods),
            **keys,
        )
        plan = self.plan()
        describe = plan.of("describe")
        tables = [table for table in describe.tables if table.missing]
        describe.stage.compute(tables, plan.inputs, Run("run", lambda done, rejected: None, lambda: None))

    def plan(self) -> Plan:
        return make_plan(load_job(self.file))

    def encode(self, *splits: str, reject: str = "") -> None:
        """Rows of encode_text, and of encode_images those of these splits, by default of all; an id may be rejected."""
        plan = self.plan()
        ids = {row["key"]: row["id"] for row in plan.inputs.manifest.to_pylist()}
        for table in plan.of("encode_images").tables:
            table.keeper.create(describe_table(table))
            folders = [FOLDERS[split] for split in splits or FOLDERS]
            keys = [key for key in table.missing.to_pylist() if ids[key].split("/")[0] in folders]
            if refused := [{"key": key, "uri": key, "reason": "empty"} for key in keys if ids[key] == reject]:
                table.keeper.reject(refused, "encode_images", "run")
            if keys := [key for key in keys if ids[key] != reject]:
                table.keeper.append(_rows(keys, [self.vectors(table, ids[key]) for key in keys]), "run")
        (texts,) = plan.of("encode_text").tables
        missing = set(texts.missing.to_pylist())
        if said := {text: key for text, key in texts.plan.keys.items() if key in missing}:
            vectors = np.stack([self.text(text) for text in said]).astype(np.float32)
            scales = pa.array([self.scale] * len(said), pa.float32())
            rows = {"key": list(said.values()), "vector": fixed_list(vectors), "logit_scale": scales}
            texts.keeper.append(pa.table(rows), "run")

    def vectors(self, table, identity: str) -> np.ndarray:
        """Features [N, D] of an image in a table of encode_images, of lengths other than one: near their class's."""
        count = 1 if table.plan is None else table.plan[0].crops
        own = np.random.default_rng(list(f"{table.name} {identity}".encode())).normal(size=(count, D))
        centre = np.random.default_rng(list(identity.split("/")[1].encode())).normal(size=D)
        return 1.5 * centre + own

    def text(self, text: str) -> np.ndarray:
        vector = np.random.default_rng(list(text.encode())).normal(size=D)
        return vector / np.linalg.norm(vector)

    def choose(self) -> list[pa.Table]:
        """The rows that tables of build_caches lacked, made and appended: key, image and class, a table each."""
        made = []
        for table in self.plan().inputs.tables("build_caches"):
            source, rows = table.plan, _lacking(table)
            if len(rows):
                folders = (source.texts, source.view.keeper.folder, table.keeper.folder)
                _choose_and_append(rows, source.prompts, source.crops, *folders, "run")
            made.append(rows)
        return made

    def table(self, stage: str, name: str = ""):
        """The only table of a stage, or that of this name."""
        (found,) = [table for table in self.plan().of(stage).tables if name in ("", table.name)]
        return found


def _rows(keys: list[str], features: list[np.ndarray]) -> pa.Table:
    raw = np.stack(features)
    norms = np.linalg.norm(raw, axis=-1)
    return pa.table(
        {
            "key": keys,
            "vectors": fixed_list((raw / norms[..., None]).astype(np.float16)),
            "norms": fixed_list(norms.astype(np.float32)),
        }
    )


def stored(table, key: str) -> tuple[np.ndarray, np.ndarray]:
    """What a table of encode_images holds of an image: unit vectors [N, D] as they were rounded, and norms [N]."""
    row = ShardTable(table.keeper.folder).read(keys=[key]).to_pylist()[0]
    return np.array(row["vectors"], np.float64).reshape(-1, D), np.array(row["norms"], np.float64)
