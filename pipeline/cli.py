"""The command line: `fieldmark COMMAND`. People's tables and progress go to standard error, answers to standard output.

Exit status: 0 done, 1 the job failed, 2 the call or the job file is wrong, 130 interrupted.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pipeline.job_file import Variant
    from pipeline.prepared import Prepared
    from pipeline.run import Selection, StageResult


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; wide where there is none, so that tables in a file are not folded."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    return Console(stderr=stderr, width=width)


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Classify images by their field marks: descriptors, guided crops, optimal transport, on Ray.",
)
people = console(stderr=True)

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="the job file")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a setting, e.g. views.random.crops=16"),
]
VariantLabel = Annotated[
    str | None, typer.Option("--variant", metavar="LABEL", help="of a job file with a sweep: this variant alone")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on standard output, nothing else there")]


@app.command()
def demo(folder: Annotated[Path, typer.Argument(metavar="DIR")] = Path("fieldmark-demo")) -> None:
    """Render a small world of birds, run the whole job on it, show what came out."""
    from pipeline.demo import run_demo

    try:
        run_demo(folder, people)
    except KeyboardInterrupt:
        _say(f"\nstopped; what is there is kept. Go on with: fieldmark demo {folder}")
        raise


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder of images")],
    classes: Annotated[Path | None, typer.Option(help="class names, one a line, for a folder without labels")] = None,
    descriptors: Annotated[Path | None, typer.Option(help="a descriptor file {class: [sentence, ...]}")] = None,
) -> None:
    """Write a commented job file for a folder of images."""
    from pipeline.init import write_job_file

    out = write_job_file(folder, classes, descriptors)
    _say(f"wrote {out}; next: fieldmark run {out}")


@app.command()
def run(
    job: JobFile,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="run this stage alone")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="run this stage and those after")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="run up to and with this stage")] = None,
    force: Annotated[
        str | None, typer.Option(metavar="STAGE", help="drop this stage's rows and make them anew")
    ] = None,
    retry_rejects: Annotated[
        bool, typer.Option(help="try rejected images again, once what ailed them is mended")
    ] = False,
    variant: VariantLabel = None,
    sets: Sets = None,
    address: Annotated[str | None, typer.Option(help="a Ray cluster; default RAY_ADDRESS, else a local one")] = None,
    dry_run: Annotated[bool, typer.Option(help="show what would run, start nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute what is missing, stage by stage; run again to go on after a stop.

    The variants of a sweep run one after another and share every table that they can; they leave out `project`, unless
    --until or --only asks for it.
    """
    from pipeline.prepared import choose_variant, prepare_jobs
    from pipeline.run import Selection
    from pipeline.run_sweep import for_its_table

    jobs = prepare_jobs(job, sets or ())
    if variant is not None:
        jobs = [choose_variant(jobs, variant)]
    order = [stage.stage.name for stage in jobs[0].plan.stages]
    told = _tell_of_twins(jobs)
    selection = Selection(only, start, until, force, retry_rejects)
    try:
        selection.check(order)
    except ValueError as error:
        raise _wrong(str(error)) from None
    if jobs[0].label is not None:
        selection = for_its_table(selection, order)
    if dry_run:
        _print_status(jobs, as_json, selection)
        return
    done = _compute(jobs, address, selection)
    if as_json:
        _print_json(_by_variant(jobs, [{"stages": [asdict(result) for result in stages]} for stages in done]))
        return
    labels = {each.label for each in jobs}
    jobs = [each for each in prepare_jobs(job, sets or ()) if each.label in labels]
    if not told:
        _tell_of_twins(jobs)  # before the first run it is not known yet which are
    _show_outcome(jobs)


