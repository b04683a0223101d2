"""Sphinx configuration: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# Importing Airflow writes a configuration file: not into the reader's own home.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="fluxomail-docs-"))

from airflow_provider_fluxomail import __version__
from airflow_provider_fluxomail.configuration.old_arguments import RefusesOldArguments

# It only checks the arguments; autodoc would show its signature instead of that of __init__.
del RefusesOldArguments.__new__

project = "airflow-provider-fluxomail"
author = "The airflow-provider-fluxomail authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sandbox_docs", "tables"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_default_options = {"member-order": "bysource"}
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"Fluxomail for Airflow {release}"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("object-description-transform", _drop_return_type_of_classes, priority=900)


def _drop_return_type_of_classes(_app: Sphinx, _domain: str, objtype: str, content: Element) -> None:
    """A task's ``:return:`` stands in its class's docstring; ``__init__``'s ``None`` beside it would mislead."""
    from docutils import nodes

    if objtype == "class":
        for name in list(content.findall(nodes.field_name)):
            if name.astext() == "rtype":
                name.parent.parent.remove(name.parent)
