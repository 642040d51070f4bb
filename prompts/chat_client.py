"""The official client of an endpoint, with the key from the environment and no retries of its own."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from prompts.chat_errors import Refused

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from prompts.chat import Endpoint

_NO_KEY = "no-key-needed"
"""What servers are sent that need no key: the client insists on one."""
_KEY = re.compile(r"[!-~]+")
_CONNECT_SECONDS = 10.0
_OPENAI_HOSTS = ("api.openai.com", "openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com")


def open_client(endpoint: Endpoint, at_once: int) -> AsyncOpenAI:
    """A client that holds `at_once` connections. Refused where a key is needed and the environment has none, or no key.

    Where the address is not OpenAI's own no key may be needed, as for vLLM, Ollama or llama.cpp on one's own machine.
    How long an answer may take is not the client's to say, who counts each pause in it anew.
    """
    import openai
    from httpx2 import Limits

    key = _key(endpoint)
    if key is None and (endpoint.base_url is None or endpoint.api_version is not None):
        raise Refused(_lacking_key(endpoint))
    if key is not None and not _KEY.fullmatch(key):  # the client would show it in its complaint
        raise Refused(f"What the environment variable {endpoint.key_variable} holds is no key: it has spaces or more")
    timeout = openai.Timeout(None, connect=min(_CONNECT_SECONDS, endpoint.timeout))
    # By aiohttp: the client's own pool looks at all connections for each question, which doubles its work for 64.
    client = openai.DefaultAioHttpClient(verify=_tls(), limits=Limits(max_connections=at_once), timeout=timeout)
    settings = {
        "api_key": key or _NO_KEY,
        "default_query": dict(_query(endpoint)),
        "max_retries": 0,
        "timeout": timeout,
        "http_client": client,
    }
    # Whose answers are stored is said by the job alone, not by OPENAI_BASE_URL as well.
    if endpoint.api_version is not None:
        return openai.AsyncAzureOpenAI(azure_endpoint=endpoint.address, api_version=endpoint.api_version, **settings)
    client = openai.AsyncOpenAI(base_url=endpoint.address, **settings)
    if not _is_openai(endpoint):
        # It took these from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, which are meant for OpenAI, and
        # may hold another key. The headers it takes in any case, and has no public way to let go of them.
        client.organization = client.project = None
        client._custom_headers = {}
    return client


def secrets_of(endpoint: Endpoint) -> Iterator[str]:
    """What must not be told: the key, what an address has in its query, and what the environment adds to requests."""
    if (key := _key(endpoint)) is not None:
        yield key
    for name, value in _query(endpoint):
        if name != "api-version":  # a date, as the names of models have them too
            yield value
    for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n"):
        name, _, value = (part.strip() for part in line.partition(":"))
        yield value
        if name.lower().endswith("authorization"):
            yield value.rpartition(" ")[2]  # without its Bearer


@cache
def _tls() -> ssl.SSLContext:
    """Which servers are trusted: read once, since the certificates of a system are many."""
    from httpx2 import create_ssl_context

    return create_ssl_context()


def _is_openai(endpoint: Endpoint) -> bool:
    """Whether this is OpenAI, or OpenAI's models at Azure by an address that needs no `api_version`."""
    host = urlsplit(endpoint.address).hostname or ""
    return any(host == one or host.endswith(f".{one}") for one in _OPENAI_HOSTS)


def _lacking_key(endpoint: Endpoint) -> str:
    otherwise = "or give the base_url of a server that needs none"
    if not endpoint.key_variable:
        return (
            f"{endpoint.address} needs a key: put one into an environment variable, and name that in key_variable, "
            f"{otherwise}"
        )
    return (
        f"The environment variable {endpoint.key_variable} is not set, and {endpoint.address} needs a key: "
        f"export {endpoint.key_variable}=..., name another variable in key_variable, {otherwise}"
    )


def _query(endpoint: Endpoint) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(endpoint.base_url or "").query)


def _key(endpoint: Endpoint) -> str | None:
    return os.environ.get(endpoint.key_variable, "").strip() or None
