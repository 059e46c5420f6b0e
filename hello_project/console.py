"""The operators' console: Django's admin, as this site has it."""

from __future__ import annotations

from django.contrib.admin import AdminSite


class Console(AdminSite):
    site_header = "Keys and limits"
    site_title = "Keys and limits"
    index_title = "Administration"
