"""A job file gets sound defaults, and a wrong one a single message that names file, key, value and what is allowed."""

from __future__ import annotations

import json
import re

import pytest

from pipeline.job_error import JobError
from pipeline.job_file import load_job, load_jobs
from pipeline.plan import make_plan
from stages.settings import CenterGuide, ClipGuide, GuidedView, RandomView


@pytest.fixture
def job(tmp_path):
    """`job(text)` -> the path of a job file that holds this text."""

    def write(text: str):
        path = tmp_path / "birds.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


FOUR_LINES = """\
dataset: {path: photos}
descriptors:
  marks: {provider: file, path: marks.json}
model: {name: ViT-B-16, weights: openai}
"""


def test_a_four_line_file_gets_a_name_a_store_all_methods_and_the_views_they_read(job, tmp_path):
    loaded = load_job(job(FOUR_LINES))
    assert (loaded.name, loaded.store) == ("birds", str(tmp_path / "runs/birds"))
    assert [(method.row_name, method.views) for method in loaded.methods] == [
        ("clip", None),
        ("clip_e", None),
        ("clip_d", None),
        ("clip_d_wca", None),
        ("cupl", None),
        ("waffle", None),
        ("crops_mean", "random"),
        ("dnd", "random"),
        ("abs", "guided"),
    ]
    assert loaded.views == {"random": RandomView(), "guided": GuidedView()}
    assert list(loaded.guides) == ["dino"]
    assert {method.descriptors for method in loaded.methods} == {None, "marks"}
    assert (loaded.seeds, loaded.precision) == ([0], "fp32")


def test_without_descriptors_the_only_default_method_is_clip_which_reads_no_views(job):
    loaded = load_job(job("dataset: {path: photos}\n"))
    assert [method.row_name for method in loaded.methods] == ["clip"]
    assert (loaded.views, loaded.guides, loaded.model.weights) == ({}, {}, "openai")


def test_paths_are_relative_to_the_file_and_not_to_where_one_stands(job, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    text = "store: ../elsewhere\ndataset: {path: photos, classes: names.txt}\n" + FOUR_LINES.split("\n", 1)[1]
    loaded = load_job(job(text))
    assert loaded.dataset.path == str(tmp_path / "photos")
    assert loaded.dataset.classes == str(tmp_path / "names.txt")
    assert loaded.descriptors["marks"].path == str(tmp_path / "marks.json")
    assert loaded.store == str(tmp_path.parent / "elsewhere")


def test_a_local_model_folder_and_local_weights_are_relative_to_the_file_too(job, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"w")
    assert load_job(job("dataset: {path: p}\nmodel: {weights: weights.pt}\n")).model.weights == str(
        tmp_path / "weights.pt"
    )
    (tmp_path / "clip").mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / "clip" / name).write_bytes(b"{}")
    loaded = load_job(job('dataset: {path: p}\nmodel: {name: "local-dir:clip"}\n'))
    assert (loaded.model.name, loaded.model.weights) == (f"local-dir:{tmp_path / 'clip'}", None)


def test_files_of_a_method_and_of_the_classes_to_score_are_relative_to_the_file_and_names_that_ship_are_no_files(
    job, tmp_path
):
    (tmp_path / "mine.txt").write_text("a drawing of a {}.\n")
    (tmp_path / "words.txt").write_text("apple\n")
    methods = "methods: [{name: clip_e, templates: mine.txt}, {name: waffle, words: words.txt}, "
    methods += "{name: clip_e, label: shipped, templates: imagenet}, {name: cupl, with_templates: ./mine.txt}]\n"
    loaded = load_job(job(FOUR_LINES + methods + "score: {classes: some.txt}\n"))
    mine = str(tmp_path / "mine.txt")
    assert [method.templates for method in loaded.methods if method.name == "clip_e"] == [mine, "imagenet"]
    assert (loaded.methods[1].words, loaded.methods[3].with_templates) == (str(tmp_path / "words.txt"), mine)
    assert loaded.score.classes == str(tmp_path / "some.txt")
    assert load_job(job(FOUR_LINES + "score: {classes: labelled}\n")).score.classes == "labelled"


