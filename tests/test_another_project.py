"""What docs/another-project.md and docs/from-drf-throttles.md say, done in a new Django project.

The project has an environment of its own, into which pip installs this repository. A block of
Python is appended to the file that its first line names; a block of shell is run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from django.conf import settings
from rest_framework.throttling import SimpleRateThrottle

from hello_project import children
from tests.servers import free_port, need, unavailable, wait_for
from throttling.rates import RateLimit

ROOT: Final = Path(__file__).parent.parent
ANOTHER_PROJECT: Final = ROOT / "docs" / "another-project.md"
FROM_DRF: Final = ROOT / "docs" / "from-drf-throttles.md"
APPS: Final = ("apikeys", "throttling")
PACKAGED: Final = (*APPS, "drf_api_keys")
PORT: Final = free_port()
HERE: Final = {
    "git+https://git.example.com/hello-project.git": shlex.quote(str(ROOT)),
    "redis://127.0.0.1:6379/1": settings.REDIS_URL,
    "10.0.0.0/8": "127.0.0.0/8",  # So that each test is a client of its own.
    "127.0.0.1:8000": f"127.0.0.1:{PORT}",
    "manage.py runserver": f"manage.py runserver {PORT}",
}
"""What a reader puts in by their own hands."""
WHAT_THE_APPS_NEED: Final = {
    *("django", "asgiref", "sqlparse", "djangorestframework", "django-redis", "redis", "pyjwt"),
    *("typing-extensions", "async-timeout"),  # of django-redis and redis, on some Pythons
}
THE_ENVIRONMENTS_OWN: Final = {"pip", "setuptools"}
STEPS: Final = ("1.", "2.", "3.", "4.", "5.", "6.")


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def file(self) -> str:
        return self.text.partition("\n")[0].removeprefix("# ")


def sections(page: Path) -> dict[str, list[Block]]:
    """The blocks of each section, by its title; a step's title is its number."""
    text = page.read_text()
    if page == ANOTHER_PROJECT:
        for theirs, ours in HERE.items():
            assert theirs in text, theirs
            text = text.replace(theirs, ours)
    found = {}
    for section in text.split("\n## ")[1:]:
        [title, *_] = re.findall(r"\A\d\.|\A.*", section)
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        if blocks:
            found[title] = [Block(*block) for block in blocks]
    return found


STEP: Final = sections(ANOTHER_PROJECT)
MOVE: Final = sections(FROM_DRF)


