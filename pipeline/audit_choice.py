"""What an audit is about: which descriptor set, said by which method, on which view set and images of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.job_error import JobError
from pipeline.plan import Plan
from pipeline.predict import NotComputed
from pipeline.settings import Job
from stages.audit_images import SPLITS, Part, choose_parts
from stages.audit_texts import AuditTexts, audit_texts
from stages.described import read_descriptors
from stages.encode_images import view_title
from stages.methods import Method
from stages.score import classes_to_predict
from stages.stage import Table

KINDS_WITH_CROPS = ("random", "guided", "squares")
"""View sets whose rows are pieces of the image, where the method has none of its own."""


@dataclass(frozen=True)
class Choice:
    """What is audited."""

    descriptors: str
    """the set's name in the job"""
    method: Method
    texts: AuditTexts
    whole_set: dict[str, list[str]]
    """the set's descriptors by spoken name, those among them that the method does not read"""
    sources: dict[str, str]
    """where the descriptors of each spoken name came from"""
    encoded: Table
    """the table of encoded texts"""
    whole: Table
    view: Table | None
    view_name: str | None
    seed: int | None
    judged: Part
    measured: Part | None
    notes: tuple[str, ...]


def choose_audit(
    job: Job, plan: Plan, *, descriptors: str | None, method: str | None, split: str | None, seed: int | None
) -> Choice:
    """What is meant by what was given, and by what the job has where nothing was.

    Raises JobError for a call that cannot be meant, and NotComputed for what is not stored yet.
    """
    if split is not None and split not in SPLITS:
        raise JobError(f"--split {split}: a split is {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    _check_names(job, descriptors, method)
    if not plan.of("encode_text").done:
        raise NotComputed("the descriptors are not encoded yet")
    (encoded,) = plan.of("encode_text").tables
    classes = classes_to_predict(job.score.classes, plan.inputs)
    set_name, chosen, texts, whole_set = _choose_texts(job, plan, encoded, classes, descriptors, method)
    if unknown := plan.of("encode_images").unknown:
        raise NotComputed(f"the images have no features yet ({unknown})")
    tables = {table.name: table for table in plan.of("encode_images").tables}
    view_name = _choose_views(job, chosen)
    view, of_seed, notes = None, None, []
    if view_name is not None:
        of_seed, told = _choose_seed(job, seed)
        notes += told
        view = tables[view_title(view_name, of_seed, job.seeds)]
    elif seed is not None:
        raise JobError(f"--seed {seed}: the job has no view set with crops, and a seed is one of crops")
    for table in (tables["whole"], view):
        if table is not None and not table.complete:
            raise NotComputed(f"{table.name}: {len(table.missing):,} images have no features yet")
    judged, measured = _choose_images(plan, tables["whole"], classes, split)
    notes += _tell_of_texts(chosen, texts, whole_set, classes)
    if measured is None:
        notes.append("no other labelled images are stored, so what a filter does to accuracy is not measured")
    return Choice(
        descriptors=set_name,
        method=chosen,
        texts=texts,
        whole_set=whole_set,
        sources=_read_sources(plan, set_name),
        encoded=encoded,
        whole=tables["whole"],
        view=view,
        view_name=view_name,
        seed=of_seed,
        judged=judged,
        measured=measured,
        notes=tuple(notes),
    )


def _check_names(job: Job, descriptors: str | None, method: str | None) -> None:
    """That the job has what was named. Raises JobError."""
    if not job.descriptors:
        raise JobError("the job has no descriptors to audit; give it a descriptor set and a method that reads it")
    if descriptors is not None and descriptors not in job.descriptors:
        raise JobError(
            f"--descriptors {descriptors}: the job has no such set of descriptors; there are "
            f"{', '.join(job.descriptors)}"
        )
    rows = [each.row_name for each in job.methods]
    if method is not None and method not in rows:
        raise JobError(f"--method {method}: the job has no such method; there are {', '.join(rows)}")


def _choose_texts(
    job: Job, plan: Plan, encoded: Table, classes: Sequence[str], named_set: str | None, named_method: str | None
) -> tuple[str, Method, AuditTexts, dict[str, list[str]]]:
    """The set, and the first method that has a prompt for each of its descriptors; one that reads all goes first."""
    described = {table.name.removeprefix("descriptors."): table for table in plan.of("describe").tables}
    found: list[tuple[str, Method, AuditTexts, dict[str, list[str]]]] = []
    for each, said in encoded.plan.prompts:
        name = getattr(each, "descriptors", None)
        if name is None or named_set not in (None, name) or named_method not in (None, each.row_name):
            continue
        if found and found[0][0] != name:
            continue
        if any(row.row_name == each.row_name for _, row, *_ in found):
            continue  # a variant says what the first one does
        of_set, own = read_descriptors(described[name]), {one: said[one] for one in classes}
        texts = audit_texts(each, own, plan.inputs.names, of_set, job.descriptors[name].form)
        if texts is not None:
            found.append((name, each, texts, of_set))
    if found:
        return min(found, key=lambda one: _count_unread(one[2], one[3]))
    wanted = named_set or next(iter(job.descriptors))
    if named_method is not None:
        raise JobError(
            f"--method {named_method}: has no prompt for each descriptor of a set"
            + (f" called {named_set}" if named_set else "")
            + "; leave it out, or name one that has, such as clip_d, cupl or dnd"
        )
    raise JobError(
        f"no method of the job has a prompt for each descriptor of {wanted}; "
        f"add one, for example methods: [{{name: clip_d, descriptors: {wanted}}}]"
    )


def _choose_views(job: Job, method: Method) -> str | None:
    if getattr(method, "views", None) is not None:
        return method.views
    return next((name for name, view in job.views.items() if view.kind in KINDS_WITH_CROPS), None)


def _choose_seed(job: Job, seed: int | None) -> tuple[int, list[str]]:
    if seed is not None and seed not in job.seeds:
        raise JobError(f"--seed {seed}: crops were drawn with seed {', '.join(map(str, job.seeds))}")
    if seed is None and len(job.seeds) > 1:
        told = f"crops were drawn {len(job.seeds)} times; read are those of seed {job.seeds[0]}, --seed chooses"
        return job.seeds[0], [told]
    return job.seeds[0] if seed is None else seed, []


def _choose_images(plan: Plan, whole: Table, classes: Sequence[str], split: str | None) -> tuple[Part, Part | None]:
    inputs = plan.inputs
    try:
        return choose_parts(inputs.manifest, inputs.names, classes, whole.keeper.keys(), split)
    except ValueError as error:
        read = "; of support and validation is stored what few-shot methods of the job read" * (split != "query")
        raise JobError(f"{error}{read}") from None


def _read_sources(plan: Plan, set_name: str) -> dict[str, str]:
    (table,) = [table for table in plan.of("describe").tables if table.name == f"descriptors.{set_name}"]
    rows = table.keeper.read(keys=table.wanted, columns=["class", "source"])
    return dict(zip(rows["class"].to_pylist(), rows["source"].to_pylist(), strict=True))


def _count_unread(texts: AuditTexts, whole_set: Mapping[str, Sequence[str]]) -> int:
    return sum(len(whole_set[name]) - len(read) for name, read in texts.descriptors.items())


def _tell_of_texts(
    method: Method, texts: AuditTexts, whole_set: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> list[str]:
    notes = []
    if unread := _count_unread(texts, whole_set):
        notes.append(
            f"{method.row_name} reads the first {method.max_descriptors} descriptors of a class; {unread:,} further "
            "ones are not judged, and a filtered file keeps them where it drops nothing of their class"
        )
    shared = len(classes) - len(texts.descriptors)
    if shared:
        notes.append(f"{shared} classes have the name of another: each such name is judged as one class")
    return notes