def _compute(jobs: Sequence[Prepared], address: str | None, selection: Selection) -> list[list[StageResult]]:
    """Run the jobs of one file, saying which variant begins, stops or fails."""
    from pipeline.job_file import JobError
    from pipeline.run_sweep import run_variants
    from pipeline.watch import watcher_for

    begun: list[str] = []

    def starting(variant: Variant) -> None:
        if variant.label is not None:
            begun.append(variant.label)
            _say(f"{variant.label} ({len(begun)} of {len(jobs)})", "bold")

    try:
        return run_variants([each.variant for each in jobs], watcher_for(people), address, selection, starting)
    except JobError as error:
        raise JobError(f"{jobs[0].file}: {error}") from None
    except KeyboardInterrupt:
        where = f" in variant {begun[-1]}" if begun else ""
        _say(f"\nstopped{where}; what is computed is kept. Go on with: {jobs[0].command()}")
        raise
    except Exception:
        if begun:
            _say(f"variant {begun[-1]} failed; what is computed is kept. Go on with: {jobs[0].command()}", "red")
        raise


def _tell_of_twins(jobs: Sequence[Prepared]) -> bool:
    """Say which variants make the same predictions, since it was hardly meant; whether there are any."""
    from pipeline.prepared import find_twins

    twins = find_twins(jobs)
    for labels in twins:
        same = ", ".join(map(repr, labels))
        _say(f"{jobs[0].file}: sweep: {same} make the same predictions: no method reads what is swept")
    return bool(twins)


def _show_outcome(jobs: Sequence[Prepared]) -> None:
    """What was rejected, and the table of methods as far as it is there."""
    from pipeline.results import collect_results
    from pipeline.show import show_rejects, show_results

    rejects = {row["key"]: row for each in jobs for row in each.plan.rejects}
    show_rejects(people, [rejects[key] for key in sorted(rejects)])
    evaluated = [each for each in jobs if each.plan.of("evaluate").done]
    rows = [row for each in evaluated for row in collect_results(each.plan, each.title)]
    if rows:
        show_results(people, rows)
    if rows and jobs[0].label is not None:
        _say(f"The same as a plot: {jobs[0].call('results', '--plot', f'{jobs[0].file.stem}.png')}")


@app.command()
def status(job: JobFile, sets: Sets = None, as_json: AsJson = False) -> None:
    """Say what is there, what would run and why. Starts nothing."""
    from pipeline.prepared import prepare_jobs

    jobs = prepare_jobs(job, sets or ())
    _tell_of_twins(jobs)
    _print_status(jobs, as_json)


