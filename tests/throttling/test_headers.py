from __future__ import annotations

from throttling.headers import AppliedLimit, rate_limit_headers, retry_after
from throttling.limiter import Decision, RateLimit


def test_an_item_for_each_policy_with_whole_seconds_rounded_up() -> None:
    address = AppliedLimit("ip", "192.0.2.1", RateLimit(3, 10), Decision(True, 2, 0.0, 6.001))
    key = AppliedLimit("key", "0123456789ab", RateLimit(100, 0.5), Decision(False, 0, 0.25, 0.25))
    assert rate_limit_headers([address, key]) == {
        "RateLimit-Policy": '"ip";q=3;w=10, "key";q=100;w=1',
        "RateLimit": '"ip";r=2;t=7, "key";r=0;t=1',
    }


def test_without_a_limit_there_is_no_header() -> None:
    assert rate_limit_headers([]) == {}


def test_retry_after_is_enough_to_wait() -> None:
    assert retry_after(Decision(False, 0, 6.001, 7.0)) == "7"
    assert retry_after(Decision(False, 0, 6.0, 7.0)) == "6"
