"""What Prometheus and Grafana are given, tried with Prometheus itself."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from django.conf import settings
from django.test import override_settings
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from apikeys.models import ApiKey
from hello_project import children
from tests.servers import Server, free_port, gunicorn, need, wait_for
from tests.traffic import Connection, get
from throttling.addresses import parse_networks

DEPLOY: Final = Path(settings.BASE_DIR) / "deploy"
DOCUMENT: Final = (Path(settings.BASE_DIR) / "docs" / "monitoring.md").read_text()
DASHBOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
RULES_FILE: Final = DEPLOY / "prometheus-rules.yml"
RULES: Final[dict[str, dict[str, Any]]] = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES_FILE.read_text())["groups"]
    for rule in group["rules"]
}
TOKEN: Final = "a-token-of-at-least-32-characters"
SCRIPT: Final = "hello_limiter_script_duration_seconds"


# Requests, and what is told of them

OUTCOMES: Final = {
    200: "admitted",
    401: "unauthenticated",
    403: "forbidden",
    404: "invalid",
    503: "error",  # Of a machine with so much to do that the store takes more than 50 ms.
}


@dataclass(frozen=True)
class Kind:
    """Requests that no other rate limit than this one refuses."""

    policy: str
    request: Callable[[int], bytes]
    """The nth of them."""

    def outcome(self, status: int) -> str:
        return f"refused {self.policy}" if status == 429 else OUTCOMES[status]


def kinds() -> list[Kind]:
    _, plain = ApiKey.objects.issue(name="tests")
    _, limited = ApiKey.objects.issue(name="tests", rate="50/10s")
    _, elsewhere = ApiKey.objects.issue(name="tests", networks="10.0.0.0/8")
    wrong = ApiKey(name="never saved").make_secret()
    return [
        Kind("ip", lambda n: get(plain, f"203.0.113.{n % 10}")),
        Kind("key", lambda n: get(limited, f"198.18.{n // 250}.{n % 250}")),
        Kind("rate-limit", lambda n: get(plain, f"192.0.2.{n % 5}", "/rate-limit")),
        Kind("ip", lambda n: get(wrong, f"198.19.{n // 250}.{n % 250}")),
        Kind("ip", lambda n: without_key(f"198.20.{n // 250}.{n % 250}")),
        Kind("ip", lambda n: get(elsewhere, f"198.21.{n // 250}.{n % 250}")),
        Kind("ip", lambda n: get(plain, f"198.22.{n // 250}.{n % 250}", "/nothing")),
    ]


def without_key(address: str) -> bytes:
    return get("", address).replace(b"X-API-Key: \r\n", b"")


async def ask(port: int, kinds: Sequence[Kind], each: int, clients: int = 8) -> Counter[str]:
    """What became of `each` requests of each kind."""
    outcomes: Counter[str] = Counter()

    async def keep_asking(numbers: range) -> None:
        connection = await Connection.open(port)
        for number in numbers:
            for kind in kinds:
                status = await connection.ask(kind.request(number))
                outcomes[kind.outcome(status)] += 1
        connection.writer.close()

    await asyncio.gather(*(keep_asking(range(first, each, clients)) for first in range(clients)))
    return outcomes


def scrape(server: Server) -> str:
    with urlopen(f"{server.url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def samples(text: str, *types: str) -> dict[str, float]:
    """By name and labels, as in "hello_requests_total refused ip"."""
    return {
        " ".join([sample.name, *sample.labels.values()]).strip(): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.type in types
    }


def told(text: str) -> Counter[str]:
    """What /metrics says became of all requests."""
    counted = samples(text, "counter").items()
    name = "hello_requests_total "
    return Counter({key.removeprefix(name): int(n) for key, n in counted if name in key and n})


def complaints(promtool: str, text: str) -> str:
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return checked.stdout + checked.stderr + ("" if checked.returncode == 0 else "failed")


def test_under_load_every_scrape_is_clean_and_in_the_end_each_request_is_counted(
    transactional_db: None, tmp_path: Path
) -> None:
    promtool, asking, each = need("promtool", "prometheus"), kinds(), 500
    here = "127.0.0.1"
    with gunicorn(tmp_path, METRICS_NETWORKS=here, TRUSTED_PROXIES=here) as server:
        scrapes = [scrape(server)]
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(asyncio.run, ask(server.port, asking, each))
            while not load.done():
                scrapes.append(scrape(server))
                assert complaints(promtool, scrapes[-1]) == ""
        outcomes = load.result()
        wait_for(lambda: told(scrape(server)) == outcomes)
        scrapes.append(scrape(server))

    assert outcomes.total() == each * len(asking)
    refused = {f"refused {kind.policy}" for kind in asking}
    assert set(outcomes) | {"error"} == {*OUTCOMES.values(), *refused}
    # There are no counts in a scrape that the store did not answer in time.
    counts = [samples(text, "counter", "histogram") for text in scrapes if told(text)]
    assert len(counts) > 5
    for earlier, later in pairwise(counts):
        assert earlier.keys() == later.keys()
        assert [key for key in earlier if earlier[key] > later[key]] == []
    # One for the address, one more for a key's own rate, none where the path leads nowhere.
    may_ask = outcomes.total() - outcomes["invalid"] + each
    last = counts[-1]
    assert 1 <= last[f"{SCRIPT}_count"] <= may_ask
    assert last[f"{SCRIPT}_count"] == last[f"{SCRIPT}_bucket +Inf"]


# A Prometheus


@dataclass(frozen=True)
class Prometheus:
    port: int

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of its answer. Raises HTTPError on an expression that it cannot parse."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(url, timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success"
        assert not found.get("warnings")
        return found["data"]

    def values(self, expression: str) -> list[float]:
        return [float(each["value"][1]) for each in self.get("query", query=expression)["result"]]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(folder: Path, site: Server) -> Iterator[Prometheus]:
    """Runs with the files of deploy/, but for the site's address and how often it is read."""
    program, port = need("prometheus", "prometheus"), free_port()
    folder.mkdir()
    configuration = (DEPLOY / "prometheus.yml").read_text()
    for old, new in {
        "127.0.0.1:8000": f"127.0.0.1:{site.port}",
        "scrape_interval: 15s": "scrape_interval: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
    }.items():
        assert configuration.count(old) == 1
        configuration = configuration.replace(old, new)
    (folder / "prometheus.yml").write_text(configuration)
    (folder / "hello-metrics-token").write_text(f"{TOKEN}\n")
    shutil.copy(RULES_FILE, folder)
    subprocess.run(
        [need("promtool", "prometheus"), "check", "config", "prometheus.yml"],
        cwd=folder,
        check=True,
    )
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("wb") as log:
        process = children.start(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or _is_ready(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield Prometheus(port)
    finally:
        children.stop(process, 10)


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError):
        return False


def expressions() -> list[str]:
    """Of the dashboard's panels, as Grafana would send them."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for variable, value in {"job": "hello", "__rate_interval": "1m", "__range": "1h"}.items():
        found = [re.sub(rf"\${variable}\b", value, expression) for expression in found]
    return found


def test_prometheus_answers_every_panel_and_evaluates_every_alert(
    transactional_db: None, tmp_path: Path
) -> None:
    asking = kinds()
    with (
        gunicorn(tmp_path, METRICS_TOKEN=TOKEN, TRUSTED_PROXIES="127.0.0.1") as site,
        prometheus(tmp_path / "prometheus", site) as reader,
    ):
        wait_for(lambda: reader.values("sum(hello_requests_total)") == [0])
        outcomes = asyncio.run(ask(site.port, asking, each=40))
        wait_for(lambda: reader.values("sum(hello_requests_total)") == [outcomes.total()])
        wait_for(lambda: reader.values(f"rate({SCRIPT}_count[1m])") > [0])
        for expression in expressions():
            found = reader.values(expression)
            assert found or "offset 1w" in expression, expression
            assert not any(math.isnan(value) for value in found), expression
        refused = sum(outcomes[f"refused {policy}"] for policy in ("ip", "key", "rate-limit"))
        [share] = (each for each in expressions() if each.startswith("sum("))
        assert reader.values(share) == [pytest.approx(refused / outcomes.total(), abs=0.01)]

        wait_for(lambda: "unknown" not in {rule["health"] for rule in reader.rules()})
        healths = {rule["name"]: rule["health"] for rule in reader.rules()}
        assert healths == dict.fromkeys(RULES, "ok")
        [target] = reader.get("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")


# Alerts


@dataclass(frozen=True)
class Firing:
    """An alert that is quiet a minute before this one, and then fires with this summary."""

    alert: str
    series: Mapping[str, str]
    """In promtool's notation, a value every 15 seconds."""
    minute: int
    summary: str
    labels: Mapping[str, str]


SITE: Final = {"job": "hello"}
HOST: Final = {"job": "hello", "instance": "10.0.0.7:8000"}
A_HOST: Final = '{job="hello", instance="10.0.0.7:8000"}'
ANOTHER: Final = '{job="hello", instance="10.0.0.8:8000"}'


def requests(outcome: str, policy: str = "", host: str = A_HOST) -> str:
    return f'hello_requests_total{{outcome="{outcome}", policy="{policy}", {host[1:]}'


def bucket(bound: str) -> str:
    return f'{SCRIPT}_bucket{{le="{bound}", {A_HOST[1:]}'


FIRING: Final = [
    Firing(
        "HelloNotRead",
        {f"up{A_HOST}": "1x19 0x100", f"up{ANOTHER}": "1x120"},
        7,
        "10.0.0.7:8000 does not give its metrics.",
        HOST,
    ),
    Firing(
        "HelloStoreDown",
        {f"hello_store_up{A_HOST}": "1x19 0x100"},
        6,
        "10.0.0.7:8000 does not reach the store.",
        HOST,
    ),
    Firing(
        "HelloDatabaseDown",
        {f"hello_database_up{A_HOST}": "1x19 0x100"},
        6,
        "10.0.0.7:8000 does not reach the database.",
        HOST,
    ),
    Firing(
        "HelloBreakerOpen",
        {f"hello_limiter_breaker_open{A_HOST}": "0x19" + " 1 0 0" * 33},
        7,
        "10.0.0.7:8000 decides without the store.",
        HOST,
    ),
    Firing(
        "HelloDecidedWithoutStore",
        {f"hello_limiter_breaker_openings_total{A_HOST}": "7x19 _x20 9x80"},
        10,
        "Processes decided without the store in the last 15 minutes.",
        SITE,
    ),
    Firing(
        "HelloErrors",
        {requests("error"): "0+3x120", requests("admitted"): "0+147x120"},
        6,
        "2% of the requests end in an error.",
        SITE,
    ),
    Firing(
        "HelloStoreSlow",
        {bucket("0.025"): "0+50x120", bucket("0.05"): "0+99x120", bucket("+Inf"): "0+100x120"},
        11,
        "One round trip to the store in 100 takes over 50ms.",
        SITE,
    ),
    Firing(
        "HelloNothingAdmitted",
        {requests("unauthenticated"): "0+15x120", requests("admitted"): "5x120"},
        7,
        "0.7 requests a second arrive, and none is admitted.",
        SITE,
    ),
    Firing(
        "HelloManyRefused",
        {
            requests("refused", "ip"): "0+30x120",
            requests("refused", "key"): "0+15x120",
            requests("admitted"): "0+15x120",
        },
        18,
        "75% of the requests are refused by a rate limit.",
        SITE,
    ),
]

QUIET: Final[Mapping[str, Mapping[str, str]]] = {
    "HelloNotRead": {f"up{A_HOST}": "1x19 0x6 1x90", 'up{job="another"}': "0x120"},
    "HelloStoreDown": {f"hello_store_up{A_HOST}": "1x19 0x2 1 0x2 1x90"},
    "HelloDatabaseDown": {f"hello_database_up{A_HOST}": "1x19 0x2 1 0x2 1x90"},
    # The breaker of one process, once.
    "HelloBreakerOpen": {f"hello_limiter_breaker_open{A_HOST}": "0x19 1 0x100"},
    "HelloDecidedWithoutStore": {
        f"hello_limiter_breaker_openings_total{A_HOST}": "7x19 _x20 7x80",
        f"hello_limiter_decisions_without_store_total{A_HOST}": "7x19 _x20 8x80",
    },
    # One, however few the requests are.
    "HelloErrors": {requests("error"): "0x19 1x100", requests("admitted"): "0+1x120"},
    # For a while, and then there are none at all.
    "HelloStoreSlow": {
        bucket("0.025"): "0+50x16 800x100",
        bucket("0.05"): "0+100x16 1600x100",
        bucket("+Inf"): "0+100x16 1600x100",
    },
    # Too few to tell, though two hosts tell of them.
    "HelloNothingAdmitted": {
        requests("invalid"): "0+1x120",
        requests("invalid", host=ANOTHER): "0+1x120",
        requests("admitted"): "5x120",
        requests("admitted", host=ANOTHER): "5x120",
    },
    "HelloManyRefused": {requests("refused", "ip"): "0+12x120", requests("admitted"): "0+1x120"},
}


@pytest.mark.parametrize("case", FIRING, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_has_been_so_for_long_enough(case: Firing, tmp_path: Path) -> None:
    rule = RULES[case.alert]
    alert = {
        "exp_labels": rule["labels"] | case.labels,
        "exp_annotations": rule["annotations"] | {"summary": case.summary},
    }
    firing = {case.minute - 1: [], case.minute: [alert]}
    assert broken_expectations(case.alert, case.series, firing, tmp_path) == ""


@pytest.mark.parametrize("alert", QUIET)
def test_an_alert_is_quiet_when_it_is_nothing(alert: str, tmp_path: Path) -> None:
    firing: Mapping[int, list[Any]] = {minute: [] for minute in range(30)}
    assert broken_expectations(alert, QUIET[alert], firing, tmp_path) == ""


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_quiet() -> None:
    assert sorted(RULES) == sorted(case.alert for case in FIRING) == sorted(QUIET)


def broken_expectations(
    alert: str, series: Mapping[str, str], firing: Mapping[int, Sequence[Any]], folder: Path
) -> str:
    """What promtool finds otherwise than expected of an alert, minute by minute."""
    promtool, file = need("promtool", "prometheus"), folder / "test.yml"
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": of} for name, of in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": alerts}
            for minute, alerts in firing.items()
        ],
    }
    tests = {"rule_files": [str(RULES_FILE)], "evaluation_interval": "15s", "tests": [test]}
    file.write_text(json.dumps(tests))  # Which is YAML too.
    tested = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    return "" if tested.returncode == 0 else tested.stdout + tested.stderr