@dataclass(frozen=True)
class Project:
    folder: Path
    programs: Path
    """Where its environment's are."""

    def run(self, command: str) -> str:
        """What the shell's command prints on stdout. The test fails if it does."""
        return self._run("/bin/sh", "-ec", command)

    def run_python(self, code: str, given: str = "") -> str:
        return self._run("python", "-c", code, given=given)

    def _run(self, *command: str, given: str = "") -> str:
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            pytest.fail(
                f"{command[-1]}\nended with {result.returncode}: {result.stdout}{result.stderr}"
            )
        return result.stdout

    @property
    def environment(self) -> dict[str, str]:
        """The developer's, without what leads to this tree or to its settings."""
        ours = {"PYTHONPATH", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE", "PYTHONHOME"}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return kept | {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}

    def add(self, blocks: list[Block]) -> None:
        for block in blocks:
            assert block.language == "python"
            with (self.folder / block.file).open("a") as file:
                file.write(f"\n{block.text}")

    def passes(self, tests: Block, command: Block, expected: int) -> bool:
        """Whether these tests pass, and are so many."""
        self.add([tests])
        return f"Ran {expected} tests" in self.run(f"{command.text.strip()} 2>&1")

    def answers(self, *requests: tuple[str, str, dict[str, str]]) -> list[tuple[int, Any]]:
        """Statuses and bodies, for a method, a path and a META each, all in one process."""
        answers = json.loads(self.run_python(ASK, json.dumps(requests)))
        return [(status, body) for status, body in answers]

    def statuses(self, *requests: tuple[str, str, dict[str, str]]) -> list[int]:
        return [status for status, _ in self.answers(*requests)]

    def issue_key(self) -> str:
        return self.run("python manage.py issue_key tests").strip()


ASK: Final = """
import json, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
import django
django.setup()
from django.test import Client
client = Client(raise_request_exception=False, headers={"host": "localhost"})
answers = []
for method, path, meta in json.load(sys.stdin):
    answer = client.generic(method, path, **meta)
    is_json = answer.headers["Content-Type"] == "application/json"
    answers.append((answer.status_code, answer.json() if is_json else None))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with what the page's first step installs, in the versions tested here."""
    if importlib.util.find_spec("ensurepip") is None:
        unavailable("This Python makes no environments: apt-get install python3-venv")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pins = re.findall(r"^([\w.-]+==\S+)(.*?) \\$", (ROOT / "requirements.txt").read_text(), re.M)
    (folder / "tested.txt").write_text("".join(f"{pin}{marker}\n" for pin, marker in pins))
    environment = Project(folder, folder / "venv" / "bin")
    [install] = STEP["1."]
    environment.run(f"export PIP_CONSTRAINT=tested.txt\n{install.text}")
    return environment.programs


@pytest.fixture
def project(programs: Path, tmp_path: Path) -> Project:
    return start_project(programs, tmp_path)


def start_project(programs: Path, folder: Path) -> Project:
    project = Project(folder, programs)
    project.run("django-admin startproject mysite .")
    return project


@pytest.fixture(scope="module")
def finished(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the files of all steps, and a database."""
    project = start_project(programs, tmp_path_factory.mktemp("finished"))
    project.add([block for number in STEPS[1:-1] for block in STEP[number]])
    project.run("python manage.py migrate")
    return project


@pytest.fixture
def further(finished: Project, tmp_path: Path) -> Project:
    """A copy of it, to go on from."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, finished.programs)


@contextmanager
def served(project: Project, block: Block) -> Iterator[None]:
    log = project.folder / "runserver.log"
    with log.open("wb") as output:
        process = children.start(
            ["/bin/sh", "-c", f"exec {block.text}"],
            cwd=project.folder,
            env=project.environment | {"PYTHONUNBUFFERED": "1"},  # Its log is read as it grows.
            stdout=output,
            stderr=output,
        )
        try:
            wait_for(lambda: process.poll() is not None or "Quit the server" in log.read_text())
            if process.poll() is not None:
                pytest.fail(f"runserver ended with {process.returncode}: {log.read_text()}")
            yield
        finally:
            children.stop(process, 5)


def key_header(key: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {key}"}


# The steps


def test_the_steps_end_in_the_answers_that_the_page_shows(programs: Path, tmp_path: Path) -> None:
    need("curl", "curl")
    project = start_project(programs, tmp_path)
    project.add([block for number in STEPS[1:-1] for block in STEP[number]])
    issue, run, call, admitted, refused, revoke = STEP["6."]
    key = project.run(issue.text).splitlines()[-1]

    def called(address: str, command: str = call.text.replace("hk_live_…", key)) -> str:
        """What curl prints, for a client behind a proxy of ours."""
        return project.run(f'{command.strip()} -s -H "X-Forwarded-For: {address}"')

    with served(project, run):
        assert status(called("203.0.113.1", re.sub(r'-H ".*?"', "", call.text))) == 401
        answers = [called("203.0.113.2") for _ in range(4)]
        assert [status(answer) for answer in answers] == [200, 200, 200, 429]
        assert_shows(answers[0], admitted)
        assert_shows(answers[3], refused)
        project.run(revoke.text.replace("hk_live_…", key))
        assert status(called("203.0.113.3")) == 401


def status(answer: str) -> int:
    return int(answer.split()[1])


def assert_shows(answer: str, block: Block) -> None:
    """Every line of the block is in the answer, but for how many seconds are left."""
    lines = [without_seconds(line) for line in answer.splitlines()]
    for line in filter(None, block.text.splitlines()):
        assert without_seconds(line) in lines, line


def without_seconds(line: str) -> str:
    return re.sub(r"(?<=;t=)\d+|(?<=Retry-After: )\d+|\d+(?= seconds)", "…", line)


def test_each_client_behind_a_proxy_is_limited_by_itself(finished: Project) -> None:
    key = key_header(finished.issue_key())
    for client in ("203.0.113.11", "203.0.113.12"):
        meta = key | {"HTTP_X_FORWARDED_FOR": client}
        assert finished.statuses(*[("GET", "/report/", meta)] * 4) == [200, 200, 200, 429]


def test_a_key_of_its_own_rate_and_networks_is_held_to_them(finished: Project) -> None:
    issued = finished.run(
        "python manage.py issue_key tests --rate 1/10s --network 203.0.113.0/24"
    ).strip()
    here, elsewhere = (
        key_header(issued) | {"HTTP_X_FORWARDED_FOR": client}
        for client in ("203.0.113.21", "198.51.100.21")
    )
    asked = [("GET", "/report/", meta) for meta in (elsewhere, here, here)]
    assert finished.statuses(*asked) == [403, 200, 429]
    refused = finished.run("python manage.py issue_key tests --rate often 2>&1 || true")
    assert "is not a rate limit" in refused


def test_the_admins_pages_of_keys_are_there(finished: Project) -> None:
    seen = json.loads(finished.run_python(LOOK_AROUND))
    assert seen == {
        "list": 200,
        "form": 200,
        "issued": True,
        "revoke": 200,
        "rules": 200,
        "assets": True,
    }


LOOK_AROUND: Final = """
import json, os, re
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
import django
django.setup()
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.test import Client
client = Client(headers={"host": "localhost"})
client.force_login(User.objects.create_superuser("ann"))
keys = "/admin/apikeys/apikey"
form = client.get(f"{keys}/add/")
fields = {"name": "from the admin", "environment": "live"}
fields["key_id"] = re.search(r'name="key_id" value="(\\w+)"', form.content.decode())[1]
issued = client.post(f"{keys}/add/", fields)
print(json.dumps({
    "list": client.get(f"{keys}/").status_code,
    "form": form.status_code,
    "issued": f"hk_live_{fields['key_id']}_" in issued.content.decode(),
    "revoke": client.get(f"{keys}/revoke/", {"id": fields["key_id"]}).status_code,
    "rules": client.get("/admin/throttling/networkrule/add/").status_code,
    "assets": all(
        map(finders.find, ["apikeys/admin.css", "apikeys/copy.js", "throttling/admin.css"])
    ),
}))
"""


def test_a_rule_blocks_a_network_and_lets_it_in_again(finished: Project) -> None:
    request = ("GET", "/report/", {"HTTP_X_FORWARDED_FOR": "203.0.113.31"})
    finished.run("python manage.py network_rule add 203.0.113.31 --block")
    assert finished.statuses(request) == [403]
    finished.run("python manage.py network_rule remove 203.0.113.31")
    assert finished.statuses(request) == [401]


# What is installed


def test_the_two_apps_are_installed_whole_and_nothing_else_of_this_tree(programs: Path) -> None:
    listed = "import importlib.metadata as m; print(*m.files('hello-project'), sep='\\n')"
    installed = Project(programs, programs).run(f'python -c "{listed}"').splitlines()
    ours = [file for app in PACKAGED for file in (ROOT / app).rglob("*") if file.is_file()]
    expected = {str(file.relative_to(ROOT)) for file in ours if file.suffix != ".pyc"}
    assert {"throttling/sliding_window.lua", "apikeys/migrations/0001_initial.py"} <= expected
    found = {file for file in installed if not file.endswith(".pyc")}
    assert {file for file in found if "dist-info" not in file} == expected


def test_only_what_the_apps_need_is_installed_with_them(programs: Path) -> None:
    listed = json.loads(Project(programs, programs).run("python -m pip list --format json"))
    names = {re.sub(r"[._-]+", "-", each["name"]).lower() for each in listed}
    assert names - THE_ENVIRONMENTS_OWN - WHAT_THE_APPS_NEED == {"hello-project"}


def test_the_site_pins_all_that_the_apps_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {name_of(line) for line in project["dependency-groups"]["site"]}
    assert {name_of(line) for line in project["project"]["dependencies"]} <= pinned
    assert all("==" in line for line in project["dependency-groups"]["site"])


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0]


def test_neither_this_site_nor_this_tree_can_be_imported_there(finished: Project) -> None:
    found = "import importlib.util as u; print([u.find_spec(n) for n in {!r}])"
    names = ["hello_project", "tests", "benchmarks"]
    assert finished.run_python(found.format(names)).strip() == str([None] * len(names))
    paths = "import sys, apikeys, throttling; print(*sys.path, apikeys.__file__, sep='\\n')"
    for path in finished.run_python(paths).splitlines():
        assert not Path(path).is_relative_to(ROOT), path


def test_no_module_of_the_apps_chooses_the_store_by_itself() -> None:
    for app in APPS:
        for source in (ROOT / app).rglob("*.py"):
            assert 'get_redis_connection("' not in source.read_text(), source


# The other sections


def test_every_section_with_blocks_is_followed_by_a_test() -> None:
    assert set(STEP) == {
        *STEPS,
        "On all views",
        "Tokens for keys",
        "In your tests",
        "The limiter alone",
        "The keys alone",
    }
    assert set(MOVE) == {"Before", "After", "In your tests"}


def test_the_table_lists_every_setting_of_the_apps_and_no_other() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", ANOTHER_PROJECT.read_text(), re.MULTILINE)
    sources = [source.read_text() for app in APPS for source in (ROOT / app).rglob("*.py")]
    read = re.findall(r'getattr\(\s*settings,\s*"(\w+)"', "\n".join(sources))
    assert sorted(listed) == sorted(set(read))


def test_all_views_can_be_limited_by_default(further: Project) -> None:
    further.add(STEP["On all views"])
    meta = key_header(further.issue_key())
    asked = [("GET", "/groups/", meta), ("GET", "/groups/9/", meta), ("GET", "/groups/", {})]
    assert further.statuses(*asked, ("GET", "/groups/", meta)) == [200, 404, 401, 429]


def test_a_key_buys_a_token_that_dies_with_it(further: Project) -> None:
    further.add(STEP["Tokens for keys"])
    key = further.issue_key()
    [(bought, answer)] = further.answers(("POST", "/token/", key_header(key)))
    assert (bought, answer["expires_in"]) == (200, 300)
    with_token = ("GET", "/report-for-tokens/", key_header(answer["access_token"]))
    assert further.statuses(with_token) == [200]
    further.run(f"python manage.py revoke_key {key}")
    assert further.statuses(with_token) == [401]


def test_the_tests_of_the_page_pass(further: Project) -> None:
    tests, command = STEP["In your tests"]
    assert further.passes(tests, command, expected=2)


def test_a_refusal_before_authentication_asks_nobody_who_it_is(further: Project) -> None:
    further.add([THEIR_VIEW])
    guess = key_header("hk_live_guess") | {"HTTP_ACCEPT": "text/html"}
    assert further.statuses(*[("GET", "/their/", guess)] * 4) == [401, 401, 401, 429]


THEIR_VIEW: Final = Block(
    "python",
    """# mysite/urls.py
from mysite.views import ReportView
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.views import exception_handler

class TheirView(ReportView):
    renderer_classes = [BrowsableAPIRenderer]  # It shows who is logged in.

    def get_exception_handler(self):
        def handler(error, context):
            assert context["request"].user.is_anonymous
            return exception_handler(error, context)
        return handler

urlpatterns += [path("their/", TheirView.as_view())]
""",
)


def test_throttles_can_be_chosen_by_a_viewsets_action(further: Project) -> None:
    further.add([*STEP["On all views"], THEIR_VIEWSET])
    meta = key_header(further.issue_key())
    assert further.statuses(*[("GET", "/theirs/", meta)] * 4) == [200] * 4
    assert further.statuses(*[("GET", "/theirs/9/", meta)] * 4) == [404, 404, 404, 429]


THEIR_VIEWSET: Final = Block(
    "python",
    """# mysite/urls.py
class TheirViewSet(GroupViewSet):
    def get_throttles(self):
        return [] if self.action == "list" else super().get_throttles()

their_router = SimpleRouter()
their_router.register("theirs", TheirViewSet)
urlpatterns += their_router.urls
""",
)


@pytest.mark.parametrize(
    ("section", "path", "without", "expected"),
    [
        ("The limiter alone", "/open/", "apikeys", [200, 200, 200, 429]),
        ("The keys alone", "/keyed/", "throttling", [401, 401, 401, 401]),
    ],
)
def test_either_app_can_be_used_alone(
    project: Project, section: str, path: str, without: str, expected: list[int]
) -> None:
    cannot_be_imported = f"import sys\nsys.modules[{without!r}] = None\n"
    (project.folder / "mysite" / "__init__.py").write_text(cannot_be_imported)
    project.add([*STEP["3."], *STEP[section]])
    project.run("python manage.py migrate")
    assert project.statuses(*[("GET", path, {})] * 4) == expected
    if without == "throttling":
        assert project.statuses(("GET", path, key_header(project.issue_key()))) == [200]


# From DRF's throttles


@pytest.mark.parametrize(
    "unit", ["s", "sec", "second", "m", "min", "minute", "h", "hr", "hour", "d", "day"]
)
def test_the_rates_of_drf_mean_the_same_here(unit: str) -> None:
    rate = RateLimit.parse(f"3/{unit}")
    limit_and_window = SimpleRateThrottle.parse_rate(None, f"3/{unit}")  # type: ignore[arg-type]
    assert (rate.limit, rate.window) == limit_and_window


def test_before_and_after_the_move_from_drf(project: Project) -> None:
    project.add([*STEP["3."], *MOVE["Before"]])
    project.run("python manage.py migrate")
    assert project.statuses(*[("GET", "/export/", {})] * 3) == [200, 200, 429]
    strangers = [("GET", "/report/", {"HTTP_X_FORWARDED_FOR": f"203.0.113.{n}"}) for n in range(20)]
    without_proxies = Block("python", "# mysite/settings.py\ndel REST_FRAMEWORK['NUM_PROXIES']\n")
    project.add([without_proxies])
    assert project.statuses(*strangers) == [200] * 20
    project.add(MOVE["After"])
    tests, command = MOVE["In your tests"]
    assert project.passes(tests, command, expected=4)
    assert project.statuses(*strangers) == [200] * 10 + [429] * 10
    project.add([ONLY_STRANGERS])
    assert project.statuses(*strangers) == [200] * 3 + [429] * 17


ONLY_STRANGERS: Final = Block(
    "python",
    """# mysite/settings.py
REST_FRAMEWORK["DEFAULT_THROTTLE_CLASSES"] = ["mysite.throttles.AnonThrottle"]
REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"] = {"anon": "3/min"}
""",
)
