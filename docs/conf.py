"""Sphinx configuration: ``tox -e docs``, or ``sphinx-build -W docs docs/_build/html``."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "django-queued-storage"
author = "The django-queued-storage developers"
copyright = author  # noqa: A001 Sphinx's name for it
release = version_of("django-queued-storage")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "generated"]
# The demo is a project to copy, not a page.
exclude_patterns = ["_build", "demo", "_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"django-queued-storage {release}"
html_static_path: list[str] = []