BAD = [
    ("dataset: {path: p}\nmehtods: [clip]\n", ["mehtods", "unknown key", "Did you mean 'methods'?", "Allowed here"]),
    ("dataset: {path: p}\nsweeep: {seed: [1]}\n", ["sweeep", "Did you mean 'sweep'?", "max_rejects, sweep"]),
    ("dataset: {path: p, splts: {query: q}}\n", ["dataset.splts", "Did you mean 'splits'?", "classes"]),
    (
        "dataset: {path: p}\nviews: {v: {kind: random, corps: 3}}\nmethods: [clip]\n",
        ["views.v.corps", "Did you mean 'crops'?", "min_area"],
    ),
    ("dataset: {path: p}\nresources: {encode: {gpu: 1}}\n", ["resources.encode.gpu", "'gpus'", "actors", "batch"]),
    ("dataset: {path: 7}\n", ["dataset.path", "7", "valid string"]),
    ("dataset: photos\n", ["dataset", "'photos'"]),
    ("dataset: {path: p}\nseed: one\n", ["seed", "'one'", "valid integer"]),
    ("dataset: {path: p}\nseed: [1, 1]\n", ["seed", "each once"]),
    ("dataset: {path: p}\nseed: []\n", ["seed", "at least one"]),
    ("dataset: {path: p}\nmax_rejects: 2\n", ["max_rejects", "2", "less than or equal to 1"]),
    (
        "dataset: {path: p}\nviews: {v: {kind: random, crops: 0}}\n",
        ["views.v.crops", "0", "or equal to 1"],
    ),
    (
        "dataset: {path: p}\nviews: {v: {kind: random, min_area: 0.8, max_area: 0.2}}\n",
        ["views.v", "min_area (0.8) must not exceed max_area (0.2)"],
    ),
    ("dataset: {path: p}\nviews: {v: {kind: spiral}}\n", ["views.v", "spiral", "'random'", "'guided'"]),
    ("dataset: {path: p}\nviews: {v: {crops: 3}}\n", ["views.v", "needs a `kind`"]),
    (
        "dataset: {path: p}\nviews: {v: {kind: guided, guide: dinno}}\n",
        ["views.v.guide", "'dinno'", "clip", "dino", "random", "center"],
    ),
    ("dataset: {path: p}\nguides: {g: {kind: dyno}}\n", ["guides.g", "dyno", "'dino'"]),
    ("dataset: {path: p}\nguides: {g: {kind: dino, weights: no.pt}}\n", ["guides.g.weights", "no.pt", "no file"]),
    ("dataset: {path: p, kind: floder}\n", ["dataset.kind", "'floder'", "'folder'"]),
    ("dataset: {path: p, version: etag}\n", ["dataset.version", "'etag'", "'mtime'", "'content'"]),
    ("dataset: {path: p}\nmethods: [cilp]\n", ["methods.0", "'cilp'", "did you mean 'clip'?", "allowed", "dnd"]),
    ("dataset: {path: p}\nmethods: [{label: x}]\n", ["methods.0", "needs a `name`"]),
    ("dataset: {path: p}\nmethods: [cupl]\n", ["methods.cupl", "needs descriptors"]),
    (FOUR_LINES + "methods: [{name: dnd, epsilon: 0}]\n", ["methods.0", "dnd", "epsilon", "0"]),
    (FOUR_LINES + "methods: [{name: dnd, epsilonn: 1}]\n", ["methods.0", "'epsilonn'", "did you mean 'epsilon'?"]),
    (FOUR_LINES + "methods: [{name: abs, views: gided}]\n", ["methods.abs.views", "'gided'", "random, guided"]),
    (
        FOUR_LINES + "methods: [{name: abs, descriptors: mraks}]\n",
        ["methods.abs.descriptors", "'mraks'", "there are marks"],
    ),
    (
        FOUR_LINES + "methods: [{name: clip_e, label: mine, templates: none.txt}]\n",
        ["methods.mine.templates", "none.txt", "no file"],
    ),
    (FOUR_LINES + "methods: [dnd, dnd]\n", ["methods", "two are called 'dnd'", "`label`"]),
    (FOUR_LINES + "methods: [clip, {name: dnd, label: clip}]\n", ["methods", "two are called 'clip'"]),
    (
        FOUR_LINES + "views: {a: {kind: random}, b: {kind: random}}\nmethods: [dnd]\n",
        ["methods.dnd.views", "say which", "a, b"],
    ),
    (
        FOUR_LINES.replace("model", "  more: {provider: file, path: b.json}\nmodel") + "methods: [cupl]\n",
        ["methods.cupl.descriptors", "say which", "marks, more"],
    ),
    ("dataset: {path: p}\ndescriptors: {d: {provider: file}}\n", ["descriptors.d.path", "is missing"]),
    ("dataset: {path: p}\ndescriptors: {d: {provider: oracle, path: x}}\n", ["descriptors.d.provider", "'oracle'"]),
    ("dataset: {path: p}\nmodel: {name: ViT-B-61}\n", ["model.name", "'ViT-B-61'", "ViT-B-16"]),
    ("dataset: {path: p}\nmodel: {weights: no.pt}\n", ["model.weights", "no.pt", "no file"]),
    ('dataset: {path: p}\nmodel: {name: "local-dir:none"}\n', ["model.name", "none", "open_clip_config.json"]),
    ("dataset: {path: p}\nmodel: {precision: fp8}\n", ["model.precision", "'fp8'", "'bf16'"]),
    ("dataset: {path: p}\nname: a/b\n", ["name", "slashes"]),
    ("dataset: {path: p}\nstore: ftp://host/runs\n", ["store: 'ftp://host/runs'", "s3://BUCKET/FOLDER", "gs://"]),
    ("dataset: {path: p}\nstore: s3://k:w@bucket/runs\n", ["store: ", "no credentials", "environment"]),
    ("dataset: {path: p}\nstore: gs://bucket//runs\n", ["store: 'gs://bucket//runs'", "empty part"]),
    ("dataset: {path: 's3://b/p'}\n", ["dataset.path: 's3://b/p'", "names no bucket"]),
    ("dataset: {path: 'https://host/p'}\n", ["dataset.path", "is an address", "s3://BUCKET/FOLDER", "`table`"]),
    ("name: x\n", ["dataset", "is missing"]),
    ("dataset: {path: p}\ndataset: {path: q}\n", ["'dataset' stands there twice", "line 2"]),
    ("dataset: {path: p, path: q}\n", ["'path' stands there twice"]),
    ("dataset: {path: p\n", ["not valid YAML", "line"]),
    ("- clip\n", ["should hold keys and values"]),
    ("", ["should hold keys and values", "dataset"]),
    ("dataset: {path: p}\n7: x\n", ["7"]),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[" ".join(words[:2]) for _, words in BAD])
