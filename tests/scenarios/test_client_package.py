"""The client as a package: `npm pack` makes it, a type checker and a bundler take it, and a browser runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from ..support.judge import CHROMIUM, browser
from ..support.server import ROOT, Running

pytestmark = [pytest.mark.full, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

NPM = shutil.which("npm") or "npm"
EXAMPLE = """
import { Stream, type Entry } from "pushserver-client";
import { LiveView } from "pushserver-client/view";

const entries = new Map<string, Entry>();

export function follow(url: string): Promise<string[]> {
  const stream = new Stream(url, "", { token: async () => "" });
  return new Promise((resolve) => {
    stream.addEventListener("frame", ({ detail: frame }) => {
      if (frame.type === "snapshot") for (const entry of frame.entries) entries.set(entry.id, entry);
    });
    stream.addEventListener("state", ({ detail }) => {
      if (detail.state !== "live" && detail.reason !== "refused") return;
      stream.dispose();
      resolve([...entries.values()].map((entry) => entry.headline ?? ""));
    });
    stream.open();
  });
}

export function show(root: HTMLElement): number {
  const view = new LiveView(root, { url: "/streams/demo" });
  view.addEventListener("count", ({ detail }) => console.log(detail + 1));
  return view.stream.url.length;
}
"""


def test_the_version_of_the_package_is_that_of_the_server() -> None:
    package = json.loads((ROOT / "static" / "package.json").read_text())
    assert package["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_packed_client_compiles_strictly_bundles_and_runs(tmp_path: Path, server: Running, stream: str) -> None:
    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "support" / "npm" / name, tmp_path)
    run(NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    tarball = run(NPM, "pack", str(ROOT / "static"), "--silent").strip()
    packed = tmp_path / "node_modules" / "pushserver-client"
    packed.mkdir()
    run("tar", "-xzf", tarball, "-C", str(packed), "--strip-components", "1")
    assert not (packed / "demo").exists()
    (tmp_path / "example.ts").write_text(EXAMPLE)
    strict = ["--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    run("node_modules/.bin/tsc", *strict, "--lib", "es2022,dom", "example.ts")
    run("node_modules/.bin/esbuild", "example.ts", "--bundle", "--global-name=example", "--outfile=example.js")
    server.publish_ok(stream, "From a bundle")
    with browser() as chromium, chromium.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"{server.url}/")
        page.add_script_tag(path=str(tmp_path / "example.js"))
        assert page.evaluate("(url) => example.follow(url)", f"/streams/{stream}/ws") == ["From a bundle"]
