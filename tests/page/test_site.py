"""A site names its documents by relative links, and by absolute ones where its public address is known."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from pushserver.page.site import ENTRY, FEED, INDEX, PAGE, Site, root

DOCUMENTS = [("/", INDEX), ("/streams/s", PAGE), ("/streams/s/feed.atom", FEED), ("/streams/s/entries/e", ENTRY)]


@pytest.mark.parametrize("prefix", ["", "/live", "/a/b"])
@pytest.mark.parametrize(("path", "depth"), DOCUMENTS)
def test_links_lead_to_the_server_s_root_below_any_prefix(prefix: str, path: str, depth: int) -> None:
    document = f"https://news.example{prefix}{path}"
    assert urljoin(document, f"{root(depth)}/streams/t") == f"https://news.example{prefix}/streams/t"
    assert urljoin(document, Site().static(depth) + "/page.css") == f"https://news.example{prefix}/static/page.css"
    hashed = Site(build="0123456789abcdef").static(depth)
    assert urljoin(document, hashed) == f"https://news.example{prefix}/static/0123456789abcdef"


def test_what_leaves_a_page_begins_with_the_public_address() -> None:
    site = Site("https://news.example/live")
    assert [site.base(depth) for depth in (PAGE, FEED)] == ["https://news.example/live"] * 2
    assert site.canonical("/streams/s") == "https://news.example/live/streams/s"
    assert (Site().canonical("/streams/s"), Site().base(FEED)) == ("", "../..")