def test_a_wrong_file_is_told_with_its_name_the_key_the_value_and_what_is_allowed(job, text, words):
    with pytest.raises(JobError) as raised:
        load_job(job(text))
    message = str(raised.value)
    assert [word for word in ["birds.yaml", *words] if word not in message] == []
    assert "\n" not in message


def test_all_mistakes_of_a_file_are_told_at_once_each_on_its_line(job):
    with pytest.raises(JobError) as raised:
        load_job(job("dataset: {path: 7}\nseed: one\ncolour: red\n"))
    assert [line.split(":")[1].strip() for line in str(raised.value).splitlines()] == ["dataset.path", "seed", "colour"]


def test_a_missing_file_a_folder_and_bytes_that_are_no_text_are_told(tmp_path):
    with pytest.raises(JobError, match=r"no job file .*none\.yaml; `fieldmark init DIR`"):
        load_job(tmp_path / "none.yaml")
    with pytest.raises(JobError, match=r"is a folder, not a job file"):
        load_job(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match=r"bytes\.yaml: is not UTF-8"):
        load_job(tmp_path / "bytes.yaml")
    with pytest.raises(JobError, match=r"cannot be read"):
        load_job(tmp_path / "bytes.yaml" / "job.yaml")


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("views.random.crops=16", lambda job: job.views["random"].crops == 16),
        ("seed=[1, 2]", lambda job: job.seeds == [1, 2]),
        ("methods.1.epsilon=0.5", lambda job: job.methods[1].epsilon == 0.5),
        ("methods.dnd.epsilon=0.5", lambda job: job.methods[1].epsilon == 0.5),
        ("methods.*.epsilon=0.5", lambda job: job.methods[1].epsilon == 0.5),
        ("methods.0.template=the {class}", lambda job: job.methods[0].template == "the {class}"),
        ("methods=[abs]", lambda job: [method.name for method in job.methods] == ["abs"]),
        ("resources.encode.gpus=1", lambda job: job.precision == "fp16"),
        ("name=a=b", lambda job: job.name == "a=b"),
    ],
)
def test_an_override_reaches_into_groups_lists_and_bare_method_names(job, override, found):
    text = FOUR_LINES + "views: {random: {kind: random}, guided: {kind: guided}}\nmethods: [clip, {name: dnd}]\n"
    assert found(load_job(job(text), [override]))


