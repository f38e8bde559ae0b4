"""The page of a cluster: the files that a browser loads from the operators' listener, and the headers they need.

It shows what `/status.json` says, each second, as the command `pushserver status` does. Texts from readers reach it as
text alone, and the policy lets no other script run.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/status.js": ("page.js", "text/javascript; charset=utf-8"),
    "/status.css": ("page.css", "text/css; charset=utf-8"),
}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"


def page_files() -> dict[str, tuple[bytes, str]]:
    """The content and the type of each file, by its path."""
    return {path: ((FOLDER / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
