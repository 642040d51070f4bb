"""Where descriptors come from: a file, the class names alone, or a language model, each with its own settings.

A job file names sets of descriptors, each of one of these kinds (`provider`); its group `describe` says what all sets
that are asked for share. They import neither torch nor ray nor openai: reading one is instant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from prompts.phrasing import Form
from prompts.templates import check_templates, is_path
from stages.settings import Settings

OPENAI_HOST, OPENAI_KEY = "api.openai.com", "OPENAI_API_KEY"


class FileDescriptors(Settings):
    """Descriptors from a file: `{class name: [text, ...]}`, as CLIP-D and CuPL publish theirs, or a table."""

    provider: Literal["file"] = "file"
    path: str
    """.json or .yaml (`{class name: [text, ...]}`), .jsonl, .csv, .tsv, .parquet, .arrow or .feather (a `class` and a
    `descriptor` or `text` a row, or a list under `descriptors` or `texts`), or the folder of a LanceDB table
    (NAME.lance); files may also lie at s3:// and gs://"""
    table: str | None = None
    """table of the LanceDB database whose folder `path` is; default: `path` is no database"""
    aliases: str | None = None
    """a .json or .yaml file {class of the data set: its name in the descriptor file}; default: same names"""
    form: Form = "sentences"
    """sentences are encoded as they stand; attributes ("a red beak") are put into a method's template"""

    @property
    def paths(self) -> dict[str, str]:
        """Settings that name files of the user's own -> those paths, relative to the job file until it is read."""
        return {"path": self.path} | ({} if self.aliases is None else {"aliases": self.aliases})


class NamesDescriptors(Settings):
    """Sentences made of the class names alone, `a photo of a wren.`: no file, no key and no endpoint is needed."""

    provider: Literal["names"] = "names"
    templates: Annotated[str, AfterValidator(check_templates)] = "general"
    """a set that ships (prompts/templates.yaml), or a file with a template a line or a list of them"""

    @property
    def form(self) -> Form:
        """Filled templates are sentences."""
        return "sentences"

    @property
    def paths(self) -> dict[str, str]:
        """As `FileDescriptors.paths`."""
        return {"templates": self.templates} if is_path(self.templates) else {}


def _check_prompt(name: str) -> str:
    from prompts.prompt_file import check_prompt

    return check_prompt(name)