def test_promtool_finds_nothing_wrong_with_the_files() -> None:
    promtool = need("promtool", "prometheus")
    # The file with the token is where Prometheus runs.
    configuration = ["check", "config", "--syntax-only", str(DEPLOY / "prometheus.yml")]
    subprocess.run([promtool, *configuration], check=True)
    subprocess.run([promtool, "check", "rules", str(RULES_FILE)], check=True)


# The dashboard


def test_no_two_panels_overlap_and_all_are_within_24_columns() -> None:
    for panel in PANELS:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24, panel["title"]
    for one, other in combinations(PANELS, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one["title"], other["title"])


def test_each_panel_says_what_it_shows_and_in_what_unit() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_the_dashboard_is_of_no_source_or_site_in_particular() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    assert "id" not in DASHBOARD  # Grafana gives it one.
    source, site = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert site["name"] == "job"
    targets = [target for panel in PANELS for target in panel["targets"]]
    for asking in (site, *PANELS, *targets):
        assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in targets:
        metrics = re.findall(r"\bup\b|\bhello_\w+", target["expr"])
        assert len(metrics) == target["expr"].count('{job="$job"') > 0


# What there is to be read


@pytest.fixture
def exposed(api: APIClient, db: None) -> list[Metric]:
    with override_settings(METRICS_NETWORKS=parse_networks("127.0.0.1")):
        text = api.get("/metrics").content.decode()
    return list(text_string_to_metric_families(text))


