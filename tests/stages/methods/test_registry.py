from __future__ import annotations

import subprocess
import sys

import pytest

from stages.methods import METHODS, parse_method
from stages.methods.abs import Abs
from stages.methods.dnd import Dnd


def test_importing_and_parsing_methods_loads_neither_torch_nor_ray_nor_lancedb():
    program = (
        "import sys; from stages.methods import parse_method; parse_method({'name': 'abs', 'views': 'v'});"
        "sys.exit(sorted({'torch', 'ray', 'lancedb'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bare_name_is_the_method_with_its_defaults():
    assert parse_method("dnd") == Dnd()
    assert parse_method({"name": "dnd"}) == Dnd()
    assert parse_method("abs").row_name == "abs"


def test_settings_and_a_label_of_a_method_are_read():
    method = parse_method({"name": "abs", "label": "abs raw", "views": "guided", "crops": "raw", "temperature": 1})
    assert method == Abs(label="abs raw", views="guided", crops="raw", temperature=1.0)
    assert method.row_name == "abs raw"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_needs_and_where_it_comes_from(name):
    kind = METHODS[name]
    method = kind()
    assert method.name == name
    assert "algorithms.md" in method.source
    assert method.version >= 1
    assert method.needs_views == ("views" in kind.model_fields)
    assert method.needs_descriptors == ("descriptors" in kind.model_fields)
    assert method.views is None
    assert method.descriptors is None


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_described(name):
    fields = METHODS[name].model_fields.items()
    assert [field for field, info in fields if field != "name" and not info.description] == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("dndd", "unknown method 'dndd'; did you mean 'dnd'.* allowed: clip, cupl, crops_mean, dnd, abs"),
        ({"name": "tip"}, "unknown method 'tip'; allowed: clip"),
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
        ({"name": "abs", "crops": "all"}, "crops is 'all': .*'both', 'raw' or 'feature'"),
        ({"name": "dnd", "epsilon": "0.1"}, "epsilon is '0.1': .*valid number"),
        ({"name": "dnd", "iterations": True}, "iterations is True: .*valid integer"),
        ({"name": "dnd", "template": "a {name}"}, r"template 'a \{name\}' has \{name\}; allowed: \{class\}"),
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