class OpenAIDescriptors(Settings):
    """Descriptors from a language model behind any endpoint that speaks the protocol of OpenAI's chat completions."""

    provider: Literal["openai"] = "openai"
    model: Annotated[str, Field(min_length=1)]
    """the model, as the endpoint calls it"""
    base_url: str | None = None
    """address of the endpoint, such as http://localhost:8000/v1, without a key in it; default: OpenAI's own"""
    key_variable: str | None = None
    """name of the environment variable that holds the key, which itself never stands in a job file; default:
    OPENAI_API_KEY for OpenAI's own address and Azure; any other is sent no key unless this names one"""
    api_version: Annotated[str, Field(min_length=1)] | None = None
    """version of Azure's interface, such as 2024-10-21; `base_url` is then the address of an Azure resource"""
    prompt: Annotated[str, AfterValidator(_check_prompt)] = "field_marks"
    """a prompt that ships (prompts/shipped), or the path of a .yaml file of one's own"""
    variables: dict[str, str] = {}
    """values of the prompt's variables, such as {domain: a species of bird}"""
    per_class: Annotated[int, Field(ge=1, le=1000)] = 9
    """descriptors asked for a class"""
    answers: Literal["auto", "schema", "json", "text"] = "auto"
    """how answers are asked for: by a schema, as JSON, as plain lines; auto: the first that the endpoint takes"""
    temperature: Literal["prompt", "server"] | Annotated[float, Field(ge=0, le=2)] = "prompt"
    """of sampling; prompt: what the prompt says, if it does; server: none is sent, for models that take none"""
    seed: int | None = None
    """seed of sampling, where the endpoint honours one; default: none is sent"""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """tokens of one answer at most; default: the endpoint's limit"""
    system: str | None = None
    """system message in place of the prompt's own"""
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """how often a question is asked at most when answers cannot be read or are too few"""
    fallback: Literal["none", "names"] = "none"
    """a class that no answer could be read for: none stops the stage and names it, names says its name alone"""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """seconds to wait for one answer"""

    @model_validator(mode="before")
    @classmethod
    def _no_key(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and (told := sorted(map(str, {"api_key", "key", "token"} & set(data)))):
            raise ValueError(
                f"a job file holds no keys: take {told[0]!r} out, put the key into an environment variable, and name "
                "that in `key_variable` (default OPENAI_API_KEY)"
            )
        return data

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        return None if value is None else check_address(value)

    @field_validator("key_variable")
    @classmethod
    def _names_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(
            r"[A-Z_][A-Z0-9_]{0,63}", value
        ):  # it may be the key itself, so it is not repeated
            raise ValueError(
                "should be the name of an environment variable, capital letters, digits and _, such as OPENAI_API_KEY; "
                "if the key itself stands there, take it out of the file"
            )
        return value

    @property
    def variable_of_key(self) -> str:
        """The environment variable that holds the key; empty where none is sent."""
        return self.key_variable or (OPENAI_KEY if self.is_openais_own else "")

    @property
    def is_openais_own(self) -> bool:
        """Whether OpenAI or Azure is asked, and not another server of the same protocol."""
        host = OPENAI_HOST if self.base_url is None else urlsplit(self.base_url).hostname
        return host == OPENAI_HOST or self.api_version is not None

    @property
    def form(self) -> Form:
        """What the prompt asks for. Raises ValueError for a prompt file that cannot be read."""
        from prompts.prompt_file import read_prompt

        return read_prompt(self.prompt).form

    @property
    def asks_about_similar(self) -> bool:
        """Whether the prompt speaks of the classes most like the one that is asked about. Raises as `form`."""
        from prompts.prompt_file import read_prompt

        return read_prompt(self.prompt).needs_similar

    @property
    def paths(self) -> dict[str, str]:
        """As `FileDescriptors.paths`."""
        return {"prompt": self.prompt} if is_path(self.prompt) else {}


def check_address(url: str) -> str:
    """Give back the address of an endpoint without a slash at its end; ValueError, which never repeats it, else.

    An address has a scheme and a host, and carries neither user name, password, query nor fragment: it is stored with
    what was asked there.
    """
    example = "write http://HOST:PORT/v1 or https://HOST/v1"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"is no address of an endpoint; {example}") from None
    if "@" in parts.netloc:
        raise ValueError(f"an address carries no credentials: {example}, and name the key's variable in `key_variable`")
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url):
        raise ValueError(f"is no address of an endpoint; {example}")
    if "?" in url or "#" in url:
        raise ValueError(f"an address carries no query: {example}; Azure's api-version is the setting `api_version`")
    return url.rstrip("/")


def _with_provider(value: Any) -> Any:
    """A set with a path and no provider is a file."""
    if isinstance(value, Mapping) and "provider" not in value:
        if "path" not in value:
            raise ValueError(
                "needs a `provider`: file (descriptors in a file, with `path`), names (templates around the class "
                "names) or openai (a language model, with `model`)"
            )
        return {"provider": "file", **value}
    return value


DescriptorSettings = Annotated[
    FileDescriptors | NamesDescriptors | OpenAIDescriptors,
    Field(discriminator="provider"),
    BeforeValidator(_with_provider),
]


class TokenPrice(Settings):
    """What an endpoint charges."""

    prompt: Annotated[float, Field(ge=0)]
    """dollars a million tokens of questions"""
    completion: Annotated[float, Field(ge=0)]
    """dollars a million tokens of answers"""

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for so many tokens of questions and of answers."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


def tell_dollars(dollars: float | None) -> str:
    """A sum after a comma; nothing for one that is not known."""
    if dollars is None:
        return ""
    return f", ${dollars:,.2f}" if dollars >= 0.01 else ", under $0.01"


class DescribeSettings(Settings):
    """How language models are asked, and how much that may cost, for all descriptor sets of a job together."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """questions that are on their way at once"""
    max_tokens_total: Annotated[int, Field(ge=1)] | None = None
    """tokens, of questions and answers, that a set may take in all, stored answers counted; what came by then is kept.
    Default: no limit"""
    cache: Annotated[str, Field(min_length=1)] | None = None
    """folder, or s3://BUCKET/FOLDER or gs://..., in which stores share answers; default: each store keeps its own"""
    ask_above_tokens: Annotated[int, Field(ge=0)] = 1_000_000
    """a run that a person watches asks before it spends more than about this many tokens"""
    price: TokenPrice | None = None
    """what tokens cost, for estimates: {prompt, completion} in dollars a million; default: tokens alone are told"""
