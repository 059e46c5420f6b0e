from django.contrib import admin
from django.templatetags.static import static
from django.urls import path, re_path
from django.views.generic import RedirectView

from hello_project import docs, views

urlpatterns = [
    path("", views.HelloView.as_view(), name="hello"),
    path("get-auth-token", views.TokenView.as_view(), name="get-auth-token"),
    path("rate-limit", views.RateLimitView.as_view(), name="rate-limit"),
    re_path(r"^verify(?P<original>/[\s\S]*)?\Z", views.VerifyView.as_view(), name="verify"),
    path("livez", views.LivezView.as_view(), name="livez"),
    path("readyz", views.ReadyzView.as_view(), name="readyz"),
    path("metrics", views.metrics, name="metrics"),
    path("openapi.json", docs.openapi, name="openapi"),
    path("docs", docs.page),
    path("docs/", docs.page, name="docs"),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=static("hello_project/favicon.svg"))),
]

handler400 = "hello_project.problems.bad_request"
handler403 = "hello_project.problems.permission_denied"
handler404 = "hello_project.problems.not_found"
handler500 = "hello_project.problems.server_error"
