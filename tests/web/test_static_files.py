"""Static files come from memory, in each coding, and are asked for again only where they changed."""

from __future__ import annotations

import gzip

import brotli
import pytest

from ..support.server import ROOT, Running

FILES = ["page.js", "page.css", "stream.js", "icon.svg", "demo/harbour.svg"]


def load(server: Running, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.http.stream("GET", path, headers={"Accept-Encoding": "identity", **fields}) as answer:
        return answer.status_code, dict(answer.headers), b"".join(answer.iter_raw())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_same_in_every_coding(server: Running, name: str) -> None:
    content = (ROOT / "static" / name).read_bytes()
    decoders = {"identity": bytes, "gzip": gzip.decompress, "br": brotli.decompress}
    for coding in decoders:
        status, headers, body = load(server, f"/static/{name}", Accept_Encoding=coding)
        named = headers.get("content-encoding", "identity")
        assert (status, decoders[named](body)) == (200, content)
        assert named == (coding if len(content) >= 1_024 else "identity")
        assert (headers["cache-control"], headers["vary"]) == ("no-cache", "Accept-Encoding")
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
    assert {k: v for k, v in head.headers.items() if k != "date"} == {
        k: v for k, v in get.headers.items() if k != "date"
    }


def test_the_style_sheet_is_at_most_8_kb_on_the_wire(server: Running) -> None:
    response = server.http.get("/static/page.css", headers={"Accept-Encoding": "gzip"})
    assert int(response.headers["content-length"]) <= 8_000
