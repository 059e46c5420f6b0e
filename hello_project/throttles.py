"""The limits of addresses on this site. They fetch the keys' generation number on the way."""

from apikeys import generation
from throttling import throttles


class AddressThrottle(throttles.AddressThrottle):
    read_along = {generation.META_NAME: generation.STORE_KEY}


class EnquiryThrottle(AddressThrottle):
    """For asking what is left, which is to use up nothing of what it tells of."""

    scope = "rate-limit"
