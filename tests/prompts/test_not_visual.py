"""Statements that no photograph shows, and marks that only sound like them."""

from __future__ import annotations

import pytest

from prompts.chatter import is_chatter, is_refusal
from prompts.names_within import words_of
from prompts.not_visual import why_not_visual


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sounds like a rusty gate", "sound"),
        ("a loud, harsh call", "sound"),
        ("distinctive song", "sound"),
        ("loud, bubbling song", "sound"),
        ("bubbling song", "sound"),
        ("a loud, clear, whistled call", "sound"),
        ("The blue jay makes a variety of noises.", "sound"),
        ("Its call is a loud whistle.", "sound"),
        ("wide range of vocalizations", "sound"),
        ("smells like honey", "smell or taste"),
        ("a sweet, fruity aroma", "smell or taste"),
        ("tangy and slightly salty flavor", "smell or taste"),
        ("chocolate flavor", "smell or taste"),
        ("tastes of garlic", "smell or taste"),
        ("found in Africa", "place"),
        ("Found in North America.", "place"),
        ("commonly found in the forests of Madagascar", "place"),
        ("often found near water", "place"),
        ("often seen near rivers", "place"),
        ("seen in gardens in Europe", "place"),
        ("The blue jay can be seen in North America.", "place"),
        ("The blue jay is native to eastern North America.", "place"),
        ("endemic to Hawaii", "place"),
        ("lives in colonies", "place"),
        ("natural habitat is dense woodland", "place"),
        ("feeds on insects and seeds", "diet"),
        ("It eats acorns.", "diet"),
        ("a mostly vegetarian diet", "diet"),
        ("herbivorous", "diet"),
        ("friendly and outgoing temperament", "habits"),
        ("a loyal companion", "habits"),
        ("migratory bird", "habits"),
        ("nests in hollow trees", "habits"),
        ("has a habit of cocking its tail", "habits"),
        ("is known for its intelligence", "fame"),
        ("The beagle is one of the most popular breeds.", "fame"),
        ("prized for its loyalty", "fame"),
        ("was first built in 1969", "history"),
        ("The breed was originally developed in Germany.", "history"),
        ("dates back to the Middle Ages", "history"),
        ("costs about $30,000", "price or figures"),
        ("weighs around 20 grams", "price or figures"),
        ("top speed of 200 mph", "price or figures"),
        ("carries up to 150 passengers", "price or figures"),
        ("high in protein", "price or figures"),
        ("none visible", "what is absent"),
        ("None are visible.", "what is absent"),
        ("not clearly visible", "what is absent"),
        ("nothing distinctive", "what is absent"),
        ("no visible marks", "what is absent"),
        ("no obvious wing bars", "what is absent"),
        ("no crest", "what is absent"),
        ("lacks a crest", "what is absent"),
        ("without any visible markings", "what is absent"),
        ("The blue jay lacks a crest.", "what is absent"),
        ("It has no white wing bars.", "what is absent"),
    ],
)
def test_a_statement_that_no_photograph_shows_is_told_by_what_it_speaks_of(text, what):
    assert why_not_visual(text, words_of(text), ("blue", "jay")) == what


@pytest.mark.parametrize(
    "text",
    [
        "a white patch that sounds odd",
        "feathers found on the crown",
        "spots found in rows",
        "song-bird shape",
        "a price tag",
        "price written on a chalkboard",
        "warm brown tones",
        "a patch below the eye where the bill meets",
        "native-patterned fabric",
        "round sound hole",
        "distinctive sound hole",
        "call button panel",
        "has a call button",
        "rough, deeply furrowed bark",
        "grows in dense clusters",
        "ranges from brown to black",
        "breeding plumage",
        "standing in shallow water",
        "perched on a branch in a forest",
        "swimming in a lake",
        "sweet potato fries",
        "topped with fresh herbs",
        "creamy texture",
        "known for its bright blue crest",
        "The jay, found in North America, has a blue crest.",
        "used to catch fish with a long beak",
        "sharp teeth for eating meat",
        "expensive-looking leather",
        "seats in long rows",
        "flags of many countries",
        "field with rows of crops",
        "built from red brick",
        "built-in shelves",
        "an intelligent expression",
        "speed lines along the side",
        "weighing scale on a counter",
        "tongue hanging out",
        "open beak as if singing",
        "people eating at tables",
        "bark peeling in strips",
        "a nest of twigs",
        "large, herbivorous dinosaur",
        "often seen in pairs",
        "often seen with raised wings near water",
        "seen swimming in a lake",
        "seen from above the water",
        "a pattern often seen in gardens",
        "has a habit of raising its red crest",
        "upright, bushy habit",
        "has a habit of growing in clumps",
        "loud, colorful noise pattern",
        "a small breed of dog, weighing 3 kg",
        "a spoon for eating the soup",
        "long hind legs for jumping",
    ],
)
def test_marks_that_only_sound_like_such_statements_stay(text):
    assert why_not_visual(text, words_of(text), ("blue", "jay")) is None


@pytest.mark.parametrize(
    "text",
    [
        "no visible neck between head and body",  # how head and body meet, which is to be seen
        "smooth head without a crest",
        "lacks a crest, but has a red cap",
        "lacks the crest of its relatives",
        "no crest - a smooth round head",
        "no parking sign",
        "no-smoking symbol",
        "No. 7 on the side",
        "none of the feathers are alike",
        "not round but oval",
        "not visible from the side unless the wings are raised",
        "sleeveless cut",
    ],
)
def test_an_absence_that_tells_how_a_thing_looks_stays(text):
    assert why_not_visual(text, words_of(text), ("blue", "jay")) is None


@pytest.mark.parametrize(
    "text",
    [
        "As an AI, I cannot see images",
        "I'm sorry, but I can't help with that.",
        "I’m sorry",
        "I cannot provide that",
        "I am not able to describe it",
        "Sorry, no.",
        "Unfortunately, there is nothing to tell",
        "It is not possible to say",
        "No information is available",
    ],
)
def test_refusals_are_known_by_how_they_begin(text):
    assert is_refusal(text)
    assert not is_chatter(text)


@pytest.mark.parametrize(
    "text",
    [
        "Here are nine marks",
        "Here's what to look for",
        "Sure! Nine marks",
        "Certainly, here you go",
        "Key features:",
        "Let me know if you need more",
        "I hope this helps!",
        "Note that these vary",
        "These visual features are typical",
        "The following marks",
    ],
)
def test_chatter_is_known_by_how_it_begins_and_headings_by_their_colon(text):
    assert is_chatter(text)
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I-beam frame",
        "sure-footed stance",
        "great horned head",
        "great, broad wings",
        "note pad on a desk",
        "these are tall, thin leaves",
        "no information board",
        "sorry-looking ears",
        "yes written on a button",
        "AI-generated look",
        "the following eyes of a portrait",
        "okra pods",
    ],
)
def test_descriptors_that_begin_alike_are_neither_refusals_nor_chatter(text):
    assert not is_refusal(text)
    assert not is_chatter(text)
