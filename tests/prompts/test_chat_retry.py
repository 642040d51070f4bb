"""When a server is asked again, and what is taken out of what it says."""

from __future__ import annotations

import pytest

from prompts.chat_errors import Scrub
from prompts.chat_retry import FIRST_WAIT, LONGEST_WAIT, backoff, wished_wait


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "2", "retry-after-ms": "150"}, 0.15),
        ({"retry-after": "2", "retry-after-ms": "soon"}, 2),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0),
    ],
)
def test_a_server_says_how_long_to_wait_in_any_of_the_usual_ways(headers, seconds):
    assert wished_wait(headers) == seconds


def test_waits_grow_to_a_limit_and_differ():
    for failures, most in ((1, FIRST_WAIT), (2, 2 * FIRST_WAIT), (3, 4 * FIRST_WAIT), (1000, LONGEST_WAIT)):
        waits = {backoff(failures) for _ in range(50)}
        assert all(most / 2 <= wait <= most for wait in waits)
        assert len(waits) > 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('wrong key abc/def+"ghi here', "wrong key (key) here"),
        ("in a URL: abc%2Fdef%2B%22ghi.", "in a URL: (key)."),
        ('in JSON: "abc/def+\\"ghi"', 'in JSON: "(key)"'),
        ("in a page: <b>abc/def+&quot;ghi</b>", "in a page: <b>(key)</b>"),
        ("Authorization: Bearer other-key", "Authorization: (key)"),
        ("masked: sk-ab***yz, xx*****yy", "masked: (key) (key)"),
        ("two\n  lines", "two lines"),
    ],
)
def test_keys_are_taken_out_of_what_servers_say(said, told):
    assert Scrub(['abc/def+"ghi'])(said) == told


def test_what_stands_for_no_key_is_no_secret():
    assert Scrub(["EMPTY", ""])("EMPTY is no answer") == "EMPTY is no answer"
    assert len(Scrub([])("long " * 1000)) < 500
