from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from hello_project.negotiation import JSONNegotiation

MEDIA_TYPES = ["*/*", "application/*", "application/json", "text/html", "text/*", "image/webp", ""]
PARAMETERS = ["", ";q=0.8", "; indent=4", ";version=2", " ", ";"]
ITEMS = st.builds(str.__add__, st.sampled_from(MEDIA_TYPES), st.sampled_from(PARAMETERS))


def accepts(negotiation: BaseContentNegotiation, accept: str) -> bool:
    request = Request(APIRequestFactory().get("/", headers={"accept": accept}))
    try:
        negotiation.select_renderer(request, [JSONRenderer()])
    except NotAcceptable:
        return False
    return True


@given(st.lists(ITEMS, max_size=4).map(",".join))
@example("APPLICATION/JSON")
@example("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
def test_json_is_given_to_whom_drf_would_give_it(accept: str) -> None:
    assert accepts(JSONNegotiation(), accept) is accepts(DefaultContentNegotiation(), accept)


def test_what_an_accept_field_asks_of_the_json_is_left_to_drf() -> None:
    request = Request(
        APIRequestFactory().get("/", headers={"accept": "application/json; indent=4"})
    )
    _, media_type = JSONNegotiation().select_renderer(request, [JSONRenderer()])
    assert media_type == "application/json; indent=4"
