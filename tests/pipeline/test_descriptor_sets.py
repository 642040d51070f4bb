"""Descriptor sets of a job file: what each provider may be told, where its files lie, and that no key is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

import prompts
from pipeline.job_error import JobError
from pipeline.job_file import load_job
from stages.descriptor_settings import FileDescriptors, NamesDescriptors, OpenAIDescriptors, TokenPrice

SECRET = "sk-Abc123"


@pytest.fixture
def load(tmp_path, write_job):
    """`load(set, **keys)` -> the job of a file with one descriptor set, `marks`."""

    def read(descriptors, **keys):
        keys = {"methods": ["clip"], **keys}
        return load_job(write_job(tmp_path, dataset={"path": "photos"}, descriptors={"marks": descriptors}, **keys))

    return read


def test_each_provider_has_settings_of_its_own_and_a_set_with_a_path_is_a_file(load):
    assert isinstance(load({"path": "marks.json"}).descriptors["marks"], FileDescriptors)
    names = load({"provider": "names"}).descriptors["marks"]
    assert (type(names), names.templates, names.form) == (NamesDescriptors, "general", "sentences")
    asked = load({"provider": "openai", "model": "small", "base_url": "http://localhost:8000/v1/"}).descriptors["marks"]
    assert (type(asked), asked.base_url, asked.per_class) == (OpenAIDescriptors, "http://localhost:8000/v1", 9)


def test_files_of_a_set_and_the_shared_cache_are_relative_to_the_job_file_and_addresses_are_left_alone(load, tmp_path):
    for name in ("same.json", "mine.txt"):
        (tmp_path / name).write_text("[]")
    found = load({"path": "marks.json", "aliases": "same.json"}).descriptors["marks"]
    assert (found.path, found.aliases) == (str(tmp_path / "marks.json"), str(tmp_path / "same.json"))
    names = load({"provider": "names", "templates": "mine.txt"}).descriptors["marks"]
    assert names.templates == str(tmp_path / "mine.txt")
    asked = {"provider": "openai", "model": "small"}
    assert load(asked, describe={"cache": "../answers"}).describe.cache == str(tmp_path.parent / "answers")
    assert load(asked, describe={"cache": "s3://bucket/answers/"}).describe.cache == "s3://bucket/answers"


def test_a_prompt_is_one_that_ships_or_a_file_beside_the_job_and_decides_the_form(load, tmp_path):
    asked = {"provider": "openai", "model": "small"}
    assert load(asked | {"prompt": "cupl"}).descriptors["marks"].form == "sentences"
    (tmp_path / "mine.yaml").write_text((Path(prompts.__file__).parent / "shipped/clip_d.yaml").read_text())
    own = load(asked | {"prompt": "mine.yaml"}).descriptors["marks"]
    assert (own.prompt, own.form) == (str(tmp_path / "mine.yaml"), "attributes")


def test_a_descriptor_file_may_lie_in_a_bucket_and_what_is_read_from_disks_alone_is_told(load):
    assert load({"path": "s3://bucket/marks.csv"}).descriptors["marks"].path == "s3://bucket/marks.csv"
    for wrong, words in (
        ({"path": "https://host/marks.csv"}, "descriptors.marks.path: 'https://host/marks.csv' is no uri"),
        (
            {"path": "s3://bucket/marks.lance"},
            "marks.path: 's3://bucket/marks.lance' is an address, and is read from disks",
        ),
        ({"path": "s3://bucket/birds", "table": "marks"}, "marks.path: 's3://bucket/birds' is an address"),
        (
            {"path": "m.csv", "aliases": "gs://bucket/names.json"},
            "marks.aliases: 'gs://bucket/names.json' is an address",
        ),
    ):
        with pytest.raises(JobError) as refused:
            load(wrong)
        assert words in str(refused.value)


def test_what_asking_may_cost_is_a_group_of_the_job(load):
    told = load({"provider": "names"}, describe={"max_tokens_total": 5000, "price": {"prompt": 0.15, "completion": 1}})
    assert told.describe.price == TokenPrice(prompt=0.15, completion=1)
    assert (told.describe.concurrency, told.describe.ask_above_tokens) == (16, 1_000_000)


@pytest.mark.parametrize(
    ("descriptors", "words"),
    [
        ({}, ["descriptors.marks: needs a `provider`: file", "names", "openai"]),
        ({"provider": "opnai"}, ["descriptors.marks.provider: 'opnai'", "Did you mean 'openai'?", "'file', 'names'"]),
        ({"provider": "file"}, ["descriptors.marks.path: is missing"]),
        ({"provider": "openai"}, ["descriptors.marks.model: is missing"]),
        ({"provider": "names", "form": "attributes"}, ["marks.form: unknown key", "Allowed here: provider, templates"]),
        ({"provider": "names", "templates": "imagnet"}, ["marks.templates", "did you mean 'imagenet'?"]),
        ({"path": "m.json", "alias": "a.json"}, ["marks.alias: unknown key. Did you mean 'aliases'?"]),
        ({"path": "m.json", "aliases": "a.json"}, ["descriptors.marks.aliases: no file", "a.json"]),
        ({"provider": "openai", "model": "m", "prompt": "feild_marks"}, ["marks.prompt: ", "'field_marks'"]),
        ({"provider": "openai", "model": "m", "prompt": "a.yaml"}, ["descriptors.marks.prompt: no file", "a.yaml"]),
        ({"provider": "openai", "model": "m", "per_class": 0}, ["marks.per_class: 0 is not allowed", "1"]),
        ({"provider": "openai", "model": "m", "base_url": "localhost:8000"}, ["marks.base_url", "http://HOST:PORT/v1"]),
        ({"provider": "openai", "model": "m", "base_url": "http://h:x/v1"}, ["base_url: is no address of an endpoint"]),
    ],
)
def test_a_wrong_set_is_told_with_its_key_and_what_is_allowed(load, descriptors, words):
    with pytest.raises(JobError) as refused:
        load(descriptors)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("key_variable", SECRET, "marks.key_variable: should be the name of an environment variable"),
        ("api_key", SECRET, "a job file holds no keys: take 'api_key' out"),
        ("base_url", f"https://user:{SECRET}@host/v1", "marks.base_url: an address carries no credentials"),
        ("base_url", f"https://host/v1?key={SECRET}", "marks.base_url: an address carries no query"),
        ("base_url", f"https://host/v1#{SECRET}", "marks.base_url: an address carries no query"),
        ("base_url", f"{SECRET}@host/v1", "marks.base_url: is no address"),
    ],
)
def test_a_key_in_a_job_file_is_refused_and_never_repeated(load, key, value, words):
    with pytest.raises(JobError) as refused:
        load({"provider": "openai", "model": "m", key: value})
    assert words in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("describe", "words"),
    [
        ({"concurency": 3}, "describe.concurency: unknown key. Did you mean 'concurrency'?"),
        ({"price": {"prompt": 1.0}}, "describe.price.completion: is missing"),
        ({"cache": "http://host/answers"}, "describe.cache: 'http://host/answers' is no uri of an object store"),
    ],
)
def test_a_wrong_limit_is_told_before_anything_is_asked(load, describe, words):
    with pytest.raises(JobError) as refused:
        load({"provider": "names"}, describe=describe)
    assert words in str(refused.value)
