"""Templates into pages. A template extends `base.html.j2` and fills its blocks `title`, `lead` and `body`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


def render(template: str, **values: Any) -> str:
    """The page that a template of this folder, such as `hits.html.j2`, makes of these values.

    Every value is escaped but `Markup`, as `picture_with_boxes` returns. Raises jinja2's UndefinedError for a value
    that the template reads and nobody gave.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
