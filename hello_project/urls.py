from django.contrib import admin
from django.urls import path

from hello_project import views

admin.site.site_header = "Keys and limits"
admin.site.site_title = "Keys and limits"
admin.site.index_title = "Administration"

urlpatterns = [
    path("", views.HelloView.as_view(), name="hello"),
    path("livez", views.LivezView.as_view(), name="livez"),
    path("readyz", views.ReadyzView.as_view(), name="readyz"),
    path("admin/", admin.site.urls),
]

handler400 = "hello_project.problems.bad_request"
handler403 = "hello_project.problems.permission_denied"
handler404 = "hello_project.problems.not_found"
handler500 = "hello_project.problems.server_error"
