"""What the pages tell crawlers has the types of schema.org, as the package schema-dts has them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ..support.pages import PAGE
from ..support.server import ROOT, Running

NPM = shutil.which("npm")
pytestmark = [pytest.mark.full, pytest.mark.skipif(NPM is None, reason="npm is not installed")]
CORRECTION = {"body": "As it is.", "correction": {"class": "correction", "note": "It was otherwise."}}
IMAGE = {
    "type": "image",
    "src": "https://a.example/a.jpg",
    "width": 3,
    "height": 2,
    "alt": "a",
    "caption": "b",
    "credit": "c",
}
NOTHING = '{ "@context": "https://schema.org", "@type": "LiveBlogPosting", "headlines": "no such property" }'


def json_ld(server: Running, path: str) -> str:
    match = re.search(
        r'type="application/ld\+json">(.*?)</script>',
        server.http.get(path, headers={"Accept": "text/html"}).text,
        re.DOTALL,
    )
    assert match
    return json.dumps(json.loads(match[1]))


def test_the_structured_data_of_pages_and_entries_has_the_types_of_schema_org(
    tmp_path: Path, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    entry = {"headline": "One", "blocks": [IMAGE], "bylines": [{"name": "Ada"}, {"name": "Ben"}], "tags": ["flood"]}
    server.send("PUT", f"/streams/{stream}/entries/one", entry)
    server.send("PATCH", f"/streams/{stream}/entries/one", CORRECTION)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "support" / "npm" / name, tmp_path)
    subprocess.run([str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=tmp_path, check=True)

    def check(name: str, kind: str, text: str) -> str:
        head = f'import type {{ {kind}, WithContext }} from "schema-dts";\n'
        (tmp_path / name).write_text(f"{head}export const data: WithContext<{kind}> = {text};\n")
        options = ["--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
        command = ["node_modules/.bin/tsc", *options, "--skipLibCheck", name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    assert check("page.ts", "LiveBlogPosting", json_ld(server, f"/streams/{stream}")) == ""
    assert check("entry.ts", "BlogPosting", json_ld(server, f"/streams/{stream}/entries/one")) == ""
    assert "headlines" in check("nothing.ts", "LiveBlogPosting", NOTHING)
