"""A sweep makes of one job file the jobs that somebody would write by hand, and says where it cannot."""

from __future__ import annotations

import copy
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job_error import JobError
from pipeline.job_file import load_job, load_jobs
from pipeline.plan import make_plan
from pipeline.sweep import expand_sweep

BASE = """\
name: birds
dataset: {path: photos}
descriptors: {marks: {provider: file, path: marks.json}}
views: {random: {kind: random, crops: 3}, guided: {kind: guided, guide: clip, crops: 2}}
methods: [clip, cupl, {name: dnd, epsilon: 0.2}, {name: dnd, label: sharp, epsilon: 0.01}, crops_mean]
"""


@pytest.fixture
def job(tmp_path):
    """`job(sweep, base)` -> a job file with this sweep, a line of YAML."""

    def write(sweep: str = "", base: str = BASE):
        path = tmp_path / "birds.yaml"
        path.write_text(base + (f"sweep: {sweep}\n" if sweep else ""), encoding="utf-8")
        return path

    return write


def test_one_key_gives_a_job_a_value_which_differ_in_it_alone(job):
    variants = load_jobs(job("{views.random.crops: [3, 9]}"))
    assert [each.label for each in variants] == ["crops=3", "crops=9"]
    assert [dict(each.values) for each in variants] == [{"views.random.crops": 3}, {"views.random.crops": 9}]
    assert [each.job.views["random"].crops for each in variants] == [3, 9]
    by_hand = load_job(job(), ["views.random.crops=9"])
    assert variants[1].job.model_copy(update={"name": "birds"}) == by_hand


def test_variants_lie_in_one_store_and_have_names_of_their_own(job, tmp_path):
    variants = load_jobs(job("{seed: [0, 1]}"))
    assert {each.job.store for each in variants} == {str(tmp_path / "runs/birds")}
    assert [each.job.name for each in variants] == ["birds seed=0", "birds seed=1"]


def test_several_keys_give_their_product_the_last_one_changing_fastest(job):
    variants = load_jobs(job("{views.random.crops: [3, 9], views.random.min_area: [0.1, 0.2]}"))
    assert [each.label for each in variants] == [
        "crops=3, min_area=0.1",
        "crops=3, min_area=0.2",
        "crops=9, min_area=0.1",
        "crops=9, min_area=0.2",
    ]
    assert [each.job.views["random"].min_area for each in variants] == [0.1, 0.2, 0.1, 0.2]


def test_keys_that_end_alike_are_told_apart_in_labels(job):
    variants = load_jobs(job("{views.random.crops: [3], views.guided.crops: [5]}"))
    assert [each.label for each in variants] == ["random.crops=3, guided.crops=5"]


def test_variants_with_names_set_what_they_like_and_may_set_nothing(job):
    sweep = "[{label: as it is}, {label: small, set: {views.random.crops: 1, methods.dnd.epsilon: 1.0}}]"
    variants = load_jobs(job(sweep))
    assert [(each.label, dict(each.values)) for each in variants] == [("as it is", {}), ("small", {})]
    assert [each.job.views["random"].crops for each in variants] == [3, 1]
    assert [each.job.methods[2].epsilon for each in variants] == [0.2, 1.0]


def test_a_method_is_reached_by_its_row_name_by_its_place_and_by_a_star_for_all_that_have_the_setting(job):
    def epsilons(sweep: str) -> list[float]:
        return [method.epsilon for method in load_jobs(job(sweep))[0].job.methods if method.name == "dnd"]

    assert epsilons("{methods.sharp.epsilon: [0.5]}") == [0.2, 0.5]
    assert epsilons("{methods.dnd.epsilon: [0.5]}") == [0.5, 0.01]
    assert epsilons("{methods.2.epsilon: [0.5]}") == [0.5, 0.01]
    assert epsilons("{methods.*.epsilon: [0.5]}") == [0.5, 0.5]
    (variant,) = load_jobs(job("{methods.*.max_crops: [2]}"))
    assert [getattr(method, "max_crops", "none") for method in variant.job.methods] == ["none", "none", 2, 2, 2]


