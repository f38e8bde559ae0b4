"""The feeds and the JSON-LD, as those who read such things read them."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any
from xml.etree import ElementTree as xml

import pytest

from ..support.server import Running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feedparser

PAGE = {
    "headline": "Türkiye & the “bridge” <live>",
    "dek": "What is known.",
    "timezone": "America/New_York",
    "lang": "en-US",
    "coverage_start": "2023-07-11T12:00:00Z",
    "topics": [{"label": "Türkiye"}],
}
ENTRY = {
    "headline": "Tom & Jerry </script><!-- 🎉",
    "blocks": [
        {"type": "paragraph", "html": "One <b>two</b><br>three &amp; four"},
        {
            "type": "image",
            "src": "/static/demo/harbour.svg",
            "width": 12,
            "height": 8,
            "alt": "A harbour",
            "caption": "The harbour.",
            "credit": "Ada",
        },
    ],
    "bylines": [{"name": "Ada Brook", "org": "The Courier"}, {"name": "Cy Roe"}],
    "tags": ["bridge"],
    "published_at": "2023-07-11T15:53:00Z",
}


def read_atom(server: Running, stream: str) -> Any:
    response = server.http.get(f"/streams/{stream}/feed.atom")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/atom+xml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        feed = feedparser.parse(response.content)
    assert not feed.bozo, feed.bozo_exception
    return feed


def read_json_ld(server: Running, path: str) -> dict[str, Any]:
    html = server.http.get(path, headers={"Accept": "text/html"}).text
    (text,) = re.findall(r'<script id="json-ld" type="application/ld\+json">(.*?)</script>', html, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_feed_reader_reads_the_atom_feed(server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.send("PUT", f"/streams/{stream}/entries/first", ENTRY)
    server.send("PUT", f"/streams/{stream}/entries/second", {"body": "No headline, *only* text."})
    server.send("PATCH", f"/streams/{stream}/entries/first", {"tags": ["bridge", "sea"]})
    server.send("PATCH", f"/streams/{stream}/entries/second", {"body": "No headline, still."})
    feed = read_atom(server, stream)
    url = f"{server.url}/streams/{stream}"
    assert (feed.feed.title, feed.feed.id, feed.feed.subtitle) == (PAGE["headline"], url, PAGE["dek"])
    assert feed.feed.updated == server.snapshot(stream)["page"]["updated_at"]
    second, first = feed.entries
    assert (first.id, first.link, first.title) == (f"{url}/entries/first", f"{url}/entries/first", ENTRY["headline"])
    assert (first.published, first.updated) == ("2023-07-11T15:53:00.000Z",) * 2
    assert [author.name for author in first.authors] == ["Ada Brook", "Cy Roe"]
    assert [tag.term for tag in first.tags] == ["bridge", "sea"]
    assert f'src="{server.url}/static/demo/harbour.svg"' in first.content[0].value
    assert "three &amp; four" in first.content[0].value
    assert second.title == "No headline, still."
    assert second.updated > second.published


def test_a_withdrawn_entry_has_a_tombstone(server: Running, stream: str) -> None:
    server.send("PUT", f"/streams/{stream}/entries/first", ENTRY)
    server.send("DELETE", f"/streams/{stream}/entries/first?note=It+was+%3Cwrong%3E.", b"")
    assert read_atom(server, stream).entries == []
    root = xml.fromstring(server.http.get(f"/streams/{stream}/feed.atom").content)
    (tombstone,) = root.iter("{http://purl.org/atompub/tombstones/1.0}deleted-entry")
    assert tombstone.attrib["ref"] == f"{server.url}/streams/{stream}/entries/first"
    assert tombstone.attrib["when"] == root.findtext("{http://www.w3.org/2005/Atom}updated")
    assert [child.text for child in tombstone] == ["It was <wrong>."]


def test_the_json_feed_has_what_its_version_asks_for(server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.send("PUT", f"/streams/{stream}/entries/first", ENTRY)
    response = server.http.get(f"/streams/{stream}/feed.json")
    feed = response.json()
    assert response.headers["content-type"] == "application/feed+json"
    assert (feed["version"], feed["title"]) == ("https://jsonfeed.org/version/1.1", PAGE["headline"])
    assert "expired" not in feed
    (item,) = feed["items"]
    assert item["id"] == item["url"] == f"{feed['home_page_url']}/entries/first"
    assert (item["tags"], item["authors"][0]) == (["bridge"], {"name": "Ada Brook"})
    assert item["image"] == f"{server.url}/static/demo/harbour.svg"
    assert "<b>two</b>" in item["content_html"]
    server.send("POST", f"/streams/{stream}/end", {})
    assert server.http.get(f"/streams/{stream}/feed.json").json()["expired"] is True


def test_the_page_tells_crawlers_what_it_is(server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    path = f"/streams/{stream}"
    server.send("PUT", f"{path}/entries/first", ENTRY)
    correction = {"class": "correction", "note": "It was three."}
    server.send("PATCH", f"{path}/entries/first", {"headline": "Four </script>", "correction": correction})
    blog = read_json_ld(server, path)
    assert (blog["@type"], blog["headline"], blog["url"]) == (
        "LiveBlogPosting",
        PAGE["headline"],
        server.url + path,
    )
    assert (blog["coverageStartTime"], blog["datePublished"]) == ("2023-07-11T08:00:00-04:00",) * 2
    assert "coverageEndTime" not in blog
    (update,) = blog["liveBlogUpdate"]
    assert (update["headline"], update["articleBody"]) == ("Four </script>", "One two three & four The harbour.")
    assert (update["datePublished"], update["url"]) == ("2023-07-11T11:53:00-04:00", f"{server.url}{path}#e-first")
    assert [author["name"] for author in update["author"]] == ["Ada Brook", "Cy Roe"]
    assert update["correction"]["text"] == "It was three."
    assert read_json_ld(server, f"{path}/entries/first")["url"] == f"{server.url}{path}/entries/first"
    server.send("POST", f"{path}/end", {})
    assert read_json_ld(server, path)["coverageEndTime"]


def test_crawlers_are_told_who_publishes_and_what_in_every_update(server: Running, stream: str) -> None:
    server.publish(stream, {"headline": "Nothing but this"})
    server.publish(stream, {"body": "word " * 1_000})
    blog = read_json_ld(server, f"/streams/{stream}")
    site = {"@type": "Organization", "name": server.url.removeprefix("http://"), "url": f"{server.url}/"}
    long, short = blog["liveBlogUpdate"]
    assert [part["author"] for part in (blog, long, short)] == [site] * 3
    assert blog["publisher"] == site
    assert short["articleBody"] == "Nothing but this"
    assert long["articleBody"] == "word " * 198 + "word…"


def test_what_is_imported_was_published_before_it_was_imported(server: Running, stream: str) -> None:
    server.publish(stream, {"headline": "One", "published_at": "2023-07-11T15:53:00Z"})
    blog = read_json_ld(server, f"/streams/{stream}")
    assert blog["datePublished"] == blog["coverageStartTime"] == blog["liveBlogUpdate"][0]["datePublished"]


@pytest.mark.parametrize(
    ("body", "title"), [("word " * 40, "word " * 18 + "word…"), ("字" * 200, "字" * 99 + "…"), ("Short.", "Short.")]
)
def test_an_entry_without_a_headline_has_its_beginning_for_a_title(
    server: Running, stream: str, body: str, title: str
) -> None:
    server.publish(stream, {"body": body})
    assert read_atom(server, stream).entries[0].title == title


def test_an_entry_that_is_read_from_right_to_left_says_so_wherever_it_is_shown(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "تحديثات", "lang": "ar", "dir": "rtl"})
    server.publish(stream, {"headline": "خبر", "body": "نص الخبر"})
    (entry,) = read_atom(server, stream).entries
    (item,) = server.http.get(f"/streams/{stream}/feed.json").json()["items"]
    assert entry.content[0].value.startswith('<div dir="rtl"><p>نص الخبر</p>')
    assert item["content_html"].startswith('<div dir="rtl"><p>نص الخبر</p>')
    assert entry.content[0].language == "ar"


@pytest.mark.parametrize("name", ["feed.atom", "feed.json"])
def test_the_same_state_is_the_same_bytes_and_is_not_sent_twice(server: Running, stream: str, name: str) -> None:
    server.publish(stream, ENTRY)
    path = f"/streams/{stream}/{name}"
    first, again = server.http.get(path), server.http.get(path)
    assert (first.content, first.headers["etag"]) == (again.content, again.headers["etag"])
    assert server.http.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    server.publish_ok(stream, "another")
    assert server.http.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_a_stream_with_nothing_but_a_page_has_feeds(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Nothing yet", "lang": "ar", "dir": "rtl"})
    assert read_atom(server, stream).entries == []
    assert server.http.get(f"/streams/{stream}/feed.json").json()["items"] == []
    assert read_json_ld(server, f"/streams/{stream}")["inLanguage"] == "ar"


@pytest.mark.parametrize("name", ["feed.atom", "feed.json"])
def test_a_stream_that_is_not_there_has_no_feed(server: Running, stream: str, name: str) -> None:
    assert server.http.get(f"/streams/{stream}/{name}").status_code == 404
