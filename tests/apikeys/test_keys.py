from __future__ import annotations

import hashlib
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apikeys import keys

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase

without_deadline = settings(deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("environment", ["live", "test"])
def test_a_key_is_read_back_from_its_plaintext(environment: str) -> None:
    key = keys.generate(environment, keys.generate_id())
    assert keys.parse(str(key)) == key
    assert key.environment == environment


def test_a_key_has_the_published_shape() -> None:
    plaintext = str(keys.generate("live", "AZaz09000000"))
    assert re.fullmatch(r"hk_live_AZaz09000000_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", plaintext)
    published = re.fullmatch(keys.PATTERN, plaintext)
    assert published is not None
    assert [len(part) for part in published.groups()] == [4, 12, 43, 6]
    assert re.search(keys.PATTERN, f'{{"key": "{plaintext}"}}')


def test_a_known_key_stays_good() -> None:
    """Keys in clients' hands outlive every change to this code."""
    # The check: CRC-32 0xE2A1B1B3 of what stands before it, in base 62, zeros in front.
    plaintext = "hk_live_AZaz09000000_" + "0" * 42 + "1" + "49JqIF"
    key = keys.parse(plaintext)
    assert key is not None
    assert key.secret == "0" * 42 + "1"
    assert key.digest == "5fb76d307dddf6183adf8484f447384a0137655bf7e3a689b005a331fe8595ad"


def test_the_digest_is_the_sha256_of_the_secret_alone() -> None:
    one = keys.generate("live", "AZaz09000000")
    other = keys.Key("test", "000000000000", one.secret)
    assert one.digest == other.digest == hashlib.sha256(one.secret.encode("ascii")).hexdigest()


def test_a_secret_is_256_bits_in_43_characters() -> None:
    assert 62**42 < 2**256 <= 62**43
    numbers = [_number(keys.generate("live", "AZaz09000000").secret) for _ in range(2000)]
    assert len(set(numbers)) == 2000
    assert max(numbers) < 2**256
    for bit in range(256):
        # A fair coin gives fewer than 800 or more than 1200 heads once in 10**18.
        assert 800 < sum(number >> bit & 1 for number in numbers) < 1200, bit


def _number(text: str) -> int:
    value = 0
    for character in text:
        value = value * 62 + BASE62.index(character)
    return value


def test_ids_are_12_characters_of_the_whole_alphabet() -> None:
    ids = [keys.generate_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {len(key_id) for key_id in ids} == {12}
    assert set("".join(ids)) == set(BASE62)
    assert all(keys.is_id(key_id) for key_id in ids)


@pytest.mark.parametrize(
    "text", ["", "a" * 11, "a" * 13, "a" * 11 + "-", "a" * 12 + "\n", "é" * 12]
)
def test_anything_else_is_no_id(text: str) -> None:
    assert not keys.is_id(text)


def test_the_repr_leaves_the_secret_out() -> None:
    key = keys.generate("live", "AZaz09000000")
    assert key.secret not in repr(key)
    assert str(key)[-6:] not in repr(key)
    assert "AZaz09000000" in repr(key)


def test_there_are_two_environments() -> None:
    with pytest.raises(ValueError, match="'prod'"):
        keys.generate("prod", "AZaz09000000")


plaintexts = st.builds(
    lambda environment, key_id, secret: str(keys.Key(environment, key_id, secret)),
    st.sampled_from(keys.ENVIRONMENTS),
    st.text(BASE62, min_size=12, max_size=12),
    st.text(BASE62, min_size=43, max_size=43),
)


@without_deadline
@given(plaintexts, st.data())
def test_one_wrong_character_anywhere_is_noticed(plaintext: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(plaintext) - 1))
    right = plaintext[position]
    wrong = data.draw(st.characters() | st.sampled_from(BASE62).filter(lambda it: it != right))
    if wrong != right:
        assert keys.parse(plaintext[:position] + wrong + plaintext[position + 1 :]) is None


def test_every_base62_slip_in_a_key_is_noticed() -> None:
    plaintext = str(keys.generate("live", keys.generate_id()))
    slips = [
        plaintext[:position] + character + plaintext[position + 1 :]
        for position in range(len(plaintext))
        for character in BASE62
        if character != plaintext[position]
    ]
    assert len(slips) > 4000
    assert [slip for slip in slips if keys.parse(slip)] == []


@without_deadline
@given(plaintexts, st.data())
def test_missing_added_and_swapped_characters_are_noticed(
    plaintext: str, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(plaintext) - 1))
    before, after = plaintext[:position], plaintext[position + 1 :]
    added = data.draw(st.sampled_from(BASE62 + " \n\0"))
    assert keys.parse(before + after) is None
    assert keys.parse(before + added + plaintext[position:]) is None
    assert keys.parse(plaintext + added) is None
    swapped = before + after[:1] + plaintext[position] + after[1:]
    assert swapped == plaintext or keys.parse(swapped) is None


@without_deadline
@given(st.text() | st.from_regex(keys.PATTERN))
def test_whatever_is_sent_parsing_never_raises(text: str) -> None:
    key = keys.parse(text)
    assert key is None or str(key) == text