@app.command()
def results(
    jobs: Annotated[list[Path], typer.Argument(metavar="JOB...", help="job files")],
    sets: Sets = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="a LaTeX table on standard output")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT", help="also draw accuracy and time: a .png, .svg or .pdf file")
    ] = None,
) -> None:
    """The table of methods by jobs, or by the variants of a sweep, from what is stored."""
    from pipeline.plot import SUFFIXES, plot_results
    from pipeline.prepared import prepare_jobs
    from pipeline.results import collect_comparisons, collect_results, distinct_names, to_csv, to_latex
    from pipeline.show import show_results

    if plot is not None and plot.suffix.lower() not in SUFFIXES:
        raise _wrong(f"--plot {plot}: a plot is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    swept: dict[str, Mapping[str, Any]] = {}
    names: list[str] = []
    for path in jobs:
        prepared = prepare_jobs(path, sets or ())
        _tell_of_twins(prepared)
        lacking, before = [], len(rows)
        for each in prepared:
            name = each.title if len(jobs) == 1 else each.job.name
            if not each.plan.of("evaluate").done:
                lacking.append(name)
            if found := collect_results(each.plan, name):
                rows += found
                comparisons += collect_comparisons(each.plan, name)
                swept[name] = each.variant.values
                names.append(name)
        if not lacking and len(rows) == before:
            label = [] if prepared[0].label is None else ["--variant", prepared[0].label]
            predictions = prepared[0].call("predict", *label)
            raise _failed(f"{path}: no image has a label, so there is no accuracy. Predictions: {predictions}")
        if len(rows) == before:
            raise _failed(f"{path}: no results yet; compute them with: {prepared[0].command()}")
        if lacking:
            of = "" if prepared[0].label is None else f" of {', '.join(lacking)}"
            _say(f"{path}: some results{of} are not there yet; compute them with: {prepared[0].command()}")
    try:
        distinct_names(names)
    except ValueError as error:
        raise _wrong(str(error)) from None
    if plot is not None:
        plot_results(rows, plot, swept if len(jobs) == 1 else {}, title=", ".join(path.stem for path in jobs))
        _say(f"wrote {plot}")
    if as_json:
        values = {"swept": swept} if any(swept.values()) else {}
        _print_json({"methods": rows, "comparisons": comparisons} | values)
    elif as_csv:
        sys.stdout.write(to_csv(rows))
    elif as_latex:
        sys.stdout.write(to_latex(rows))
    else:
        show_results(console(), rows)


@app.command()
def predict(
    job: JobFile,
    image: Annotated[list[Path] | None, typer.Option(help="new image files; default: the job's own images")] = None,
    method: Annotated[list[str] | None, typer.Option(help="methods to show; default: all")] = None,
    top_k: Annotated[int, typer.Option("-k", min=1, help="best classes shown an image")] = 5,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="a .csv, .parquet or .json file")] = None,
    variant: VariantLabel = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Class, probability and margin an image, by every method."""
    from pipeline.predict import NotComputed, new_predictions, stored_predictions, write_predictions
    from pipeline.prepared import prepare_one
    from pipeline.show import show_predictions

    chosen = prepare_one(job, sets or (), variant)
    loaded, plan = chosen.job, chosen.plan
    known = [each.row_name for each in loaded.methods]
    if unknown := [name for name in method or () if name not in known]:
        raise _wrong(f"--method {unknown[0]}: the job has {', '.join(known)}")
    if out is not None and out.suffix.lower() not in (".csv", ".parquet", ".json"):
        raise _wrong(f"-o {out}: predictions are written as .csv, .parquet or .json")
    unreadable: list[tuple[Path, str]] = []
    try:
        if image:
            rows, unreadable = new_predictions(loaded, plan, image, method or (), top_k)
        else:
            rows = stored_predictions(plan, method or (), top_k)
    except NotComputed as error:
        raise _failed(f"{error}; compute it with: {chosen.command()}") from None
    for path, reason in unreadable:
        _say(f"{path}: {reason}", "red")
    if as_json:
        _print_json({"predictions": rows})
    if out is not None:
        write_predictions(rows, out)
        _say(f"wrote {len(rows):,} predictions to {out}")
    elif not as_json:
        show_predictions(console(), rows)
    if unreadable:
        raise typer.Exit(1)


@app.command()
def query(
    job: JobFile,
    text: Annotated[str | None, typer.Argument(help="what to look for, such as 'a long red beak'")] = None,
    image: Annotated[Path | None, typer.Option(help="look for what resembles this image file")] = None,
    table: Annotated[str, typer.Option(help="crops, images or descriptors")] = "crops",
    class_name: Annotated[str | None, typer.Option("--class", help="only rows of this class")] = None,
    split: Annotated[str | None, typer.Option(help="only rows of this split")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="number of rows")] = 10,
    variant: VariantLabel = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Rows of the feature store that resemble a text or an image most."""
    from pipeline.feature_store import TABLES, FeatureStore, StoreError
    from pipeline.plan import READ_SPLITS
    from pipeline.prepared import prepare_one
    from pipeline.show import show_hits
    from stages.vision.decode import UnreadableImage

    if (text is None) == (image is None):
        raise _wrong(
            'query takes a text or --image FILE, one of them; for example: fieldmark query job.yaml "a red beak"'
        )
    if table not in TABLES:
        raise _wrong(f"--table {table}: allowed are {', '.join(TABLES)}")
    if image is not None and not image.is_file():
        raise _wrong(f"--image: no file {image}")
    chosen = prepare_one(job, sets or (), variant)
    loaded, plan = chosen.job, chosen.plan
    run_again = chosen.command(until="project")
    _check_one_of("--class", class_name, plan.inputs.classes)
    _check_one_of("--split", split, () if table == "descriptors" else READ_SPLITS)
    try:
        store, up_to_date = FeatureStore.of_plan(plan, loaded)
        if not up_to_date:
            _say(f"the images or texts have changed since; answered from the last run ({run_again} renews it)")
        hits = store.search(text, image=image, table=table, k=k, class_name=class_name, split=split)
    except StoreError as error:
        raise _failed(f"{error}; compute them with: {run_again}") from None
    except UnreadableImage as error:
        raise _failed(f"{image}: {error}") from None
    if as_json:
        _print_json({"hits": hits})
    else:
        show_hits(console(), hits)