def test_a_star_passes_over_a_method_that_its_other_settings_keep_from_crops(job):
    base = BASE.replace("methods: [", "methods: [{name: abs, label: all, crops: whole}, {name: abs, crops: raw}, ")
    (variant,) = load_jobs(job("{methods.*.max_crops: [2], methods.*.temperature: [0.5]}", base))
    whole, raw, *_ = variant.job.methods
    assert (whole.max_crops, raw.max_crops) == (None, 2)
    assert (whole.temperature, raw.temperature) == (0.5, 0.5)
    base = BASE.split("methods:")[0] + "methods: [{name: abs, crops: whole}]\n"
    with pytest.raises(JobError, match="none of the methods has a setting 'max_crops' that it reads; there are abs"):
        load_jobs(job("{methods.*.max_crops: [2]}", base))


def test_a_bare_method_name_takes_settings(job):
    (variant,) = load_jobs(job("{methods.crops_mean.renormalize: [false]}"))
    assert variant.label == "renormalize=false"
    assert variant.job.methods[4].renormalize is False


def test_values_may_be_anything_that_the_key_may(job):
    sweep = "{views.guided: [{kind: guided, guide: center}, {kind: guided, guide: clip}], seed: [[0, 1]]}"
    variants = load_jobs(job(sweep))
    assert [each.job.views["guided"].guide for each in variants] == ["center", "clip"]
    assert variants[0].job.seeds == [0, 1]
    assert variants[0].label == 'guided={"kind": "guided", "guide": "center"}, seed=[0, 1]'


def test_tables_that_do_not_depend_on_the_swept_key_are_one_for_all_variants(small_job):
    variants = load_jobs(small_job(sweep={"views.random.crops": [2, 3]}, methods=["clip", "dnd", "abs"]))
    two, three = (
        {table.name: table.fingerprint for table in make_plan(each.job).of("encode_images").tables} for each in variants
    )
    assert two.keys() == three.keys()
    assert {name for name in two if two[name] != three[name]} == {"views.random"}


WRONG = [
    ("5", ["5", "keys with lists of values"]),
    ("{}", ["{}", "keys with lists of values"]),
    ("[]", ["[]", "label: NAME"]),
    ("{views.random.crops: 3}", ["views.random.crops", "3", "a list of values"]),
    ("{views.random.crops: []}", ["views.random.crops", "[]", "a list of values"]),
    ("{views.random.crops: [3, 3]}", ["two variants are called 'crops=3'"]),
    ("{views..crops: [3]}", ["'views..crops' is no key"]),
    ("{7: [3]}", ["7 is no key"]),
    ("{store: [a, b]}", ["store", "the same in all variants"]),
    ("{name: [a, b]}", ["name", "the same in all variants"]),
    ("{views.random: [{crops: 3}], views.random.crops: [3]}", ["views.random.crops: lies inside views.random"]),
    (
        "{methods.dnd.epsilon: [0.5, 0.7], methods.*.epsilon: [1.0]}",
        ["methods.*.epsilon: sets methods.2.epsilon, and so does methods.dnd.epsilon; keep one"],
    ),
    ("{methods.dnd.epsilon: [0.5], methods.2.epsilon: [1.0]}", ["methods.2.epsilon", "and so does methods.dnd.eps"]),
    ("[{label: a, set: {methods.2: clip, methods.dnd.epsilon: 1.0}}]", ["methods.dnd.epsilon: lies inside methods.2"]),
    ("{views.random.corps: [3]}", ["(views.random.corps = 3)", "Did you mean 'crops'?"]),
    ("{views.random.crops: [3, 0]}", ["(views.random.crops = 0)", "0 is not allowed", "greater than or equal to 1"]),
    ("{views.random.min_area: [0.5, 0.9]}", ["(views.random.min_area = 0.9)", "must not exceed max_area (0.75)"]),
    ("{methods.*.colour: [red]}", ["methods.*.colour", "none of the methods has a setting 'colour'", "sharp"]),
    ("{methods.blunt.epsilon: [1]}", ["methods.blunt.epsilon = 1", "'blunt' is no place", "clip, cupl, dnd, sharp"]),
    ("{dataset.path.more: [1]}", ["the key before 'more' is a value"]),
    ("[{label: a, set: {seed: 1}}, {label: a}]", ["two variants are called 'a'"]),
    ("[{label: a, sets: {seed: 1}}]", ["0", "label: NAME, set: {KEY: VALUE}"]),
    ("[{set: {seed: 1}}]", ["0: label", "None should be a name"]),
    ("[{label: a, set: 5}]", ["a: set", "5 should hold keys and values"]),
    ("[{label: a, set: {seed: one}}]", ["('a')", "seed", "'one' is not allowed"]),
]


