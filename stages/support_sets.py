"""The support and validation images that a few-shot variant reads, and the tables of their features."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from stages.build_caches import cache_ingredients
from stages.methods.few_shot import FewShotMethod
from stages.readings import Reading, Sources, SourcesOfMethods, Support, reading_of
from stages.shots import draw_shots
from stages.stage import Inputs, without
from storage.column_digest import digest_columns
from storage.fingerprint import digest


class SupportSets:
    """What the few-shot variants of a job read besides what every method reads."""

    def __init__(self, of: SourcesOfMethods, inputs: Inputs):
        self.of, self.inputs = of, inputs
        self._chosen = {digest(table.ingredients.as_dict()): table for table in inputs.tables("build_caches")}
        self._drawn: dict[tuple[int, int, frozenset[str]], tuple[pa.Table, str]] = {}
        self._validation: dict[frozenset[str], pa.Table] = {}

    def reading(self, sources: Sources) -> tuple[Reading, dict[str, str]]:
        """A variant's reading, with its support set, and digests of that set and of what its keys are made of.

        Raises ValueError where the support split has no labelled image.
        """
        method = sources.method
        features = sources.whole
        if method.chooses_crops:
            features = sources.view
        elif method.augmentations is not None:
            features = self.of.view(method.augmentations, sources.seed)
        if not len(draw_shots(self.inputs.manifest, 1, 0)):
            raise ValueError(
                f"methods.{method.row_name}: the data set has no labelled image in its support split; "
                "say which one it is, for example dataset: {splits: {query: test, support: train}}"
            )
        shots, content = self._shots(method, features.rejected | sources.rejected)
        wholes = {"support": content, "features": features.fingerprint}
        chosen = None
        if method.chooses_crops:
            table = self._chosen[digest(cache_ingredients(sources, self.of).as_dict())]
            wholes["build_caches"], chosen = table.fingerprint, table.keeper.folder
        support = Support(shots, features.keeper.folder, chosen)
        return replace(reading_of(sources, self.inputs.classes), support=support), wholes

    def _shots(self, method: FewShotMethod, refused: frozenset[str]) -> tuple[pa.Table, str]:
        """key, class and shot of a variant's images that can be read, and their digest; variants share them."""
        known = method.only_seed(), method.shot, refused
        if known not in self._drawn:
            shots = draw_shots(self.inputs.manifest, method.shot, method.only_seed())
            shots = shots.filter(pc.is_in(shots["key"], value_set=without(shots["key"], refused)))
            shots = shots.select(["key", "class", "shot"])
            content = digest_columns([shots["key"], shots["class"], shots["shot"].cast(pa.string())])
            self._drawn[known] = shots, content
        return self._drawn[known]

    def validation(self, sources: Sources) -> pa.Table | None:
        """Key and class of the validation images on which a variant searches; None where it does not.

        Raises ValueError where it is to search, and no image there has a label.
        """
        method: FewShotMethod = sources.method
        if method.search is False:
            return None
        if sources.rejected not in self._validation:
            images = self.inputs.manifest.select(["key", "class", "split"])
            kept = pc.and_(pc.equal(images["split"], "validation"), pc.is_valid(images["class"]))
            kept = pc.and_(kept, pc.is_in(images["key"], value_set=without(images["key"], sources.rejected)))
            self._validation[sources.rejected] = images.filter(kept).select(["key", "class"])
        found = self._validation[sources.rejected]
        if len(found):
            return found
        if method.search:
            raise ValueError(
                f"methods.{method.row_name}.search: the data set has no labelled image in its validation split; "
                "say which one it is, or leave `search` out and give alpha and beta"
            )
        return None