@app.command()
def export(
    job: JobFile,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="as `status` names it: whole, views.NAME, methods.NAME")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="the Parquet file to write")],
    variant: VariantLabel = None,
    sets: Sets = None,
) -> None:
    """Write a table as Parquet."""
    import pyarrow.parquet as pq

    from pipeline.prepared import prepare_one
    from storage.shards import ShardTable

    prepared = prepare_one(job, sets or (), variant)
    tables = {
        name: each
        for stage in prepared.plan.stages
        for each in stage.tables
        if isinstance(each.keeper, ShardTable)
        for name in (f"{stage.stage.name}/{each.name}", each.name)
    }
    if table not in tables:
        names = ", ".join(name for name in tables if "/" in name)
        raise _wrong(f"no table is called {table!r}; there are {names}")
    chosen = tables[table]
    if not chosen.present:
        raise _failed(f"{table} has no rows yet; compute them with: {prepared.command()}")
    present = chosen.keeper.keys()
    pq.write_table(chosen.keeper.read([key for key in chosen.wanted if key in present]), out)
    _say(f"wrote {chosen.present:,} rows to {out}")


def main() -> None:
    """Entry point: turns errors into one clear message and an exit status."""
    from pipeline.job_file import JobError

    try:
        app()
    except JobError as error:
        _say(str(error), "red")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from pipeline.run import explain_failure

        _say(explain_failure(error), "red")
        sys.exit(1)


def _check_one_of(option: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        close = difflib.get_close_matches(value, allowed, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(allowed[:10]) + (", ..." if len(allowed) > 10 else "")
        raise _wrong(f"{option} {value}: not in this table.{hint} There are: {shown or 'none'}")


def _wrong(message: str) -> Exception:
    from pipeline.job_file import JobError

    return JobError(message)


def _say(message: str, style: str | None = None) -> None:
    people.print(message, style=style, highlight=False, markup=False, soft_wrap=True)


def _failed(message: str) -> typer.Exit:
    _say(message, "red")
    return typer.Exit(1)


def _print_status(jobs: Sequence[Prepared], as_json: bool, selection: Any = None) -> None:
    """What is there and what is missing; with a selection, of its stages alone, forced rows counted as missing."""
    from pipeline.show import show_status, status_rows

    rows = [_selected(status_rows(each.plan), each.plan, selection) for each in jobs]
    rejects = [each.plan.rejects for each in jobs]
    if as_json:
        pairs = zip(rows, rejects, strict=True)
        documents = [{"stages": found, "rejects": len(bad), "rejected": bad} for found, bad in pairs]
        _print_json(_by_variant(jobs, documents))
        return
    told: set[tuple[Any, ...]] = set()
    for each, found, bad in zip(jobs, rows, rejects, strict=True):
        if each.label is not None:
            console().print(each.label, style="bold", highlight=False, markup=False)
        news = [row for row in found if row["location"] is None or (row["stage"], row["location"]) not in told]
        told |= {(row["stage"], row["location"]) for row in found}
        if news:
            show_status(console(), news, bad)
        else:
            console().print("reads and writes the tables above, and no other")


def _by_variant(jobs: Sequence[Prepared], documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The JSON document of a job; of a sweep, those of its variants with their labels."""
    if jobs[0].label is None:
        return documents[0]
    pairs = zip(jobs, documents, strict=True)
    return {"variants": [{"variant": each.label} | document for each, document in pairs]}


def _selected(rows: list[dict[str, Any]], plan: Any, selection: Any) -> list[dict[str, Any]]:
    if selection is None:
        return rows
    chosen = selection.names([stage.stage.name for stage in plan.stages])
    rows = [row for row in rows if row["stage"] in chosen]
    for row in rows:
        if selection.retry_rejects and row["rejected"]:
            row |= {"missing": row["missing"] + row["rejected"], "rejected": 0, "why": "--retry-rejects"}
        if row["stage"] == selection.force and row["wanted"] is not None:
            row |= {"present": 0, "missing": row["wanted"], "rejected": 0, "why": "--force"}
    return rows


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
