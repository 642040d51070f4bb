"""The texts that an audit judges: what a method says for each descriptor of a set, one prompt a descriptor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prompts.phrasing import Form
from stages.methods.bases import DescriptorMethod
from stages.methods.method import Method


@dataclass(frozen=True)
class AuditTexts:
    """Descriptors by the class's spoken name, in the job's order: those that the method reads, with their prompts."""

    descriptors: dict[str, list[str]]
    prompts: dict[str, list[str]]

    def elsewhere(self) -> dict[str, list[str]]:
        """The classes that hold each text which several of them hold."""
        found: dict[str, list[str]] = {}
        for name, texts in self.descriptors.items():
            for text in dict.fromkeys(texts):
                found.setdefault(text, []).append(name)
        return {text: names for text, names in found.items() if len(names) > 1}


def audit_texts(
    method: Method,
    said: Mapping[str, Sequence[str]],
    names: Mapping[str, str],
    descriptors: Mapping[str, Sequence[str]],
    form: Form,
) -> AuditTexts | None:
    """The descriptors (by spoken name) that a method reads; None where it has not one prompt for each of them.

    `said` are its encoded texts by class id, `names` the classes' names by id. Classes of one name are one class here,
    since no text tells them apart. What a method says besides, of the class's name alone, is left out, and so is what
    the set has beyond the method's `max_descriptors`.
    """
    if not isinstance(method, DescriptorMethod):
        return None
    read: dict[str, list[str]] = {}
    prompts: dict[str, list[str]] = {}
    for identity, texts in said.items():
        name = names[identity]
        read[name] = list(descriptors[name][: method.max_descriptors])
        prompts[name] = DescriptorMethod.prompts(method, name, read[name], form)
        if len(prompts[name]) != len(read[name]) or not set(prompts[name]) <= set(texts):
            return None
    return AuditTexts(read, prompts)
