from __future__ import annotations

from rest_framework.test import APIClient

from apikeys.models import ApiKey


def test_a_key_gets_a_hello_and_the_fourth_request_is_refused(
    api: APIClient, issued: tuple[ApiKey, str]
) -> None:
    answers = [api.get("/", headers={"X-API-Key": issued[1]}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].json() == {"message": "Hello, World!"}
    assert answers[3].json()["detail"].startswith("Rate limit exceeded")
    assert answers[3].json()["violated-policies"] == ["ip"]
