from __future__ import annotations

import subprocess
import sys

import pytest

from stages.methods import FEW_SHOT, METHODS, PRESETS, TEST_TIME, parse_method
from stages.methods.abs import Abs
from stages.methods.dnd import Dnd

ALL = (
    "clip, clip_e, clip_d, clip_d_wca, cupl, waffle, wca, crops_mean, dnd, abs, "
    "tip, tip_f, dnd_tip, dnd_tip_f, tda, dnd_tda"
)
DRAWN = ("waffle", *FEW_SHOT)


def test_importing_methods_and_making_their_prompts_loads_nothing_heavy():
    program = (
        "import sys; from stages.methods import FEW_SHOT, METHODS, PRESETS, TEST_TIME, parse_method\n"
        "for name in [*METHODS, *PRESETS]:\n"
        "    for method in parse_method(name).variants():\n"
        "        method.class_prompts(['jay'], [['a crest']], 'attributes'), method.model_dump(), method.paths\n"
        "heavy = {'torch', 'ray', 'lancedb', 'numba', 'scipy', 'matplotlib', 'ot'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_registry_has_every_method_in_the_order_of_the_tables():
    assert ", ".join(METHODS) == ALL


def test_a_bare_name_is_the_method_with_its_defaults():
    assert parse_method("dnd") == Dnd()
    assert parse_method({"name": "dnd"}) == Dnd()
    assert parse_method("abs").row_name == "abs"


def test_settings_and_a_label_of_a_method_are_read():
    method = parse_method({"name": "abs", "label": "abs raw", "views": "guided", "crops": "raw", "temperature": 1})
    assert method == Abs(label="abs raw", views="guided", crops="raw", temperature=1.0)
    assert method.row_name == "abs raw"


def test_a_preset_s_name_is_the_method_as_its_authors_code_has_it_on_a_view_set_of_that_name():
    wca = parse_method("wca_code")
    assert (wca.name, wca.row_name, wca.views, wca.sample, len(wca.seeds)) == ("wca", "wca_code", "wca_code", 60, 20)
    mine = parse_method({"name": "abs_code", "label": "mine", "views": "guided", "crops": "raw"})
    assert mine == Abs(label="mine", views="guided", crops="raw", truncate_to_min=True)
    with pytest.raises(ValueError, match="method 'abs_code' has no setting 'epsilon'"):
        parse_method({"name": "abs_code", "epsilon": 1})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_again_from_what_it_is_dumped_as(name):
    method = parse_method(name)
    assert parse_method(method.model_dump()).model_dump() == method.model_dump()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_needs_and_where_it_comes_from(name):
    kind = METHODS[name]
    method = kind()
    assert method.name == name
    assert "algorithms.md" in method.source
    assert method.version >= 1
    assert method.needs_views == ("views" in kind.model_fields and name != "tda")  # of AugMix versions, if asked for
    assert method.needs_descriptors == ("descriptors" in kind.model_fields)
    assert getattr(method, "views", None) is None
    assert getattr(method, "descriptors", None) is None


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_described(name):
    fields = METHODS[name].model_fields.items()
    assert [field for field, info in fields if field != "name" and not info.description] == []


def test_only_random_methods_have_variants_and_a_variant_is_its_own_only_one():
    others = [name for name in METHODS if name not in DRAWN]
    assert {name: len(parse_method(name).variants()) for name in others} == dict.fromkeys(others, 1)
    assert {name: parse_method(name).draw for name in METHODS} == {
        name: 1 if name in TEST_TIME else None for name in METHODS
    }
    for name in DRAWN:
        for variant in parse_method(name).variants():
            assert variant.variants() == (variant,)


def test_a_few_shot_method_has_a_variant_for_each_number_of_shots_and_seed():
    variants = parse_method({"name": "tip", "shots": [4, 1], "seeds": [7, 8]}).variants()
    assert [(one.shot, one.draw, one.title) for one in variants] == [
        (1, 7, "tip (1)"),
        (1, 8, "tip (1)"),
        (4, 7, "tip (4)"),
        (4, 8, "tip (4)"),
    ]


def test_a_preset_of_tda_is_its_authors_alpha_and_beta_and_given_ones_win():
    method = parse_method({"name": "tda", "preset": "pets", "alpha": 1.5})
    assert (method.alpha, method.beta) == (1.5, 7.0)
    assert (parse_method("tda").alpha, parse_method("tda").beta) == (2.0, 5.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("dndd", f"unknown method 'dndd'; did you mean 'dnd'.* allowed: {ALL}, wca_code, abs_code"),
        ({"name": "tipp"}, "unknown method 'tipp'; did you mean 'tip'"),
        ({"views": "random"}, "a method needs a `name`"),
        (3, "a name or a mapping with `name`, not 3"),
        (
            {"name": "abs", "temperture": 1},
            "method 'abs' has no setting 'temperture'; did you mean 'temperature'",
        ),
        (
            {"name": "clip", "views": "random"},
            "method 'clip' has no setting 'views'; allowed: name, label, template",
        ),
        (
            {"name": "abs", "temperature": 0},
            "method 'abs': temperature is 0: .*greater than or equal to 0.001",
        ),
        ({"name": "abs", "crops": "all"}, "crops is 'all': .*'both', 'raw', 'feature' or 'whole'"),
        ({"name": "abs", "confidence_temperature": 0}, "confidence_temperature is 0: .*greater than 0"),
        ({"name": "dnd", "epsilon": "0.1"}, "epsilon is '0.1': .*valid number"),
        ({"name": "dnd", "iterations": True}, "iterations is True: .*valid integer"),
        ({"name": "dnd", "solver": "exactly"}, "solver is 'exactly': .*'ours', 'pot' or 'exact'"),
        ({"name": "dnd", "crop_weights": "relevant"}, "crop_weights is 'relevant': .*'uniform' or 'relevance'"),
        ({"name": "dnd", "crop_weights": [1, -1]}, "crop_weights.1 is -1: .*greater than or equal to 0"),
        ({"name": "dnd", "crop_weights": [0, 0.0]}, "crop_weights is .*: weights must not all be 0"),
        ({"name": "dnd", "crop_weights": [1, 1e308]}, r"crop_weights.1 is 1e\+308: .*less than or equal to 1000000"),
        ({"name": "dnd", "crop_weights": [1, 1e-320]}, "crop_weights is .*: a weight is 0, or at least 1e-06"),
        ({"name": "dnd", "crop_weights": []}, "crop_weights is .*at least 1 item"),
        ({"name": "dnd", "template": "a {name}"}, r"template 'a \{name\}' has \{name\}; allowed: \{class\}"),
        ({"name": "dnd", "max_crops": 0}, "max_crops is 0: .*greater than or equal to 1"),
        ({"name": "cupl", "max_descriptors": 0}, "max_descriptors is 0: .*greater than or equal to 1"),
        ({"name": "cupl", "max_crops": 3}, "method 'cupl' has no setting 'max_crops'"),
        ({"name": "waffle", "seeds": [1, 1]}, "seeds is .*each seed stands there once"),
        ({"name": "waffle", "template": "a {class}"}, r"template 'a \{class\}' has no place .*\{which\} or"),
        ({"name": "waffle", "seeds": []}, "seeds is .*at least 1 item"),
        ({"name": "wca", "seeds": [-1]}, "seeds.0 is -1: .*greater than or equal to 0"),
        ({"name": "wca", "preset": "abs"}, "preset is 'abs': .*'wca' or 'wca_code'"),
        ({"name": "clip_e", "templates": "imagnet"}, "templates is 'imagnet': .*did you mean 'imagenet'.* general"),
        ({"name": "clip", "template": "a bird"}, "no variable"),
        ({"name": "clip", "template": "{class}, {which}"}, r"has \{which\}; allowed: \{class\}$"),
    ],
)
def test_a_wrong_method_is_refused_in_one_line_with_what_is_allowed(value, message):
    with pytest.raises(ValueError, match=message) as refused:
        parse_method(value)
    assert "\n" not in str(refused.value)


def test_a_method_cannot_be_changed_after_it_is_made():
    with pytest.raises(ValueError, match="frozen"):
        parse_method("dnd").epsilon = 1.0