def metrics_in(expressions: Sequence[str]) -> set[str]:
    return set(re.findall(r"\bhello_[a-z_]+", " ".join(expressions)))


def test_what_the_dashboard_and_the_alerts_ask_for_is_there(exposed: list[Metric]) -> None:
    asking = [*expressions(), *(rule["expr"] for rule in RULES.values())]
    there = [sample for family in exposed for sample in family.samples]
    assert metrics_in(asking) <= {sample.name for sample in there}
    outcomes = set(re.findall(r'outcome!?="(\w+)"', " ".join(asking)))
    assert outcomes == {"admitted", "refused", "error"}
    assert outcomes <= {sample.labels.get("outcome") for sample in there}


def test_the_dashboard_shows_every_metric(exposed: list[Metric]) -> None:
    shown = metrics_in(expressions())
    for family in exposed:
        assert shown & {sample.name for sample in family.samples}, family.name


def test_the_document_tells_of_every_metric_and_no_other(exposed: list[Metric]) -> None:
    rows = re.findall(r"^\| `(hello_\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT, re.MULTILINE)
    told_of = {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}
    there = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            [label for label in family.samples[0].labels if label != "le"],
        )
        for family in exposed
    }
    assert told_of == there


def test_the_document_explains_every_alert_and_no_other() -> None:
    assert set(re.findall(r"^\| `(Hello\w+)` \|", DOCUMENT, re.MULTILINE)) == set(RULES)
