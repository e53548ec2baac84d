"""Pages of HTML that need no other file, in the style of all of striate's pages."""

import json
from pathlib import Path
from typing import Any

STYLE = Path(__file__).parents[2] / "datamodules" / "doctor"
"""Folder with ``style.css``, the style of all pages; imported as a path, since the package itself needs torch."""


def render_page(template: Path, data: Any, **values: Any) -> str:
    """Fill in a template of a page.

    Args:
        template: The template, which may include ``style.css``.
        data: What its script reads, as ``{{ data|safe }}`` in an element ``<script type="application/json">``.
        values: What else it uses; text is escaped.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader([template.parent, STYLE]), autoescape=True)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return environment.get_template(template.name).render(data=text, **values)
