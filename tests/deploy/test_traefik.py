"""Traefik does not run here: its files are held against Traefik's own reference, and to what they
say of each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.proxies import FILES

REFERENCE = yaml.safe_load(Path(__file__).with_name("traefik_reference.yaml").read_text())
STATIC = yaml.safe_load((FILES / "traefik.yaml").read_text())
DYNAMIC = yaml.safe_load((FILES / "traefik-dynamic.yaml").read_text())
HTTP = DYNAMIC["http"]
ROUTER = HTTP["routers"]["api"]


def faults(ours: Any, reference: Any, place: str = "") -> list[str]:
    """Where a key is unknown to the reference, or a value of another type."""
    if type(ours) is not type(reference):
        return [f"{place}: {ours!r}"]
    if isinstance(ours, list):
        return [fault for each in ours for fault in faults(each, reference[0], place)]
    if not isinstance(ours, dict):
        return []
    if all(re.fullmatch(r"[A-Za-z]+\d+", key) for key in reference):
        # Any name, and of several forms the one in which the first fault lies deepest.
        return [
            fault
            for name, each in ours.items()
            for fault in min(faults(each, value, f"{place}.{name}") for value in reference.values())
        ]
    return [
        fault
        for key, each in ours.items()
        for fault in (
            faults(each, reference[key], f"{place}.{key}")
            if key in reference
            else [f"{place}.{key}: unknown"]
        )
    ]


@pytest.mark.parametrize(("ours", "kind"), [(STATIC, "static"), (DYNAMIC, "dynamic")])
def test_the_files_have_no_key_that_traefik_does_not_know(ours: Any, kind: str) -> None:
    assert faults(ours, REFERENCE[kind]) == []


def test_a_wrong_key_and_a_wrong_type_would_be_found() -> None:
    wrong = {"http": {"middlewares": {"verify": {"forwardAuth": {"adress": "", "forwardBody": 1}}}}}
    assert faults(wrong, REFERENCE["dynamic"]) == [
        ".http.middlewares.verify.forwardAuth.adress: unknown",
        ".http.middlewares.verify.forwardAuth.forwardBody: 1",
    ]


def test_all_that_is_named_is_there() -> None:
    assert set(ROUTER["entryPoints"]) == set(STATIC["entryPoints"])
    assert set(ROUTER["middlewares"]) == set(HTTP["middlewares"])
    assert ROUTER["service"] in HTTP["services"]


def test_the_site_is_asked_after_the_claims_and_before_the_credentials_are_taken_away() -> None:
    before, verify, after = (HTTP["middlewares"][name] for name in ROUTER["middlewares"])
    claims = verify["forwardAuth"]["authResponseHeaders"]
    credentials = verify["forwardAuth"]["authRequestHeaders"]
    assert before == {"headers": {"customRequestHeaders": dict.fromkeys(claims, "")}}
    assert after == {"headers": {"customRequestHeaders": dict.fromkeys(credentials, "")}}
    assert claims == ["X-Api-Key-Id", "X-Api-Key-Name"]
    assert credentials == ["Authorization", "X-API-Key"]
    assert verify["forwardAuth"]["address"].endswith("/verify")


def test_nothing_that_a_client_writes_is_trusted() -> None:
    assert HTTP["middlewares"]["verify"]["forwardAuth"]["trustForwardHeader"] is False
    for entry_point in STATIC["entryPoints"].values():
        assert entry_point["http"]["underscoreHeadersStrategy"] == "delete"
        assert "forwardedHeaders" not in entry_point
