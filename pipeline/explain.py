"""Explain: which crop of an image spoke for which description of a class, with how much mass.

Everything is read from the store: features of the image, texts, and the prediction that they must agree with.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from pipeline.explain_document import figure, place_crops, rank_classes, tell_class
from pipeline.find_image import find_image
from pipeline.job_error import JobError
from pipeline.plan import Plan
from pipeline.predict import NotComputed
from pipeline.prepared import Prepared
from stages.methods import Method
from stages.methods.explaining import explains

if TYPE_CHECKING:
    from torch import Tensor

    from stages.stage import Table

PREFERRED = ("dnd", "abs", "wca", "crops_mean")
"""Which of a job's methods is explained where none is named: those that match crops and descriptions come first."""
AGREE = 1e-3


class CannotExplain(RuntimeError):
    """An image has no prediction and will get none, or one that its features do not give; the message says why."""


@dataclass(frozen=True)
class Explanation:
    """What `explain_image` found."""

    document: dict[str, Any]
    uri: str
    """where the image's bytes lie"""
    notes: tuple[str, ...]
    """what a person should know of it"""


def explain_image(
    chosen: Prepared,
    image: str,
    *,
    method: str | None = None,
    others: Sequence[str] = (),
    seed: int | None = None,
    top: int = 10,
) -> Explanation:
    """Explain a stored prediction: the predicted class beside `others`; by default the label where it differs, else the
    runner-up.

    `method` is a row name of the job, `seed` one of its seeds of crops (default: the first). The document has image,
    label, method, seed, draw, predicted, and of each class:

    - class, logit, `probability` (null for a class that may not be predicted), and `rest`, the part of the logit that
      belongs to no pair;
    - crops: `kind` (raw, feature or whole), `number` in the view set, `box` in pixels of the image, `weight` (the mass
      of its pairs), of feature crops also `window` (r0, c0, r1, c1 in tokens; the box is null where the model's
      configuration cannot be read);
    - descriptors: text, mass, contribution, mass `by_crop`, and `best`, its pair with the largest contribution;
    - pairs: the `top` ones by contribution: crop and descriptor (places in those lists, from 0), mass, cosine,
      contribution. The contributions of all pairs and the rest add up to the logit.

    Raises JobError for a call that cannot be meant, NotComputed before the image was scored, CannotExplain.
    """
    plan = chosen.plan
    of_method = _choose_method(chosen.job.methods, method)
    _check_classes(others, plan.inputs.classes)
    row = find_image(plan.inputs.manifest, image, chosen.call("predict", "--image", image))
    table, notes = _choose_table(plan, of_method, seed)
    _check_scored(chosen, table, row)
    reading, of_seed = table.plan
    document, told = _explain(chosen, table, row, others, top)
    head = {
        "image": row["id"],
        "label": row["class"],
        "method": of_method,
        "seed": of_seed,
        "draw": reading.method.draw,
    }
    return Explanation(head | document, row["uri"], (*notes, *told))


def _explain(
    chosen: Prepared, table: Table, row: dict[str, Any], others: Sequence[str], top: int
) -> tuple[dict[str, Any], list[str]]:
    """What is predicted, the classes, and what to say of them."""
    import torch

    from stages.predictions import load_features, load_texts
    from storage.shards import ShardTable

    reading = table.plan[0]
    tables = {folder: ShardTable(folder) for folder in {reading.whole, reading.view} - {None}}
    features, texts = load_features([reading], [row["key"]], tables), load_texts(reading.prompts, reading.texts)
    with torch.inference_mode():
        logits = reading.method.logits(features, reading.method.prepare(texts)).float()[0]
        logits = logits if reading.tied is None else logits[reading.tied]
        stored = _check_agrees(chosen, table, row, logits, texts.logit_scale)
        ranked, probabilities = rank_classes(reading, logits * reading.method.probability_scale(features))
        names = _choose_classes(stored, row["class"], ranked, others)
        every = list(reading.prompts)
        spoken = reading.method.explain(features, texts, [every.index(name) for name in names])
    crops, told = place_crops(chosen.job.model, reading, row["key"], spoken)
    classes = []
    for place, name in enumerate(names):
        known = {"class": name, "logit": figure(logits[every.index(name)]), "probability": probabilities.get(name)}
        said = reading.prompts[name][spoken.first_text :]
        classes.append(known | tell_class(spoken, place, crops, said, top))
    return {"predicted": stored, "classes": classes}, told


