"""What the HTML pages share: templates, pictures inside a page, and links."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

TEMPLATES = Path(__file__).parents[1] / "templates"


def template(name: str) -> Template:
    """A page's template; a name that it does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def png(figure: Figure) -> bytes:
    """The figure as PNG of 256 colours, without the library's version in it: small, and same data, same bytes."""
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(256).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def data_uri(image: bytes) -> Markup:
    """The image inside the page."""
    return Markup("data:image/png;base64," + base64.b64encode(image).decode())


def shade(value: float, most: float) -> str:
    """Colour behind a difference: blue above zero, orange below, the paler the nearer; ``most`` has the full tint."""
    if not most > 0 or not abs(value) > 0:
        return "transparent"
    return f"{'#0072b2' if value > 0 else '#d55e00'}{round(0x80 * min(1.0, abs(value) / most)):02x}"


def link(target: Path, page: Path) -> str:
    """How a page reaches a file of the same tree: a relative path with forward slashes."""
    return Path(os.path.relpath(target, page.parent)).as_posix()


def write(path: Path, content: str | bytes) -> None:
    """Write a result with line feeds on every platform, making its folder; a kill leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)
