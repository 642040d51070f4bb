"""Which birds live in this world: sets of species for choosing settings and for reporting, and the rest.

Every set has eight genera of four siblings. No combination of marks of any set is ever drawn for training,
so a model must read the marks to tell the species apart; the names say nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from demo.marks import Mark, Species, draw_marks, draw_siblings

VALIDATION = "validation"
REPORTING = ("test_0", "test_1", "test_2")
SETS = (VALIDATION, *REPORTING)

GENERA = 8
SIBLINGS = 4

# One noun a genus and one word a species: invented nouns, and words of places and times of day.
# fmt: off
_NOUNS = (
    "tarrow", "wendrel", "mirrin", "dovekin", "sarlet", "pellick", "orvane", "quillan", "lorrin",
    "havick", "brammel", "jessop", "tillow", "corvane", "mundle", "ferrick", "ostrel", "pimlin",
    "garrow", "nesslet", "ruddick", "yarrel", "vesperil", "kittel", "dunnel", "sorrick", "elvane",
    "hoplin", "marrin", "tressel", "wickett", "zephyrin",
)
# fmt: on
# fmt: off
_FIRST = (
    "Alder", "Harbour", "Monsoon", "Tundra", "Juniper", "Basalt", "Meridian", "Lantern", "Orchard",
    "Solstice", "Canyon", "Prairie", "Estuary", "Morning", "Whistling", "Thistle", "Northern", "Quartz",
    "Willow", "Evening", "Mercury", "Highland", "Delta", "Saltmarsh", "Bishop", "Wandering", "Cedar",
    "Lowland", "Parson", "Drifting", "Island", "Midsummer",
)
# fmt: on


@cache
def species_of(set_name: str) -> tuple[Species, ...]:
    """The 32 species of a set (a name of `SETS`), siblings beside each other; the same in every process."""
    if set_name not in SETS:
        raise ValueError(f"there is no set of species called {set_name!r}; the sets are {', '.join(SETS)}")
    rng = random.Random(f"species {set_name}")
    nouns = _NOUNS[SETS.index(set_name) * GENERA :][:GENERA]
    species: list[Species] = []
    for noun in nouns:
        firsts = rng.sample(_FIRST, SIBLINGS)
        siblings = draw_siblings(rng, SIBLINGS)
        species += [Species(f"{first} {noun}", noun, marks) for first, marks in zip(firsts, siblings, strict=True)]
    return tuple(species)


@cache
def reserved_marks() -> frozenset[tuple[Mark, ...]]:
    """Every combination of marks that belongs to a set, and hence not to training."""
    return frozenset(species.marks for set_name in SETS for species in species_of(set_name))


def training_species(seed: int = 0) -> Iterator[Species]:
    """An endless row of nameless birds to train on, none with the marks of a species of any set."""
    rng = random.Random(f"training {seed}")
    while True:
        marks = draw_marks(rng)
        if marks not in reserved_marks():
            yield Species("", "", marks)