def test_overrides_are_applied_in_order_and_leave_the_file_alone(job):
    path = job(FOUR_LINES)
    before = path.read_text()
    assert load_job(path, ["seed=3", "seed=4"]).seed == 4
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", ["--set seed", "KEY=VALUE"]),
        ("=3", ["--set =3", "KEY=VALUE"]),
        ("views..crops=3", ["KEY=VALUE"]),
        ("seed=[1", ["--set seed=[1", "not valid YAML"]),
        ("methods.5.epsilon=1", ["'5' is no place in a list of 2"]),
        ("methods.last=1", ["'last' is no place in a list of 2", "methods are clip, dnd"]),
        ("methods.*.colour=red", ["none of the methods has a setting 'colour'"]),
        ("methods.-1=clip", ["'-1' is no place"]),
        ("model.name.first=1", ["'first'", "not a group"]),
        ("views.random.corps=1", ["views.random.corps", "Did you mean 'crops'?"]),
        ("seed=", ["seed", "None"]),
    ],
)
def test_a_wrong_override_is_told(job, override, words):
    with pytest.raises(JobError) as raised:
        load_job(job(FOUR_LINES + "methods: [clip, {name: dnd}]\nviews: {random: {kind: random}}\n"), [override])
    assert [word for word in words if word not in str(raised.value)] == []


@pytest.mark.parametrize("row", ["dnd", "0", "*"])
def test_a_setting_of_a_method_in_a_file_that_lists_none_says_that_it_lists_none(job, row):
    with pytest.raises(JobError, match=rf"--set methods\.{re.escape(row)}\.epsilon=0\.1: .* lists no methods; write"):
        load_job(job(FOUR_LINES), [f"methods.{row}.epsilon=0.1"])


ANCHORED = "views: {guided: &g {kind: guided, guide: clip, crops: 4}, other: *g}\nmethods: [clip]\n"


def test_what_an_alias_repeats_stands_by_itself_when_one_of_them_is_changed(job):
    loaded = load_job(job(FOUR_LINES + ANCHORED), ["views.guided.crops=9"])
    assert [view.crops for view in loaded.views.values()] == [9, 4]
    loaded = load_job(job(FOUR_LINES), [f"views={ANCHORED.splitlines()[0][7:]}", "views.guided.crops=9"])
    assert [loaded.views[name].crops for name in ("guided", "other")] == [9, 4]
    variants = load_jobs(job(FOUR_LINES + ANCHORED + "sweep: {views.guided.crops: [7, 9]}\n"))
    assert [[view.crops for view in each.job.views.values()] for each in variants] == [[7, 4], [9, 4]]


def test_a_value_set_in_every_method_is_each_ones_own(job):
    methods = "methods: [dnd, {name: dnd, label: other}]\nviews: {random: {kind: random, crops: 2}}\n"
    sets = ["methods.*.crop_weights=[1.0, 2.0]", "methods.dnd.crop_weights.0=3.0"]
    loaded = load_job(job(FOUR_LINES + methods), sets)
    assert [method.crop_weights for method in loaded.methods] == [[3.0, 2.0], [1.0, 2.0]]


