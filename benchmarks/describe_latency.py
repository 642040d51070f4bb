"""How long it takes to ask about many classes, against the time in which the server itself could have answered."""

from __future__ import annotations

import math
import tempfile

from benchmarks.chat_server import ChatServer
from benchmarks.encode import tell
from prompts.prompt_file import read_prompt
from stages.descriptor_settings import DescribeSettings, OpenAIDescriptors
from stages.interview import Asking
from stages.interviews import Interviews
from storage.completions import CompletionStore


def latency_ratio(classes: int = 1000, descriptors: int = 9, latency: float = 0.3, at_once: int = 64) -> float:
    """Seconds from the first request to the last stored answer, over ceil(classes / at_once) * latency.

    One question a class, by the prompt `field_marks`, read and stored as `describe` does it. The server is in the same
    process, so what it costs counts as well. RuntimeError if an answer is missing or short.
    """
    with ChatServer(latency=latency) as server, tempfile.TemporaryDirectory() as folder:
        settings = OpenAIDescriptors(model="test-model", base_url=server.base_url, per_class=descriptors)
        asking, store = Asking(settings, read_prompt(settings.prompt), "schema"), CompletionStore(folder)
        interviews = Interviews(asking, [f"class {number:04d}x" for number in range(classes)], {}, store)
        how = DescribeSettings(concurrency=at_once)
        totals = interviews.ask(how, "latency", ended=lambda: None, tell=tell)
        again = Interviews(asking, list(interviews.by_class), {}, store)
        again.recall()
        short = [name for name, one in again.by_class.items() if not one.is_enough]
        if again.stored != classes or short:
            raise RuntimeError(f"{again.stored} of {classes} answers are stored, {len(short)} of them are short")
    return totals.seconds / (math.ceil(classes / at_once) * latency)
