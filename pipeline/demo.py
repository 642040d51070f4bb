"""`fieldmark demo`: render a world, write an ordinary job file beside it, run it, and show what came out."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.cluster import Cluster
from pipeline.feature_store import FeatureStore
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import stored_predictions
from pipeline.registry import Origin
from pipeline.results import collect_results
from pipeline.run import run_job
from pipeline.settings import Job
from pipeline.show import show_hits, show_predictions, show_results
from pipeline.watch import watcher_for

TEST_PER_CLASS, TRAIN_PER_CLASS = 25, 4
QUERY = "A bird with a forked purple tail."

JOB_FILE = """\
# An ordinary fieldmark job: rendered birds, and the small CLIP of their world that ships with the project.
# Run it again with `fieldmark run job.yaml`: what is computed is not computed again.
# Change a setting and run again: only what the setting touches is computed.
name: demo
store: runs                       # everything computed lies here

dataset:
  path: images                    # <split>/<species>/<image>.jpg
  splits: {query: test, support: train}

# For photographs use a real CLIP instead, for example {name: ViT-B-16, weights: openai}.
model: {name: "local-dir:model"}

descriptors:
  marks: {provider: file, path: descriptors.json}   # {species: [a sentence a mark, ...]}

views:
  # D&D's random multi-crop views.
  random: {kind: random, crops: 9, min_area: 0.10, max_area: 0.75}
  # ABS's crops around what the CLS token attends to, in pixels and in features. The paper's sides are .5 to .9 of the
  # image; these were better on the validation species, for the birds are small in their pictures.
  guided: {kind: guided, guide: clip, crops: 16, min_side: 0.3, max_side: 0.7}

methods:
  - clip                                                # "a photo of a {species}.": names mean nothing in this world
  - clip_e                                              # nor do they in many such sentences
  - waffle                                              # nor with random words, drawn seven times
  - clip_d                                              # the whole image against descriptors, mean of cosines
  - cupl                                                # the whole image against the mean descriptor
  - {name: wca, views: random}                          # random crops and descriptors, weighted by relevance
  - crops_mean                                          # the mean of random crops against the mean descriptor
  - {name: dnd, epsilon: 0.05}                          # random crops and descriptors matched by optimal transport
  - {name: dnd, label: dnd_guided, views: guided}       # the same with guided crops, epsilon .1
  - {name: abs, label: abs_raw, crops: raw}             # guided crops in pixels alone, soft matching, temperature .03
  - abs                                                 # and with those in feature space, as in the paper
"""


def run_demo(folder: Path, console: Console, images: int = TEST_PER_CLASS) -> None:
    """Render `images` of each species to classify (never twice), run and show; leaves `folder/job.yaml`."""
    from demo.dataset import copy_model, write_dataset

    folder.mkdir(parents=True, exist_ok=True)
    job_file = folder / "job.yaml"
    if not job_file.exists():
        job_file.write_text(JOB_FILE, encoding="utf-8")
    columns = (TextColumn("{task.description:<14}"), BarColumn(28), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("render", total=None)
        write_dataset(
            folder,
            test_per_class=images,
            train_per_class=TRAIN_PER_CLASS,
            workers=max(1, os.cpu_count() or 1),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(f"{'render':<14} {progress.tasks[0].total:,.0f} images in {folder / 'images'}", highlight=False)
    copy_model(folder)
    job = load_job(job_file)
    run_job(job, watcher_for(console), Cluster(wait=job.resources.wait_minutes), origin=Origin(str(job_file.resolve())))
    _show(folder, job_file, console)


def _show(folder: Path, job_file: Path, console: Console) -> None:
    job = load_job(job_file)
    plan = make_plan(job)
    rows = collect_results(plan, job.name)
    if not rows:  # somebody made the job file one without labels
        return
    _heading(console, "Accuracy")
    show_results(console, rows)
    console.print(
        f"Temperatures: {_temperatures(job)}. That of dnd was chosen on other species, the rest are the papers' own.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        "Names of species are invented and mean nothing here, so clip, which reads names alone, is at chance."
    )
    methods = [row["method"] for row in rows]
    best = max(rows, key=lambda row: row["accuracy"])["method"]
    _heading(console, f"Some predictions of {best}")
    predictions = stored_predictions(plan, [best], top_k=3)
    show_predictions(console, predictions[:: max(1, len(predictions) // 6)][:6])
    _heading(console, f'Crops most like "{QUERY}"')
    show_hits(console, FeatureStore.open(job.store, job.name).search(QUERY, k=5))
    _heading(console, "Where everything is")
    for what, where in (("job file", job_file), ("images", folder / "images"), ("store", job.store)):
        console.print(f"  {what:<9} {where}", highlight=False, markup=False)
    _heading(console, "Try")
    for line in (
        f'fieldmark query {job_file} "A bird with a spiky yellow crest."',
        f"fieldmark predict {job_file} --method {methods[-1]} -o predictions.csv",
        f"fieldmark run {job_file} --set views.random.crops=16",
        f"fieldmark status {job_file}",
    ):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _temperatures(job: Job) -> str:
    """What the methods of a job are set to, where a temperature is theirs: "dnd epsilon 0.05, abs temperature 0.03"."""
    shown = [
        f"{method.row_name} {name} {value:g}"
        for method in job.methods
        for name in ("epsilon", "temperature")
        if (value := getattr(method, name, None)) is not None
    ]
    return ", ".join(shown)


def _heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]", highlight=False)