def test_an_anchor_inside_itself_is_told(job):
    with pytest.raises(JobError, match=r"birds\.yaml: is not valid YAML: an anchor stands inside what it names"):
        load_job(job("dataset: &d {path: *d}\n"))


def test_guides_named_like_their_kind_need_no_entry(job):
    views = "views: {a: {kind: guided, guide: clip}, b: {kind: guided, guide: center}}\nmethods: [clip]\n"
    assert load_job(job(FOUR_LINES + views)).guides == {"clip": ClipGuide(), "center": CenterGuide()}


def test_an_entry_wins_over_the_guide_that_its_name_would_mean(job):
    text = "guides: {dino: {kind: center}}\nviews: {a: {kind: guided, guide: dino}}\nmethods: [abs]\n"
    assert load_job(job(FOUR_LINES + text)).guides == {"dino": CenterGuide()}


def test_a_method_that_names_no_views_never_reads_a_set_of_another_kind(job):
    loaded = load_job(job(FOUR_LINES + "views: {mine: {kind: random}}\nmethods: [dnd, abs]\n"))
    assert [method.views for method in loaded.methods] == ["mine", "guided"]
    assert loaded.views["guided"].kind == "guided"


def test_the_same_method_may_stand_twice_under_two_labels(job):
    loaded = load_job(job(FOUR_LINES + "methods: [dnd, {name: dnd, label: sharp, epsilon: 0.01}]\n"))
    assert [method.row_name for method in loaded.methods] == ["dnd", "sharp"]


@pytest.mark.parametrize(
    ("precision", "gpus", "expected"),
    [("auto", "auto", "fp32"), ("auto", 0, "fp32"), ("auto", 1, "fp16"), ("auto", 0.5, "fp16"), ("bf16", 1, "bf16")],
)
def test_precision_auto_is_decided_by_the_file_alone(job, precision, gpus, expected):
    text = f"dataset: {{path: p}}\nmodel: {{precision: {precision}}}\nresources: {{encode: {{gpus: {gpus}}}}}\n"
    assert load_job(job(text)).precision == expected


def test_a_missing_folder_of_images_is_told_when_the_job_is_planned(small_job):
    with pytest.raises(ValueError, match=r"dataset\.path: no folder .*nowhere"):
        make_plan(load_job(small_job(), ["dataset.path=nowhere"]))


def test_a_class_without_descriptors_is_told_with_the_set_the_file_and_similar_names(small_job, tmp_path):
    job = load_job(small_job())
    (tmp_path / "marks.json").write_text(json.dumps({"blue jay": ["x"], "red robbin": ["y"], "wren": ["z"]}))
    with pytest.raises(ValueError, match=r"descriptors\.marks: .*marks\.json: .*'red robin' \(similar: 'red robbin'\)"):
        make_plan(job)


def test_a_small_number_may_be_written_without_a_dot(small_job):
    job = small_job()
    assert load_job(job, ["views.random.min_area=1e-2", "views.random.kind=random"]).views["random"].min_area == 0.01


def test_an_override_of_a_default_view_set_needs_no_kind(small_job):
    loaded = load_job(small_job(views=None), ["views.random.crops=16"])
    assert loaded.views["random"].crops == 16
    assert loaded.views["random"].kind == "random"
    assert set(loaded.views) == {"random", "guided"}


def test_feature_crops_are_not_asked_of_a_view_set_that_has_none(small_job):
    with pytest.raises(JobError, match=r"methods\.abs\.crops: view set 'random' has no feature crops"):
        load_job(small_job(methods=[{"name": "abs", "views": "random", "crops": "feature"}]))


def test_store_and_images_may_lie_in_buckets_and_a_missing_bucket_is_told_before_anything_runs(job, bucket):
    loaded = load_job(job(f"dataset: {{path: {bucket}/photos/}}\nstore: {bucket}/runs/birds/\n"))
    assert (loaded.dataset.path, loaded.store) == (f"{bucket}/photos", f"{bucket}/runs/birds")
    with pytest.raises(JobError, match=r"store: s3://absent/runs: there is no bucket 'absent' at http://127"):
        load_job(job("dataset: {path: photos}\nstore: s3://absent/runs\n"))
