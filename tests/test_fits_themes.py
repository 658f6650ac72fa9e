"""The pages in the admin under themes that replace its templates: whole, without an error, and usable."""

from __future__ import annotations

import pytest

from tests.fitting import Run

pytest_plugins = ["tests.fitting"]

# The theme stands before the admin whose templates it replaces.
SETTINGS = """
INSTALLED_APPS = [
    {theme}
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *INSTALLED_APPS,
]
MIDDLEWARE = [
    *MIDDLEWARE,
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES[0]["OPTIONS"] = {{
    "context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]
}}
"""
URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [{urls} path("admin/", admin.site.urls)]
"""
SCENE = """
import os

from django.contrib.auth.models import User
from django.test import Client

LIST = "/admin/queued_storage/transferrecord/"
for number in range(3):
    default_storage.save(f"arrived/{number}.txt", ContentFile(b"content"))
arrive()
for number in range(4):
    default_storage.save(f"owed/{number}.txt", ContentFile(b"content"))
failed = TransferRecord.objects.filter(name__startswith="owed/", name__lt="owed/2")
failed.update(state="failed", due_at=None, error_kind="refused", error="EntityTooLarge: too large")
User.objects.create_superuser("admin", password="admin")
"""
# What has to be on each page, whatever is around it.
LOOK = """
client = Client()
client.force_login(User.objects.get())


def page(path, *wanted):
    response = client.get(LIST + path)
    assert response.status_code == 200, (path, response.status_code)
    html = response.content.decode()
    missing = [text for text in (*wanted, {marker!r}) if text not in html]
    assert not missing, (path, missing, html)
    return html


css = "queued_storage/dashboard.css"
page("dashboard/", 'class="qs-tiles"', css, "queued_storage/dashboard.js", "2 files have failed", 'class="qs-chart"')
html = page("", 'href="/admin/queued_storage/transferrecord/dashboard/"', "owed/3.txt", 'value="retry_selected"')
record = TransferRecord.objects.get(name="arrived/0.txt")
page(f"{record.pk}/change/?look=1", "there, as saved", 'id="queued-storage-attempts"', "transferred", css)
chosen = {"action": "retry_selected", "_selected_action": list(failed.values_list("pk", flat=True)), "index": "0"}
response = client.post(LIST, chosen)
html = response.content.decode()
assert response.status_code == 200 and "will be changed" in html and {marker!r} in html, html
import re

hidden = re.findall(r'<input type="hidden" name="(\\w+)" value="([^"]*)">', html)
data = {}
for name, value in hidden:
    data.setdefault(name, []).append(value)
data.pop("csrfmiddlewaretoken", None)
response = client.post(LIST, data, follow=True)
assert "2 files were changed." in response.content.decode(), response.content.decode()
assert set(states().values()) == {"transferred", "queued"}
"""
THEMES = {
    # Package, apps, URLs, and what only its own pages have.
    "plain": ("Django", "", "", "admin/css/base.css"),
    "unfold": ("django-unfold", '"unfold",', "", "unfold/css/styles.css"),
    "jazzmin": ("django-jazzmin", '"jazzmin",', "", "jazzmin/css/main.css"),
    "grappelli": (
        "django-grappelli",
        '"grappelli",',
        'path("grappelli/", include("grappelli.urls")),',
        "grappelli/stylesheets/screen.css",
    ),
}


@pytest.mark.parametrize("theme", THEMES)
def test_the_pages(fits: Run, theme: str) -> None:
    """Dashboard, list, record and the question before an action are whole, and the action is done."""
    package, app, urls, marker = THEMES[theme]
    fits(
        SCENE + LOOK.replace("{marker!r}", repr(marker)),
        package=package,
        settings=SETTINGS.format(theme=app),
        urls=URLS.format(urls=urls),
    )