@pytest.mark.parametrize(("sweep", "words"), WRONG, ids=[sweep for sweep, _ in WRONG])
def test_a_wrong_sweep_is_told_with_file_key_and_value_before_anything_is_loaded(job, sweep, words):
    with pytest.raises(JobError) as raised:
        load_jobs(job(sweep))
    message = str(raised.value)
    assert [word for word in ["birds.yaml: sweep", *words] if word not in message] == []
    assert "\n" not in message


def test_a_star_needs_methods_to_stand_in_the_file(job):
    base = BASE.replace("methods: [clip, cupl", "# methods: [clip, cupl")
    with pytest.raises(JobError, match="lists no methods"):
        load_jobs(job("{methods.*.epsilon: [1]}", base))


def test_overrides_change_the_file_before_it_is_expanded(job):
    variants = load_jobs(job("{views.random.crops: [3, 9]}"), ["seed=7", "sweep.views.random.crops=[4, 5, 6]"])
    assert [each.label for each in variants] == ["crops=4", "crops=5", "crops=6"]
    assert {each.job.seed for each in variants} == {7}


def test_an_override_adds_a_swept_key_or_takes_the_sweep_away(job):
    swept = job("{views.random.crops: [3, 9]}")
    assert len(load_jobs(swept, ["sweep.seed=[0, 1]"])) == 4
    assert [each.label for each in load_jobs(swept, ["sweep=null"])] == [None]
    assert [each.label for each in load_jobs(job(), ["sweep.seed=[0, 1]"])] == ["seed=0", "seed=1"]


def test_an_override_of_what_is_swept_says_how_to_narrow_the_sweep(job):
    path = job("{views.random.crops: [3, 9]}")
    with pytest.raises(JobError, match=r"views\.random\.crops is swept .* --set sweep\.views\.random\.crops="):
        load_jobs(path, ["views.random.crops=4"])
    with pytest.raises(JobError, match=r"views\.random is swept"):
        load_jobs(job("{views.random: [{kind: random}]}"), ["views.random.crops=4"])
    with pytest.raises(JobError, match=r"seed is swept"):
        load_jobs(job("[{label: a, set: {seed: 1}}]"), ["seed=4"])
    with pytest.raises(JobError, match=r"list of named variants.*--set sweep='\[\.\.\.\]'"):
        load_jobs(job("[{label: a, set: {seed: 1}}]"), ["sweep.seed=[1, 2]"])


@pytest.mark.parametrize("override", ["methods.dnd.epsilon", "methods.2.epsilon", "methods.*.epsilon"])
@pytest.mark.parametrize("swept", ["methods.dnd.epsilon", "methods.2.epsilon", "methods.*.epsilon"])
def test_an_override_of_a_methods_swept_setting_is_refused_however_either_is_written(job, swept, override):
    path = job(f"{{{swept}: [0.5, 1.0]}}")
    with pytest.raises(JobError, match=rf"--set {re.escape(override)}=2.0: {re.escape(swept)} is swept"):
        load_jobs(path, [f"{override}=2.0"])
    assert (
        load_jobs(job("{methods.sharp.epsilon: [0.5]}"), ["methods.dnd.epsilon=2.0"])[0].job.methods[2].epsilon == 2.0
    )


def test_who_needs_one_job_is_told_of_the_variants(job):
    with pytest.raises(JobError, match=r"birds\.yaml: sweep: one job is needed .* 'crops=3', 'crops=9'"):
        load_job(job("{views.random.crops: [3, 9]}"))


KEYS = st.sampled_from(["a.b", "a.c", "a.d.e", "f", "g.h"])
SWEEPS = st.dictionaries(KEYS, st.lists(st.integers(), min_size=1, max_size=3, unique=True), min_size=1, max_size=3)


@given(SWEEPS)
def test_every_combination_comes_once_with_its_values_in_place_and_the_rest_as_it_was(sweep):
    data = {"a": {"b": "b", "z": 1}, "y": [1], "sweep": sweep}
    before = copy.deepcopy(data)
    found = expand_sweep(data)
    assert data == before
    assert len(found) == math.prod(map(len, sweep.values())) == len({each.label for each in found})
    for each in found:
        assert "sweep" not in each.data
        assert (each.data["y"], each.data["a"]["z"]) == ([1], 1)
        for key, value in each.values.items():
            place = each.data
            for step in key.split("."):
                place = place[step]
            assert place == value
            assert value in sweep[key]