def _choose_method(methods: Sequence[Method], named: str | None) -> str:
    """The row name of the method to explain."""
    explained = {each.row_name: each.name for each in methods if explains(each)}
    if named is None and explained:
        return min(explained, key=lambda name: PREFERRED.index(explained[name]))
    if named in explained:
        return named
    can = f"explained can be {', '.join(explained)}" if explained else "it has none that can be explained"
    if named is None:
        raise JobError(f"the job has no method of crops and descriptors; those that explain are {', '.join(PREFERRED)}")
    if named in {each.row_name for each in methods}:
        raise JobError(f"--method {named}: its logits are no sums over pairs of crops and descriptors; {can}")
    raise JobError(f"--method {named}: the job has no such method; {can}")


def _check_classes(named: Sequence[str], known: Sequence[str]) -> None:
    for name in named:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" did you mean {close[0]!r}?" if close else ""
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise JobError(f"--class {name}: the job has no such class;{hint} there are {shown}")


def _choose_table(plan: Plan, method: str, seed: int | None) -> tuple[Table, list[str]]:
    """The predictions of one draw, and what to say of the others."""
    scoring = plan.of("score")
    if scoring.unknown:
        raise NotComputed(f"predictions are {scoring.unknown}")
    tables = [table for table in scoring.tables if table.plan[0].method.row_name == method]
    seeds = list(dict.fromkeys(table.plan[1] for table in tables))
    if seed is not None and seed not in seeds:
        raise JobError(f"--seed {seed}: {method} is scored on crops of seed {', '.join(map(str, seeds))}")
    of_seed = seeds[0] if seed is None else seed
    notes = []
    if seed is None and len(seeds) > 1:
        notes.append(f"crops were drawn {len(seeds)} times; explained are those of seed {of_seed}, --seed chooses")
    drawn = [table for table in tables if table.plan[1] == of_seed]
    if len(drawn) > 1:
        notes.append(f"{method} draws {len(drawn)} times; explained is draw {drawn[0].plan[0].method.draw}")
    return drawn[0], notes


def _check_scored(chosen: Prepared, table: Table, row: dict[str, Any]) -> None:
    """Raise unless the image has a prediction in this table."""
    key, image = row["key"], row["id"]
    if pc.index(table.wanted, key).as_py() >= 0:
        if pc.index(table.missing, key).as_py() >= 0:
            raise NotComputed(f"{table.name}: {image} has no prediction yet")
        return
    again = chosen.call("run", "--retry-rejects")
    for reject in chosen.plan.rejects:
        if reject["key"] == key:
            raise CannotExplain(f"{image} was rejected: {reject['reason']}; once it is mended: {again}")
    raise CannotExplain(
        f"{image} is an image of the {row['split']} split, and only those of query get predictions: "
        "they are chosen under dataset.splits"
    )


def _check_agrees(chosen: Prepared, table: Table, row: dict[str, Any], logits: Tensor, scale: float) -> str:
    """The predicted class. Raises CannotExplain where the stored logits are not those of the stored features."""
    reading = table.plan[0]
    stored = table.keeper.read([row["key"]], ["classes", "logits"]).to_pylist()[0]
    # A prediction whose iterations ended early depends on its batch, by as much as the mass may be off.
    slack = AGREE + scale * (getattr(reading.method, "tolerance", None) or 0.0)
    every, again = list(reading.prompts), chosen.call("run", "--force", "score")
    for name, logit in zip(stored["classes"], stored["logits"], strict=True):
        found = float(logits[every.index(name)])
        if abs(found - logit) > slack + 1e-5 * abs(logit):
            raise CannotExplain(
                f"{table.name}: the stored logit of {row['id']} for {name} is {logit:.6g}, its stored features give "
                f"{found:.6g}: the table is not of these features; made again by: {again}"
            )
    return stored["classes"][0]


def _choose_classes(predicted: str, label: str | None, ranked: Sequence[str], named: Sequence[str]) -> list[str]:
    """The predicted class, then the others: those named, or the label, or the runner-up."""
    others = [name for name in dict.fromkeys(named) if name != predicted]
    if not others and label is not None and label != predicted:
        others = [label]
    return [predicted, *(others or [name for name in ranked if name != predicted][:1])]
