"""Static files come from memory, in each coding, and are asked for again only where they changed."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import brotli
import pytest

from pushserver.surfaces.codings import ContentCoding
from pushserver.web.cache_control import cache_control
from pushserver.web.modules import compact, join
from pushserver.web.static_files import FIRST, IMMUTABLE, PAGE, StaticSet

from ..support.server import ROOT, Running

FILES = ["page.js", "page.css", "stream.js", "icon.svg", "demo/harbour.svg"]


def sent(name: str) -> bytes:
    """The content of a file as browsers get it."""
    scripts = {path.name: path.read_text() for path in (ROOT / "static").glob("*.js")}
    if name in (FIRST, PAGE):
        return join(name, scripts).encode()
    return compact(scripts[name]).encode() if name in scripts else (ROOT / "static" / name).read_bytes()


def load(server: Running, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.http.stream("GET", path, headers={"Accept-Encoding": "identity", **fields}) as answer:
        return answer.status_code, dict(answer.headers), b"".join(answer.iter_raw())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_same_in_every_coding(server: Running, name: str) -> None:
    content = sent(name)
    decoders = {"identity": bytes, "gzip": gzip.decompress, "br": brotli.decompress}
    for coding in decoders:
        status, headers, body = load(server, f"/static/{name}", Accept_Encoding=coding)
        named = headers.get("content-encoding", "identity")
        assert (status, decoders[named](body)) == (200, content)
        assert named == (coding if len(content) >= 1_024 else "identity")
        assert (headers["cache-control"], headers["vary"]) == (cache_control(1), "Accept-Encoding")
        assert headers["content-length"] == str(len(body))


def test_a_copy_that_is_current_is_not_sent_again(server: Running) -> None:
    _, headers, _ = load(server, "/static/page.js")
    status, again, body = load(server, "/static/page.js", If_None_Match=headers["etag"])
    assert (status, again["etag"], body) == (304, headers["etag"], b"")
    assert load(server, "/static/page.js", If_None_Match='"other"')[0] == 200
    assert load(server, "/static/page.js", If_None_Match=headers["etag"], Accept_Encoding="br")[0] == 200


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.js", "text/javascript; charset=utf-8"),
        ("page.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_has_the_media_type_that_browsers_need(server: Running, name: str, kind: str) -> None:
    assert load(server, f"/static/{name}")[1]["content-type"] == kind


def test_head_is_get_without_a_body(server: Running) -> None:
    head = server.http.head("/static/page.js", headers={"Accept-Encoding": "gzip"})
    get = server.http.get("/static/page.js", headers={"Accept-Encoding": "gzip"})
    assert (head.status_code, head.content) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k not in ("date", "x-request-id")} == {
        k: v for k, v in get.headers.items() if k not in ("date", "x-request-id")
    }


def test_the_style_sheet_is_at_most_8_kb_on_the_wire(server: Running) -> None:
    response = server.http.get("/static/page.css", headers={"Accept-Encoding": "gzip"})
    assert int(response.headers["content-length"]) <= 8_000


# --- builds


@pytest.fixture(scope="module")
def build(server: Running) -> str:
    """The hash of the server's set of files."""
    return StaticSet(ROOT / "static").site.build


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_this_build_is_for_ever(server: Running, build: str, name: str) -> None:
    status, headers, body = load(server, f"/static/{build}/{name}")
    assert (status, body) == (200, sent(name))
    assert headers["cache-control"] == IMMUTABLE
    assert load(server, f"/static/{build}/{name}", If_None_Match=headers["etag"])[0] == 304


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://other.example"}])
def test_another_build_has_today_s_files_for_now(server: Running, build: str, headers: dict[str, str]) -> None:
    status, answered, body = load(server, "/static/0123456789abcdef/page.js", **headers)
    assert (status, answered["cache-control"]) == (200, "no-cache")
    assert body == sent("page.js")
    assert load(server, f"/static/{build}/page.js", **headers)[1]["cache-control"] == IMMUTABLE
    for path in ("none.js", f"{build}/none.js", "0123456789abcdef/none.js", "0123/page.js", f"{build}/{build}/page.js"):
        assert load(server, f"/static/{path}", **headers)[0] == 404
    assert server.http.post(f"/static/{build}/page.js").status_code == 405


def test_a_page_names_the_files_of_its_build(server: Running, build: str, stream: str) -> None:
    server.publish_ok(stream, "One")
    html = server.http.get(f"/streams/{stream}").text
    for name in re.findall('(?:href|src)="[^"]*/static/([^"]*)"', html):
        assert name.startswith(f"{build}/")
        assert load(server, f"/static/{name}")[1]["cache-control"] == IMMUTABLE
    assert f'data-build="{build}"' in html


def test_a_page_names_every_module_that_it_loads(tmp_path: Path) -> None:
    modules = {
        FIRST: 'import("./page.js").catch(() => 1);\n',
        "page.js": 'import { a } from "./a.js";\n/** @type {import("./t.js").T} */\na();\n',
        "a.js": 'import { b } from "./b.js";\nexport const a = () => import("./later.js");\n',
        "b.js": 'export const b = "./no.js";\n',
        **dict.fromkeys(("later.js", "t.js", "no.js", "other.js"), ""),
    }
    for name, source in modules.items():
        (tmp_path / name).write_text(source)
    assert StaticSet(tmp_path).site.modules == (FIRST, "page.js", "later.js")


def test_a_server_may_have_caches_ask_for_files_each_time(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    for seconds in (0, 10):
        files = StaticSet(tmp_path, cache_control=cache_control(seconds))
        for path, expected in (("a.js", cache_control(seconds)), (f"{'0' * 16}/a.js", "no-cache")):
            codings = files.find(f"/static/{path}")
            assert codings
            assert dict(codings[ContentCoding.IDENTITY].headers)[b"cache-control"] == expected.encode()


def test_every_change_of_a_file_is_another_build(tmp_path: Path) -> None:
    builds = set()
    for name, text in [("a.js", "1"), ("a.js", "2"), ("b.css", ""), ("b.css", "2")]:
        (tmp_path / name).write_text(text)
        builds.add(StaticSet(tmp_path).site.build)
    assert len(builds) == 4
