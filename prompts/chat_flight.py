"""Questions under way: an asyncio loop in a thread of its own, which asks each until it is answered or given up."""

from __future__ import annotations

import asyncio
import difflib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from prompts.chat_client import open_client, secrets_of
from prompts.chat_errors import Refused, Scrub, Unsupported
from prompts.chat_replies import Again, read_completion, read_failure
from prompts.chat_retry import Gate, backoff

if TYPE_CHECKING:
    from prompts.chat import Endpoint, Question

Outcome = dict[str, Any] | Again | Refused | Unsupported
"""A completion; why it was asked in vain to the last attempt; or why there is no use in asking on."""

_REPORTS = 10
"""Failures that are told of: what goes on and on is known by then."""
_LONG_PAUSE = 5.0
"""Seconds of a pause that is told in any case, since nothing seems to happen."""
_SECONDS_FOR_MODELS = 5.0


class Flight:
    """Asks questions at once, as many as are given to it, from any thread.

    A context: at its end all that is under way is cancelled and the connections are closed. Once a question is refused
    nothing more is asked or asked again: what is under way lands, and the rest counts as asked in vain.
    """

    def __init__(self, endpoint: Endpoint, *, at_once: int, attempts: int, tell: Callable[[str], None]):
        self.retries = 0
        self._reports = 0
        self._endpoint, self._attempts, self._tell = endpoint, attempts, tell
        self._scrub = Scrub(secrets_of(endpoint))
        self._client = open_client(endpoint, at_once)
        self._gate = Gate()
        self._models: list[str] | None = None
        self._asking_models = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._landed = asyncio.Event()
        self._thread = threading.Thread(target=self._fly, daemon=True, name="chat")

    def __enter__(self) -> Flight:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._landed.set)
        self._thread.join()

    def send(self, question: Question) -> Future[Outcome]:
        """Ask it; the result never carries a key, nor the client's own errors, which do."""
        return asyncio.run_coroutine_threadsafe(self._answer(question), self._loop)

    def _fly(self) -> None:
        try:
            self._loop.run_until_complete(self._until_landed())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _until_landed(self) -> None:
        async with self._client:
            await self._landed.wait()
            flying = asyncio.all_tasks() - {asyncio.current_task()}
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def _answer(self, question: Question) -> Outcome:
        failures, outcome = 0, Again("it was not asked")
        while (sent := await self._gate.wait()) is not None:
            outcome = await self._once(question)
            if isinstance(outcome, dict):
                self._gate.answered()
            if not isinstance(outcome, Again) or self._gate.closed:
                return outcome
            if outcome.everyone:
                # A pause for all is no failure of this question: it is given up when no pause helps anybody.
                wait = self._gate.shut(outcome.wish, sent)
                if self._gate.shut_in_a_row >= self._attempts:
                    return outcome
                self._report(f"asks for a pause of {wait:.1f} s: {outcome.why}", wait >= _LONG_PAUSE)
            else:
                failures += 1
                if failures >= self._attempts:
                    return outcome
                self._report(f"is asked again about {question.about!r}: {outcome.why}")
                await self._gate.pause(backoff(failures))
            self.retries += 1
        return outcome

    def _report(self, words: str, always: bool = False) -> None:
        self._reports += 1
        if always or self._reports <= _REPORTS:
            self._tell(f"{self._endpoint.address} {words}")

    async def _once(self, question: Question) -> Outcome:
        """One request. What the client raises is read here and let go, since it holds the request with its headers."""
        import openai
        from aiohttp import ClientError
        from httpx2 import HTTPError, Response

        asked, start = datetime.now(timezone.utc), time.monotonic()
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                response = await self._client.post("/chat/completions", cast_to=Response, body=dict(question.body))
        except openai.APIStatusError as error:
            headers = error.response.headers
            outcome = read_failure(error.status_code, headers, error.body, question, self._endpoint, self._scrub)
            if isinstance(outcome, Refused | Unsupported):
                self._gate.close()
            if error.status_code == 404 and isinstance(outcome, Refused):
                outcome = Refused(f"{outcome}{await self._nearest_models(str(question.body.get('model')))}")
        except TimeoutError:
            return Again(f"it did not answer within {self._endpoint.timeout:g} s")
        except (openai.APIConnectionError, HTTPError, ClientError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # what happened is the innermost, in the words of the transport
                cause = cause.__cause__
            return Again(f"the connection failed ({type(cause).__name__}: {self._scrub(cause)})")
        else:
            content_type = response.headers.get("content-type", "")
            outcome = read_completion(response.content, content_type, question.body, self._scrub)
        if isinstance(outcome, dict):
            seconds = round(time.monotonic() - start, 3)
            return {**outcome, "asked": asked.isoformat(timespec="seconds"), "seconds": seconds}
        return outcome

    async def _nearest_models(self, model: str) -> str:
        """A sentence about models that the server has, if it tells of them at once; else nothing."""
        async with self._asking_models:  # once for all that land with the same news
            if self._models is None:
                self._models = await self._list_models()
        nearest = difflib.get_close_matches(model, self._models, n=3, cutoff=0)
        return f" Of its {len(self._models)} models the nearest in name: {', '.join(nearest)}." if nearest else ""

    async def _list_models(self) -> list[str]:
        import openai
        from aiohttp import ClientError
        from httpx2 import HTTPError, Response

        try:
            async with asyncio.timeout(_SECONDS_FOR_MODELS):
                response = await self._client.get("/models", cast_to=Response)
            return [self._scrub(one["id"]) for one in json.loads(response.content)["data"]]
        except (
            openai.OpenAIError,
            HTTPError,
            ClientError,
            TimeoutError,
            ValueError,
            LookupError,
            TypeError,
            RecursionError,
        ):
            return []
