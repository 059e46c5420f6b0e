"""The address limit of this site, which fetches the keys' generation number on the way."""

from apikeys import generation
from throttling import throttles


class AddressThrottle(throttles.AddressThrottle):
    read_along = {generation.META_NAME: generation.STORE_KEY}
