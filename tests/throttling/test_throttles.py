"""The throttle classes as a DRF user meets them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from redis import Redis
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from throttling.addresses import parse_networks
from throttling.throttles import AddressThrottle, KeyThrottle, SlidingWindowThrottle
from throttling.views import RateLimitedView


class TwoInTen(AddressThrottle):
    rate = "2/10s"


class OneInTenByUser(SlidingWindowThrottle):
    scope = "user"
    rate = "1/10s"

    def get_identifier(self, request: Request, view: Any) -> str | None:
        return request.META.get("HTTP_X_USER")


class Credential:
    def __init__(self, key_id: str, rate: str) -> None:
        self.key_id, self.rate = key_id, rate


class HeaderAuthentication(BaseAuthentication):
    """Somebody else's authentication class."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Credential] | None:
        name = request.META.get("HTTP_X_NAME")
        if name == "bad":
            raise AuthenticationFailed
        return (AnonymousUser(), Credential(name, "1/10s")) if name else None

    def authenticate_header(self, request: Request) -> str:
        return "Name"


class PlainView(APIView):
    """Any DRF view."""

    authentication_classes = [HeaderAuthentication]
    permission_classes = [AllowAny]
    throttle_classes = [TwoInTen]

    def get(self, request: Request) -> Response:
        return Response("hello")


class BaseView(RateLimitedView):
    authentication_classes = [HeaderAuthentication]
    permission_classes = [AllowAny]
    throttle_classes = [TwoInTen, OneInTenByUser, KeyThrottle]

    def get(self, request: Request) -> Response:
        return Response("hello")


def get(view: type[APIView], address: str = "203.0.113.7", **headers: str) -> Any:
    request = APIRequestFactory().get("/", REMOTE_ADDR=address, headers=headers)
    response = view.as_view()(request)
    return response.render()


def test_throttle_classes_work_on_any_drf_view() -> None:
    answers = [get(PlainView) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2]["Retry-After"] in ("10", "11")
    assert get(PlainView, "203.0.113.8").status_code == 200


def test_on_a_plain_view_authentication_comes_first_as_in_drf() -> None:
    assert [get(PlainView, **{"X-Name": "bad"}).status_code for _ in range(4)] == [401] * 4


def test_on_the_base_view_wrong_credentials_are_limited_like_right_ones() -> None:
    assert [get(BaseView, **{"X-Name": "bad"}).status_code for _ in range(3)] == [401, 401, 429]


def test_allow_request_and_wait_are_drfs_contract() -> None:
    request = APIView().initialize_request(APIRequestFactory().get("/", REMOTE_ADDR="192.0.2.1"))
    throttle = TwoInTen()
    assert isinstance(throttle, BaseThrottle)
    assert [throttle.allow_request(request, None) for _ in range(3)] == [True, True, False]
    wait = throttle.wait()
    assert wait is not None
    assert 9.0 < wait <= 10.1


def test_the_rate_comes_from_drfs_settings_by_scope() -> None:
    request = APIView().initialize_request(APIRequestFactory().get("/"))
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"ip": "7/min"}}):
        assert str(AddressThrottle().get_rate(request, None)) == "7/m"
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"ip": None}}):
        assert AddressThrottle().get_rate(request, None) is None
        assert AddressThrottle().allow_request(request, None)
    with (
        override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {}}),
        pytest.raises(ImproperlyConfigured, match=r"DEFAULT_THROTTLE_RATES\['ip'\]"),
    ):
        AddressThrottle().get_rate(request, None)


def test_every_answer_carries_the_headers_of_the_limits_that_applied() -> None:
    admitted = get(BaseView, **{"X-User": "u", "X-Name": "n"})
    assert admitted["RateLimit-Policy"] == '"ip";q=2;w=10, "user";q=1;w=10, "key";q=1;w=10'
    assert admitted["RateLimit"].startswith('"ip";r=1;t=1')
    assert get(PlainView).has_header("RateLimit") is False
    assert get(BaseView, "192.0.2.9", **{"X-Name": "bad"})["RateLimit"].startswith('"ip";r=1;')


def test_the_first_refusal_ends_the_request_and_spends_nothing_behind_it(store: Redis) -> None:
    get(BaseView, "192.0.2.1", **{"X-User": "u"})
    refused = get(BaseView, "192.0.2.1", **{"X-User": "u", "X-Name": "n"})
    assert refused.status_code == 429
    assert refused.data["violated-policies"] == ["user"]
    assert not store.exists("rl:{key:n}1/10s")
    assert get(BaseView, "192.0.2.2", **{"X-Name": "n"}).status_code == 200
    assert get(BaseView, "192.0.2.3", **{"X-Name": "n"}).data["violated-policies"] == ["key"]


def test_a_credential_without_a_rate_of_its_own_is_not_limited_by_key(store: Redis) -> None:
    request = APIView().initialize_request(APIRequestFactory().get("/"))
    request.auth = Credential("n", "")
    assert KeyThrottle().allow_request(request, None)
    request.auth = None
    assert KeyThrottle().allow_request(request, None)
    assert store.dbsize() == 0


def test_the_address_is_taken_from_trusted_proxies_only() -> None:
    forwarded = {"X-Forwarded-For": "198.51.100.1"}
    for _ in range(2):
        assert get(PlainView, **forwarded).status_code == 200
    assert get(PlainView, **forwarded | {"X-Forwarded-For": "198.51.100.2"}).status_code == 429
    with override_settings(TRUSTED_PROXIES=parse_networks("203.0.113.0/24")):
        assert get(PlainView, **forwarded).status_code == 200
        assert get(PlainView, **forwarded).status_code == 200
        assert get(PlainView, **forwarded).status_code == 429


def test_a_flood_costs_the_store_nothing_once_it_is_known(store: Redis) -> None:
    for _ in range(3):
        get(PlainView)
    store.config_resetstat()
    refused = [get(PlainView) for _ in range(50)]
    assert {answer.status_code for answer in refused} == {429}
    calls = store.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    assert calls <= 1  # One when the second ended meanwhile.
