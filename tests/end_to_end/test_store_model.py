"""A store against a model of it: images come, change and go, settings change, runs end or break off, gc removes.

The stages are the real ones, computed in this process instead of on Ray, so that hundreds of runs take seconds; what
kills of real processes do is in `test_faults.py`.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from PIL import Image

from pipeline import plan as planning
from pipeline.cluster import Cluster
from pipeline.gc import find_garbage, remove_garbage
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.run import Selection, run_job
from stages.encode_images import EncodeImages, _decode, _EncodeActor, _rows_lacking, describe_table, planned_weights
from stages.encode_text import EncodeText, _encode_and_append
from stages.score import Score, _ScoreActor
from stages.vision.names import input_size
from storage import files

from .conftest import Silent

BIRDS = ("jay", "wren")
NAMES = [f"{bird}/{number}.png" for bird in BIRDS for number in range(4)]
METHODS = ("clip", "crops_mean")


class Killed(BaseException):
    """What breaks a run off: no `except Exception` sees it."""


class TextsHere(EncodeText):
    def compute(self, tables, inputs, run):
        for table in tables:
            table.keeper.create(describe_table(table))
            missing = set(table.missing.to_pylist())
            texts = {key: text for text, key in table.plan.keys.items() if key in missing}
            weights = inputs.weights_cache(), table.ingredients.weights
            _encode_and_append(self.model, texts, table.keeper.folder, run.id, *weights)


class ImagesHere(EncodeImages):
    def compute(self, tables, inputs, run):
        for table in tables:
            table.keeper.create(describe_table(table))
        places = [(table.name, table.keeper.folder, table.plan) for table in tables]
        actor = _EncodeActor(
            self.model, {}, "fp32", "cpu", 1, places, run.id, inputs.weights_cache(), planned_weights(tables)
        )
        actor.setup()
        rows, size = list(_rows_lacking(tables, inputs.manifest)), input_size(self.model.name)
        for start in range(0, len(rows), 2):
            views = {table.name: table.plan[0] for table in tables if table.plan is not None}
            actor.encode(_decode(rows[start : start + 2], views, size, False, None))


class ScoreHere(Score):
    def compute(self, tables, inputs, run):
        lacks: dict[str, list[str]] = {}
        for table in tables:
            table.keeper.create(describe_table(table))
            for key in table.missing.to_pylist():
                lacks.setdefault(key, []).append(table.name)
        actor = _ScoreActor({table.name: table.plan[0] for table in tables}, self.settings, 1, run.id)
        actor.setup()
        for key, names in lacks.items():
            actor.score([{"key": key, "lacks": names}])


HERE = {EncodeText: TextsHere, EncodeImages: ImagesHere, Score: ScoreHere}


class Store(RuleBasedStateMachine):
    """`computed` is the model: a table under its settings -> the (image, version) of its rows."""

    model: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.images: dict[str, int] = {}
        self.versions = itertools.count()
        self.setting = {"crops": 2, "seed": 0}
        self.computed: dict[tuple, set[tuple[str, int]]] = {}
        self.predicted: dict[tuple, list] = {}
        self.reached: dict[str, int] | None = None
        """the settings that the store's registered job had, None where a run broke off and might have changed that"""

    @initialize()
    def begin(self) -> None:
        (self.folder / "photos").mkdir()
        (self.folder / "classes.txt").write_text("\n".join(BIRDS))
        (self.folder / "marks.json").write_text(json.dumps({bird: [f"a {bird} has a beak"] for bird in BIRDS}))
        self._write_job()
        self._put(NAMES[0])

    def _write_job(self) -> None:
        views = {"random": {"kind": "random", "crops": self.setting["crops"]}}
        job = {
            "store": "store",
            "dataset": {"path": "photos", "classes": "classes.txt", "version": "content"},
            "model": {"name": f"local-dir:{self.model}"},
            "descriptors": {"marks": {"provider": "file", "path": "marks.json"}},
            "views": views,
            "methods": list(METHODS),
            "seed": self.setting["seed"],
        }
        (self.folder / "job.yaml").write_text(json.dumps(job))

    def _put(self, name: str) -> None:
        version = next(self.versions)
        pixels = np.random.default_rng(version).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        (self.folder / "photos" / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(self.folder / "photos" / name)
        self.images[name] = version

    @rule(name=st.sampled_from(NAMES))
    def add_or_change_an_image(self, name: str) -> None:
        self._put(name)

    @precondition(lambda self: len(self.images) > 1)
    @rule(data=st.data())
    def delete_an_image(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.images)))
        (self.folder / "photos" / name).unlink()
        del self.images[name]

    @rule(crops=st.sampled_from([2, 3]), seed=st.sampled_from([0, 1]))
    def change_a_setting(self, crops: int, seed: int) -> None:
        self.setting = {"crops": crops, "seed": seed}
        self._write_job()

    def _tables(self) -> dict[str, tuple]:
        """Tables with a row an image, by stage and name: what decides their rows besides the images."""
        drawn = (self.setting["crops"], self.setting["seed"])
        return {
            "encode_images/whole": ("whole",),
            "encode_images/views.random": ("views", *drawn),
            "score/methods.clip": ("clip",),
            "score/methods.crops_mean": ("crops_mean", *drawn),
        }

    def _job(self):
        return load_job(self.folder / "job.yaml")

    def _stored(self) -> dict[str, set[str]]:
        """What the shards hold, by table."""
        plan = make_plan(self._job())
        return {
            f"{table.stage}/{table.name}": set(table.keeper.read(columns=["key"])["key"].to_pylist())
            if table.keeper.rows()
            else set()
            for name in ("encode_images", "score")
            for table in plan.of(name).tables
        }

    def _keys(self) -> dict[str, tuple[str, int]]:
        """Key -> (name, version) of the images that are there."""
        keys = make_plan(self._job()).inputs.manifest
        return {
            key: (identity, self.images[identity])
            for key, identity in zip(keys["key"].to_pylist(), keys["id"].to_pylist(), strict=True)
        }

    @rule()
    def run(self) -> None:
        wanted = set(self.images.items())
        missing = {name: wanted - self.computed.get(made_of, set()) for name, made_of in self._tables().items()}
        results = {each.stage: each.computed for each in self._run()}
        for stage in ("encode_images", "score"):
            expected = sum(len(keys) for name, keys in missing.items() if name.startswith(stage))
            assert results[stage] == expected, stage
        for made_of in self._tables().values():
            self.computed.setdefault(made_of, set()).update(wanted)
        self.reached = dict(self.setting)
        assert not list((self.folder / "store").rglob(".tmp-*"))
        self._check_predictions()
        assert all(each.computed == 0 for each in self._run()), "a second run has nothing to do"

    def _run(self):
        return run_job(self._job(), Silent(), Cluster(), Selection(until="evaluate"))

    def _check_predictions(self) -> None:
        """An image's predictions are those it had whenever it was scored under these settings before."""
        plan, names = make_plan(self._job()), self._keys()
        for table in plan.of("score").tables:
            made_of = self._tables()[f"score/{table.name}"]
            for row in table.keeper.read(table.wanted).to_pylist():
                known = self.predicted.setdefault((made_of, names[row["key"]]), row["logits"])
                assert row["logits"] == pytest.approx(known, rel=1e-4, abs=1e-4)
        evaluated = plan.of("evaluate")
        assert evaluated.done
        images = {table.keeper.read(columns=["images"])["images"][0].as_py() for table in evaluated.tables[:-1]}
        assert images == {len(self.images)}

    @rule(writes=st.integers(0, 15), before=st.booleans())
    def run_that_breaks_off(self, writes: int, before: bool) -> None:
        counted, write = itertools.count(), files.write_atomic

        def failing(path, data, run):
            number = next(counted)
            if number < writes or (number == writes and not before):
                write(path, data, run)
            if number >= writes:  # a dead process writes nothing more, no record either
                raise Killed

        files.write_atomic = failing
        try:
            self._run()
        except Killed:
            self.reached = None
        else:
            self.reached = dict(self.setting)
        finally:
            files.write_atomic = write
        names, stored = self._keys(), self._stored()
        for name in stored:  # those that are known yet
            had = self.computed.setdefault(self._tables()[name], set())
            kept = {names[key] for key in stored[name] if key in names}
            assert had & set(self.images.items()) <= kept, "what was computed is kept"
            had |= kept

    @precondition(lambda self: self.reached is not None)
    @rule()
    def gc(self) -> None:
        plan = make_plan(self._job())
        remove_garbage(find_garbage(plan.inputs.store, [plan]), [plan])
        reached = self._tables().values()
        registered = {("views", *self.reached.values()), ("crops_mean", *self.reached.values())}
        for made_of in list(self.computed):
            if made_of not in reached and made_of not in registered:
                del self.computed[made_of]

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


def test_a_store_holds_and_computes_what_a_model_of_it_says(tiny_model, monkeypatch):
    real = planning.stages_of

    def here(job):
        stages = real(job)
        for stage in stages:
            stage.__class__ = HERE.get(type(stage), type(stage))
        return stages

    monkeypatch.setattr(planning, "stages_of", here)
    Store.model = tiny_model
    checks = settings(max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Store, settings=checks)
