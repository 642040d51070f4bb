"""Prompts: what a language model is asked about a class. Those that ship (`shipped/`), and files of the user's own."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .answers import AnswerKind, shape_in_words
from .phrasing import Form, clean_class_name
from .prompt_shape import lines_of, read_shape, variables_of
from .templates import is_path


@dataclass(frozen=True)
class Prompt:
    """The questions that are asked about each class, and how their answers are read."""

    name: str
    """a shipped prompt's name, or the path as it was given"""
    version: int
    """the file's own, raised by its author"""
    form: Form
    answer: AnswerKind
    system: str | None
    questions: tuple[str, ...]
    """templates with {class}, {domain}, {count}, {similar} and the file's own variables"""
    examples: tuple[tuple[str, str], ...]
    """(user, assistant) turns that stand before the question, word for word"""
    variables: Mapping[str, str | None]
    """name -> default; None: the job must say it"""
    samples: int
    """answers asked for each question"""
    temperature: float | None
    """for jobs that say none; None: the server's own"""

    @property
    def needs_similar(self) -> bool:
        """Whether a question speaks of the classes most like this one: {similar}."""
        return "similar" in variables_of(self.questions)

    @property
    def digest(self) -> str:
        """sha256 of all that decides the messages and the reading of their answers; not of the file's name or place."""
        content = asdict(self) | {"name": None, "variables": dict(self.variables), "shape": shape_in_words(self.answer)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def shipped_prompts() -> list[str]:
    """The names of the prompts that ship, the default first."""
    names = sorted(path.stem for path in _SHIPPED.glob("*.yaml"))
    return sorted(names, key=lambda name: name != "field_marks")


def check_prompt(name: str) -> str:
    """Give back a path, or the name of a prompt that ships; ValueError for any other, with those there are."""
    if is_path(name) or name in shipped_prompts():
        return name
    close = difflib.get_close_matches(name, shipped_prompts(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"no prompt is called {name!r}; {hint}there are {', '.join(shipped_prompts())}, "
        "or give a file of the same shape that ends in .yaml"
    )


def read_prompt(name: str) -> Prompt:
    """The prompt of a shipped name or of a file.

    Raises ValueError naming the file, the key and what is allowed: for a file that cannot be read or parsed, a key
    that is unknown, missing or of the wrong kind, an example whose answer has not the kind that is asked for, a
    question without {class} or with a variable that nobody declares, and a declared one that no question uses.
    """
    path = Path(check_prompt(name)) if is_path(name) else _SHIPPED / f"{check_prompt(name)}.yaml"
    file = read_shape(path)
    domain = {"domain": ""} if "domain" in variables_of(file.questions) else {}
    return Prompt(
        name=name,
        version=file.version,
        form=file.form,
        answer=file.answer,
        system=file.system,
        questions=tuple(file.questions),
        examples=tuple(
            (example.question.strip(), json.dumps(example.as_answered(), ensure_ascii=False))
            for example in file.examples
        ),
        variables=domain | file.variables,
        samples=file.samples,
        temperature=file.temperature,
    )


def check_variables(prompt: Prompt, values: Mapping[str, str]) -> dict[str, str]:
    """The value of each variable of the prompt: the job's, else the default.

    Raises ValueError for a value that the prompt has no variable for, and for one that it needs and nobody gives.
    """
    takes = ", ".join(prompt.variables) or "none"
    for name in values:
        if name not in prompt.variables:
            raise ValueError(f"prompt {prompt.name!r} has no variable {name!r} to set; it takes: {takes}")
    filled = {name: values.get(name, default) for name, default in prompt.variables.items()}
    for name, value in filled.items():
        if value is None:
            raise ValueError(f"prompt {prompt.name!r} needs a value for its variable {name!r}")
    return filled


def conversations(
    prompt: Prompt,
    class_name: str,
    *,
    count: int,
    values: Mapping[str, str],
    similar: Sequence[str] = (),
    system: str | None = None,
    structured: bool = True,
) -> list[list[dict[str, str]]]:
    """The chat messages of each question about a class, in the prompt's order.

    `count` descriptors are wanted of all questions and samples together; each question asks for its share, rounded up.
    `values` are the job's variables, `similar` the classes most like this one, the nearest first. `system` replaces the
    prompt's own where it is given; an empty one sends none. A line of a question whose variables are all empty is left
    out, so that "What it is: {domain}" stands there only where a domain is known.

    `structured` says that the server holds the model to the answer's schema. Where it does not, in JSON mode too, the
    question says itself which JSON object to answer with.

    Raises ValueError as `check_variables` does.
    """
    filled = check_variables(prompt, values) | {
        "class": clean_class_name(class_name),
        "count": str(math.ceil(count / (len(prompt.questions) * prompt.samples))),
        "similar": ", ".join(clean_class_name(name) for name in similar),
    }
    opening = [{"role": "system", "content": said}] if (said := prompt.system if system is None else system) else []
    for question, answer in prompt.examples:
        opening += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    closing = "" if structured else f"\n\n{shape_in_words(prompt.answer)}"
    return [[*opening, {"role": "user", "content": _fill(question, filled) + closing}] for question in prompt.questions]


_SHIPPED = Path(__file__).with_name("shipped")


def _fill(question: str, values: Mapping[str, str]) -> str:
    kept = [
        line.format_map(values)
        for line, names in lines_of(question)
        if not names or any(values[name].strip() for name in names)
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
