"""The limits of addresses on this site. They fetch the keys' generation number on the way."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from apikeys import generation
from throttling import throttles
from throttling.limiter import RateLimit


class AddressThrottle(throttles.AddressThrottle):
    read_along = {generation.META_NAME: generation.STORE_KEY}


class EnquiryThrottle(AddressThrottle):
    """For asking what is left, which is to use up nothing of what it tells of."""

    scope = "rate-limit"

    def rate_by_rule(self, rate: RateLimit) -> RateLimit:
        return enquiries_at(rate)


@lru_cache(maxsize=4096)
def enquiries_at(rate: RateLimit) -> RateLimit:
    return rate.times(settings.ENQUIRIES_PER_REQUEST)
