"""The feeds, as feed readers read them."""

from __future__ import annotations

import warnings
from typing import Any
from uuid import UUID, uuid5
from xml.etree import ElementTree as xml

import pytest

from ..support.samples import ENTRY, PAGE
from ..support.server import Served
from ..support.worker import Serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feedparser


def read_atom(server: Served, stream: str) -> Any:
    response = server.http.get(f"/streams/{stream}/feed.atom")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/atom+xml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        feed = feedparser.parse(response.content)
    assert not feed.bozo, feed.bozo_exception
    return feed


def test_a_feed_reader_reads_the_atom_feed(server: Served, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.send("PUT", f"/streams/{stream}/entries/first", ENTRY)
    server.send("PUT", f"/streams/{stream}/entries/second", {"body": "No headline, *only* text."})
    server.send("PATCH", f"/streams/{stream}/entries/first", {"tags": ["bridge", "sea"]})
    server.send("PATCH", f"/streams/{stream}/entries/second", {"body": "No headline, still."})
    feed = read_atom(server, stream)
    url, feed_id = f"../../streams/{stream}", feed.feed.id
    assert feed_id == UUID(feed_id).urn
    assert (feed.feed.title, feed.feed.id, feed.feed.subtitle) == (PAGE["headline"], feed_id, PAGE["dek"])
    assert feed.feed.updated == server.snapshot(stream)["page"]["updated_at"]
    second, first = feed.entries
    assert (first.id, first.link) == (uuid5(UUID(feed_id), "first").urn, f"{url}/entries/first")
    assert first.title == ENTRY["headline"]
    assert (first.published, first.updated) == ("2023-07-11T15:53:00.000Z",) * 2
    assert [author.name for author in first.authors] == ["Ada Brook, The Courier", "Cy Roe"]
    assert [tag.term for tag in first.tags] == ["bridge", "sea"]
    assert 'src="/static/demo/harbour.svg"' in first.content[0].value
    assert "three &amp; four" in first.content[0].value
    assert second.title == "No headline, still."
    assert second.updated > second.published


def test_a_withdrawn_entry_has_a_tombstone(server: Served, stream: str) -> None:
    server.send("PUT", f"/streams/{stream}/entries/first", ENTRY)
    server.send("DELETE", f"/streams/{stream}/entries/first?note=It+was+%3Cwrong%3E.", b"")
    assert read_atom(server, stream).entries == []
    root = xml.fromstring(server.http.get(f"/streams/{stream}/feed.atom").content)
    (tombstone,) = root.iter("{http://purl.org/atompub/tombstones/1.0}deleted-entry")
    feed_id = root.findtext("{http://www.w3.org/2005/Atom}id")
    assert tombstone.attrib["ref"] == uuid5(UUID(feed_id), "first").urn
    assert tombstone.attrib["when"] == root.findtext("{http://www.w3.org/2005/Atom}updated")
    comment, link = tombstone
    assert comment.text == "It was <wrong>."
    assert link.attrib["href"] == f"../../streams/{stream}/entries/first"


def test_the_json_feed_has_what_its_version_asks_for(server: Served, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.send("PUT", f"/streams/{stream}/entries/first", ENTRY)
    response = server.http.get(f"/streams/{stream}/feed.json")
    feed = response.json()
    assert response.headers["content-type"] == "application/feed+json"
    assert (feed["version"], feed["title"]) == ("https://jsonfeed.org/version/1.1", PAGE["headline"])
    assert "expired" not in feed
    (item,) = feed["items"]
    assert item["url"] == f"{feed['home_page_url']}/entries/first"
    assert item["id"] == read_atom(server, stream).entries[0].id
    assert (item["tags"], item["authors"][0]) == (["bridge"], {"name": "Ada Brook, The Courier"})
    assert item["image"] == "/static/demo/harbour.svg"
    assert "<b>two</b>" in item["content_html"]
    server.send("POST", f"/streams/{stream}/end", {})
    assert server.http.get(f"/streams/{stream}/feed.json").json()["expired"] is True


@pytest.mark.parametrize(
    ("body", "title"), [("word " * 40, "word " * 18 + "word…"), ("字" * 200, "字" * 99 + "…"), ("Short.", "Short.")]
)
def test_an_entry_without_a_headline_has_its_beginning_for_a_title(
    server: Served, stream: str, body: str, title: str
) -> None:
    server.publish(stream, {"body": body})
    assert read_atom(server, stream).entries[0].title == title


def test_an_entry_that_is_read_from_right_to_left_says_so_wherever_it_is_shown(server: Served, stream: str) -> None:
    server.put_page(stream, {"headline": "تحديثات", "lang": "ar", "dir": "rtl"})
    server.publish(stream, {"headline": "خبر", "body": "نص الخبر"})
    (entry,) = read_atom(server, stream).entries
    (item,) = server.http.get(f"/streams/{stream}/feed.json").json()["items"]
    assert entry.content[0].value.startswith('<div dir="rtl"><p dir="auto">نص الخبر</p>')
    assert item["content_html"].startswith('<div dir="rtl"><p dir="auto">نص الخبر</p>')
    assert entry.content[0].language == "ar"


@pytest.mark.parametrize("name", ["feed.atom", "feed.json"])
def test_the_same_state_is_the_same_bytes_and_is_not_sent_twice(server: Served, stream: str, name: str) -> None:
    server.publish(stream, ENTRY)
    path = f"/streams/{stream}/{name}"
    first, again = server.http.get(path), server.http.get(path)
    assert (first.content, first.headers["etag"]) == (again.content, again.headers["etag"])
    assert server.http.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    server.publish_ok(stream, "another")
    assert server.http.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 200


def test_a_stream_with_nothing_but_a_page_has_feeds(server: Served, stream: str) -> None:
    server.put_page(stream, {"headline": "Nothing yet", "lang": "ar", "dir": "rtl"})
    assert read_atom(server, stream).entries == []
    assert server.http.get(f"/streams/{stream}/feed.json").json()["items"] == []


@pytest.mark.parametrize("name", ["feed.atom", "feed.json"])
def test_a_stream_that_is_not_there_has_no_feed(server: Served, stream: str, name: str) -> None:
    assert server.http.get(f"/streams/{stream}/{name}").status_code == 404


# --- ids


def ids(server: Served, stream: str) -> list[str]:
    """The ids of a stream's feeds and of its entries, the same in both feeds."""
    feed, items = read_atom(server, stream), server.http.get(f"/streams/{stream}/feed.json").json()["items"]
    assert [item["id"] for item in items] == [entry.id for entry in feed.entries]
    return [feed.feed.id, *(item["id"] for item in items)]


def test_ids_never_change_with_the_address(serve: Serve, stream: str) -> None:
    server = serve()
    server.publish_ok(stream, "One")
    before = ids(server, stream)
    server = serve("--public-url", "https://news.example")
    assert ids(server, stream) == before
    assert server.http.get(f"/streams/{stream}/feed.json", headers={"Host": "evil.example"}).json()["items"]
