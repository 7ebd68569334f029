"""Filling one of this folder's templates."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent


def write_page(path: str | Path, template: str, **values: Any) -> Path:
    """Fill a template of this folder and write it.

    Args:
      path: The file to write; its folder is made where it is missing.
      template: Its name.
      **values: What it names; all of it must be there.

    Returns:
      The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        _environment()
        .get_template(template)
        .render(script=Markup(script), script_hash=f"sha256-{digest}", **values)
    )
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)


@cache
def _environment() -> jinja2.Environment:
    """Return what reads templates; a template is compiled once a process."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
