"""The JSON-LD in the head of pages, as crawlers read it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pushserver.model import StoredEntry, StoredPage
from pushserver.page import jsonld
from pushserver.page.edition import Edition
from pushserver.page.masthead import Masthead

from ..support.samples import ENTRY, PAGE, STORED_ENTRY, STORED_PAGE
from ..support.server import Running, Served
from ..support.worker import Serve


def read_json_ld(server: Served, path: str) -> dict[str, Any]:
    html = server.http.get(path, headers={"Accept": "text/html"}).text
    (text,) = re.findall(r'<script id="json-ld" type="application/ld\+json">(.*?)</script>', html, re.DOTALL)
    fields: dict[str, Any] = json.loads(text)
    return fields


def blog_of(edition: Edition, entries: list[StoredEntry]) -> str:
    """The description of a live blog with these entries."""
    updates = [jsonld.update(edition, entry) for entry in entries]
    return jsonld.live_blog(edition, updates, [jsonld.credits_of(edition, entry) for entry in entries])


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
        f"../streams/{stream}",
    )
    assert (blog["coverageStartTime"], blog["datePublished"]) == ("2023-07-11T08:00:00-04:00",) * 2
    assert "coverageEndTime" not in blog
    (update,) = blog["liveBlogUpdate"]
    assert (update["headline"], update["articleBody"]) == ("Four </script>", "One two three & four The harbour.")
    assert (update["datePublished"], update["url"]) == ("2023-07-11T11:53:00-04:00", f"..{path}#e-first")
    assert [author["name"] for author in update["author"]] == ["Ada Brook", "Cy Roe"]
    assert update["correction"]["text"] == "It was three."
    assert read_json_ld(server, f"{path}/entries/first")["url"] == f"../../..{path}/entries/first"
    server.send("POST", f"{path}/end", {})
    assert read_json_ld(server, path)["coverageEndTime"]


def test_crawlers_are_told_who_publishes_and_what_in_every_update(serve: Serve, stream: str) -> None:
    server = serve("--public-url", "https://news.example/live")
    server.publish(stream, {"headline": "Nothing but this"})
    server.publish(stream, {"body": "word " * 1_000})
    blog = read_json_ld(server, f"/streams/{stream}")
    site = {"@type": "Organization", "name": "news.example", "url": "https://news.example/live/"}
    long, short = blog["liveBlogUpdate"]
    assert [part["author"] for part in (blog, long, short)] == [site] * 3
    assert blog["publisher"] == site
    assert short["articleBody"] == "Nothing but this"
    assert long["articleBody"] == "word " * 198 + "word…"


def test_what_is_imported_was_published_before_it_was_imported(server: Running, stream: str) -> None:
    server.publish(stream, {"headline": "One", "published_at": "2023-07-11T15:53:00Z"})
    blog = read_json_ld(server, f"/streams/{stream}")
    assert blog["datePublished"] == blog["coverageStartTime"] == blog["liveBlogUpdate"][0]["datePublished"]


def test_a_stream_with_nothing_but_a_page_is_described(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Nothing yet", "lang": "ar", "dir": "rtl"})
    blog = read_json_ld(server, f"/streams/{stream}")
    assert (blog["inLanguage"], blog["liveBlogUpdate"]) == ("ar", [])
    assert "image" not in blog


@pytest.mark.parametrize("text", ["</script><script>", "<!--", "a & b", "one\u2028two\u2029three", '"\\'])
def test_no_text_ends_the_script_element_that_it_stands_in(text: str) -> None:
    page: StoredPage = {**STORED_PAGE, "headline": text, "updated_at": "2023-07-11T15:53:00.000Z"}
    html = blog_of(Edition("https://news.example", "storm", page, [], "2023-07-11T15:53:00.000Z"), [])
    assert not set(html) & set("<>&\u2028\u2029")
    assert json.loads(html)["headline"] == text


def test_authors_have_the_organisations_of_their_bylines() -> None:
    page: StoredPage = {**STORED_PAGE, "updated_at": "2023-07-11T15:53:00.000Z"}
    bylines: list[Any] = [{"name": "Ada", "org": "Wire"}, {"name": "Ada", "org": "Post"}, {"name": "Ben"}]
    entry: StoredEntry = {**STORED_ENTRY, "id": "x", "bylines": bylines, "published_at": "2023-07-11T15:53:00.000Z"}
    edition = Edition("https://news.example", "storm", page, [], "2023-07-11T15:53:00.000Z")
    expected = [
        {"@type": "Person", "name": "Ada", "affiliation": {"@type": "Organization", "name": "Wire"}},
        {"@type": "Person", "name": "Ada", "affiliation": {"@type": "Organization", "name": "Post"}},
        {"@type": "Person", "name": "Ben"},
    ]
    blog = json.loads(blog_of(edition, [entry, entry]))
    assert blog["author"] == blog["liveBlogUpdate"][0]["author"] == expected
    assert json.loads(jsonld.posting(edition, entry))["author"] == expected


@pytest.mark.parametrize("text", ["</script>", "“Ada” & \\", "[]"])
def test_authors_and_the_first_picture_come_from_every_entry(text: str) -> None:
    """Also from entries that are too old to be described themselves."""
    picture = {"type": "image", "src": "/a.jpg", "width": 12, "height": 8, "alt": "", "caption": text, "credit": "x"}
    plain: StoredEntry = {**STORED_ENTRY, "blocks": [], "bylines": [{"name": "Cy"}]}
    last: StoredEntry = {**STORED_ENTRY, "blocks": [picture], "bylines": [{"name": text}]}
    html = blog_of(EDITION, [plain] * jsonld.UPDATES + [last])
    blog = json.loads(html)
    assert [author["name"] for author in blog["author"]] == ["Cy", text]
    assert [image["caption"] for image in blog["image"]] == [text]
    assert len(blog["liveBlogUpdate"]) == jsonld.UPDATES
    assert not set(html) & set("<>&")


def test_a_page_describes_its_newest_entries_alone() -> None:
    """Every reader of the page loads what is described."""
    page: StoredPage = {**STORED_PAGE, "updated_at": "2023-07-11T15:53:00.000Z"}
    entries: list[StoredEntry] = [
        {**STORED_ENTRY, "id": f"e{number}", "published_at": "2023-07-11T15:53:00.000Z"} for number in range(60)
    ]
    edition = Edition("https://news.example", "storm", page, [], "2023-07-11T15:53:00.000Z")
    updates = json.loads(blog_of(edition, entries))["liveBlogUpdate"]
    assert [update["url"].rpartition("#")[2] for update in updates] == [f"e-e{number}" for number in range(50)]


MASTHEAD = Masthead("The Courier", "https://news.example/logo.png", "@courier")
EDITION = Edition("https://news.example", "storm", STORED_PAGE, [], "2023-07-11T15:53:00.000Z", masthead=MASTHEAD)


def test_the_publisher_is_named_as_the_site_is() -> None:
    logo = {"@type": "ImageObject", "url": "https://news.example/logo.png"}
    publisher = {"@type": "Organization", "name": "The Courier", "url": "https://news.example/", "logo": logo}
    blog = json.loads(blog_of(EDITION, []))
    assert blog["publisher"] == blog["author"] == publisher
    assert json.loads(jsonld.posting(EDITION, STORED_ENTRY))["publisher"] == publisher


def test_authors_have_their_organisation_and_pictures_their_credit() -> None:
    picture = {"src": "/a.jpg", "width": 12, "height": 8, "alt": "x", "caption": "The quay", "credit": "Ada/Wire"}
    people = [{"name": "Ada", "org": "Wire", "role": "Reporter"}, {"name": "Ben"}]
    entry: StoredEntry = {**STORED_ENTRY, "blocks": [{"type": "image", **picture}], "bylines": people, "tags": ["sea"]}
    update = json.loads(jsonld.update(EDITION, entry))
    assert update["author"] == [
        {
            "@type": "Person",
            "name": "Ada",
            "jobTitle": "Reporter",
            "affiliation": {"@type": "Organization", "name": "Wire"},
        },
        {"@type": "Person", "name": "Ben"},
    ]
    assert update["image"] == [
        {
            "@type": "ImageObject",
            "url": "https://news.example/a.jpg",
            "width": 12,
            "height": 8,
            "caption": "The quay",
            "creditText": "Ada/Wire",
        }
    ]
    assert update["keywords"] == ["sea"]
