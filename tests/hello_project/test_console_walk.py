"""Every URL of the console, as the resolver knows them: a new one cannot be forgotten here.

Who may see what, that reading changes nothing, that nothing is changed without a CSRF token, and
that no page has in it what the Content-Security-Policy forbids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.regex_helper import normalize

from apikeys.models import ApiKey
from drf_api_keys.models import ImportedKey
from hello_project.middleware import CONTENT_SECURITY_POLICY
from throttling.models import NetworkRule

OF_OPERATORS = [
    *(f"{action}_apikey" for action in ("view", "add", "change", "rotate", "revoke")),
    *(f"{action}_networkrule" for action in ("view", "add", "change", "delete")),
    "view_keyusage",
]
LOGIN = "/admin/login/"
OBJECT_PAGES = ("changelist", "add", "change", "history")
PAGE, CODE = "/admin/second-factor/", "/admin/second-factor/code/"


@dataclass(frozen=True)
class Url:
    """An address of the console with real objects in it; of which model, and what Django calls it.

    `kind` is what is left of the name without app and model: "changelist", "add", "revoke"…
    """

    path: str
    model: type[Model] | None
    kind: str


def urls_of(
    resolver: URLResolver, before: str = "/"
) -> Iterator[tuple[str, list[str], URLPattern]]:
    for entry in resolver.url_patterns:
        # normalize() is by what reverse() works: a format and the names in it, for each choice.
        for form, names in normalize(entry.pattern.regex.pattern):
            if isinstance(entry, URLResolver):
                yield from urls_of(entry, before + form)
            else:
                yield before + form, names, entry


def model_at(path: str) -> type[Model] | None:
    """The model whose ModelAdmin the path belongs to."""
    for model in admin.site._registry:
        if path.startswith(f"/admin/{model._meta.app_label}/{model._meta.model_name}/"):
            return model
    return None


def walk() -> list[Url]:
    found: list[Url] = []
    for form, names, pattern in urls_of(get_resolver()):
        if not form.startswith("/admin/"):
            continue
        model = model_at(form)
        meta = model._meta if model else None
        name = pattern.name or ""
        kind = name.removeprefix(f"{meta.app_label}_{meta.model_name}_") if meta else name
        values = {
            "app_label": "apikeys",
            "content_type_id": str(ContentType.objects.get_for_model(ApiKey).pk),
            "object_id": pk_of(model or ApiKey),
            "url": "nothing",
        }
        samples = {each: values.get(each, values["object_id"]) for each in names}
        url = Url(form % samples, model, kind)
        if url not in found:
            found.append(url)
    return found


def pk_of(model: type[Model]) -> str:
    one = model._default_manager.first()
    return str(one.pk) if one else "1"


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """Its forms, filled in as they come, and what the policy forbids."""

    def __init__(self, answer: Any, path: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.forbidden: list[str] = []
        self._path = path
        self._select = ""
        self.feed(answer.content.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self._look_at(tag, values)
        if tag == "form":
            action = urljoin(self._path, values.get("action", ""))
            self.forms.append(Form(action, values.get("method", "get").lower()))
        elif tag == "select":
            self._select = values.get("name", "")
        elif self.forms and tag == "option" and (self._select or "selected" in values):
            if "selected" in values or self._select not in self.forms[-1].fields:
                self.forms[-1].fields[self._select] = values.get("value", "")
        elif values.get("type") in ("radio", "checkbox") and "checked" not in values:
            return
        elif self.forms and tag in ("input", "textarea", "button") and values.get("name"):
            self.forms[-1].fields[values["name"]] = values.get("value", "")

    def _look_at(self, tag: str, values: dict[str, str]) -> None:
        said = f"<{tag} {' '.join(f'{name}={value!r}' for name, value in values.items())}>"
        is_inert = values.get("type") == "application/json"
        if tag == "style" or (tag == "script" and "src" not in values and not is_inert):
            self.forbidden.append(said)
        for name, value in values.items():
            if name == "style" or name.startswith("on"):
                self.forbidden.append(said)
            if name not in ("src", "href", "action", "formaction", "data", "poster", "srcset"):
                continue
            is_link = tag == "a" and name == "href"
            parts = urlsplit(value)
            if (parts.netloc and not is_link) or parts.scheme in ("javascript", "data", "blob"):
                self.forbidden.append(said)


def rows(*, without: tuple[type[Model], ...] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """All that the database has."""
    return {
        model._meta.label: sorted(model._base_manager.values_list(), key=repr)
        for model in apps.get_models(include_auto_created=True)
        if model not in without and model._meta.managed and not model._meta.proxy
    }


@pytest.fixture(autouse=True)
def something_of_everything(transactional_db: None, settings: Any) -> None:
    settings.SECOND_FACTOR = "optional"  # Else its pages are not there.
    NetworkRule.objects.create(network="203.0.113.0/24", action="block")
    old, _ = ApiKey.objects.issue(name="imported")
    ImportedKey.objects.create(key=old, prefix="abc", hashed_key="sha512$$0", table="keys")
    ApiKey.objects.issue(name="billing")
    group, _ = Group.objects.get_or_create(name="key operators")  # Flushed since it was migrated.
    group.permissions.set(Permission.objects.filter(codename__in=OF_OPERATORS))
    User.objects.create_superuser("root", password="password")


@pytest.fixture
def viewer() -> Client:
    return member("viewer", [p for p in Permission.objects.all() if p.codename[:5] == "view_"])


@pytest.fixture
def operator() -> Client:
    return member("operator", groups=["key operators"])


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.get(username="root"))
    return client


def member(name: str, permissions: Any = (), groups: Any = ()) -> Client:
    user = User.objects.create_user(name, password="password", is_staff=True)
    user.user_permissions.set(permissions)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user)
    return client


def test_the_walk_finds_what_is_there() -> None:
    found = walk()
    registered = set(admin.site._registry)
    assert {url.model for url in found} == {None, *registered}
    without = {model for model in registered if not model._default_manager.exists()}
    assert without == set(), "Make one in something_of_everything()."
    assert {url.kind for url in found if url.model is ApiKey} >= {"changelist", "add", "change"}
    assert {LOGIN, "/admin/", PAGE, CODE, "/admin/apikeys/"} <= {url.path for url in found}
    assert len(found) > 20


def test_who_has_not_logged_in_sees_the_login_and_nothing_else() -> None:
    before = rows()
    for url in walk():
        for ask in (Client().get, Client().head, Client().post):
            answer = ask(url.path)
            if url.path == LOGIN:
                assert answer.status_code == 200
                continue
            wanted = "/admin/" if url.kind == "logout" else LOGIN
            assert answer.status_code == 302, url
            assert urlsplit(answer["Location"]).path == wanted, url
    assert rows() == before


def test_who_has_given_a_password_where_a_code_is_required_sees_no_more(
    root: Client, settings: Any
) -> None:
    settings.SECOND_FACTOR = "required"
    before = rows()
    for url in walk():
        answer = root.get(url.path)
        if url.path == PAGE:
            assert answer.status_code == 200
        elif url.kind == "logout":
            assert answer.status_code == 405
        else:
            assert answer.status_code == 302, url
            assert urlsplit(answer["Location"]).path in (LOGIN, PAGE, "/admin/"), url
        if url.kind not in ("logout", "login"):
            posted = root.post(url.path)
            assert posted.status_code == (200 if url.path == PAGE else 302), url
    assert rows() == before


def test_a_viewer_sees_everything_and_changes_nothing(viewer: Client) -> None:
    before = rows(without=(Session,))
    for url in walk():
        answer = viewer.get(url.path)
        if url.kind in ("changelist", "change", "history"):
            assert answer.status_code == 200, url
        elif url.kind in ("add", "delete"):
            assert answer.status_code == 403, url
        else:
            assert answer.status_code in (200, 302, 403, 404, 405), url
    for url in walk():
        if url.kind == "logout":
            continue
        for form in forms_for(url):
            assert viewer.post(url.path, form).status_code in (200, 302, 403, 404, 405), url
    assert rows(without=(Session,)) == before


def test_an_operator_works_with_keys_and_leaves_users_alone(operator: Client) -> None:
    kept = rows(without=(ApiKey, Session))["auth.User"]
    for url in walk():
        answer = operator.get(url.path)
        if url.model in (ApiKey, NetworkRule) and url.kind in OBJECT_PAGES:
            assert answer.status_code == 200, url
        elif url.model in (User, Group):
            assert answer.status_code in (302, 403), url
            assert operator.post(url.path).status_code in (302, 403), url
        else:
            assert answer.status_code in (200, 302, 403, 404, 405), url
    assert rows()["auth.User"] == kept


def test_a_superuser_is_refused_nothing_but_the_deletion_of_keys(root: Client) -> None:
    for url in walk():
        status = root.get(url.path).status_code
        if url.kind == "delete" and url.model is ApiKey:
            assert status == 403
        elif url.kind == "logout":
            assert status == 405
        elif url.path == "/admin/nothing":
            assert status == 404
        elif url.kind == "autocomplete":
            assert status == 403  # It is asked for a field of a model, and was not.
        elif url.kind in ("view_on_site", ""):
            assert status in (200, 302, 404), url
        elif url.kind in ("changelist", "change", "history", "index", "app_list"):
            assert status == 200, url
        else:
            assert status in (200, 302, 403, 404, 405), url


def test_reading_changes_nothing(root: Client) -> None:
    before = rows()
    for url in walk():
        for ask in (root.get, root.head):
            ask(url.path)
            for form in forms_for(url):
                ask(url.path, form)
            assert rows() == before, url
    for action, form in forms_within(root):
        root.get(f"{action}{'&' if '?' in action else '?'}{urlencode(form)}")
        assert rows() == before, (action, form)


def test_nothing_is_changed_without_a_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="root"))
    before = rows()
    for url in walk():
        for form in ({}, *forms_for(url)):
            assert client.post(url.path, form).status_code == 403, url
    for action, form in forms_within(client):
        form.pop("csrfmiddlewaretoken", None)
        assert client.post(action, form).status_code == 403, action
    assert rows() == before


def test_every_answer_has_the_policy_and_no_page_what_it_forbids(root: Client) -> None:
    pages = 0
    for client in (Client(), root):
        for url in walk():
            for ask in (client.get, client.post) if url.kind != "logout" else (client.get,):
                answer = ask(url.path)
                assert answer["Content-Security-Policy"] == CONTENT_SECURITY_POLICY, url
                if answer["Content-Type"].startswith("text/html") and answer.content:
                    assert Page(answer, url.path).forbidden == [], url
                    pages += 1
    assert pages > 30


def forms_for(url: Url) -> list[dict[str, str]]:
    """What might make a careless page change something."""
    pk = pk_of(url.model or ApiKey)
    chosen = {"_selected_action": pk, "id": pk, "ids": pk, "post": "yes", "confirm": "yes"}
    return [
        chosen | {"reason": "lost", "overlap": "0", "name": "changed", "_save": "", "apply": ""},
        *(
            chosen | {"action": name, "index": "0"}
            for name in (actions_of(url.model) if url.model and url.kind == "changelist" else ())
        ),
    ]


def actions_of(model: type[Model]) -> list[str]:
    model_admin = admin.site._registry[model]
    names = [
        action if isinstance(action, str) else action.__name__
        for action in model_admin.actions or ()
    ]
    return [*names, "delete_selected"]


def forms_within(client: Client) -> Iterator[tuple[str, dict[str, str]]]:
    """Of all pages, those that are sent by POST, as they come; but that which ends the session."""
    for url in walk():
        for asked in ({}, forms_for(url)[0]):
            answer = client.get(url.path, asked)
            if answer.status_code != 200 or not answer["Content-Type"].startswith("text/html"):
                continue
            for form in Page(answer, url.path).forms:
                if form.method == "post" and "logout" not in form.action:
                    yield form.action, form.fields
