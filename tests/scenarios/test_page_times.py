"""Times on a live page, with a browser's clock that is wrong, and over a change of the clocks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from ..support.pages import NEEDS_CHROMIUM, PAGE, assert_same_as_fresh, faultless_page, open_live, put
from ..support.server import Running

pytestmark = NEEDS_CHROMIUM
# In New York clocks go from 2:00 to 3:00 on March 8, 2026, at 7:00 UTC; in Madrid on March 29, at 1:00 UTC.
BEFORE, AFTER, BETWEEN = "2026-03-08T06:59:00Z", "2026-03-08T07:00:00Z", "2026-03-29T00:30:00Z"


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with faultless_page(chromium, timezone_id="Europe/Madrid", locale="en-US") as page:
        yield page


@pytest.mark.parametrize("wrong", [-3600, 3600])
def test_with_a_clock_that_is_wrong_by_an_hour_ages_and_times_are_right(
    page: Page, server: Running, stream: str, wrong: int
) -> None:
    server.put_page(stream, PAGE)
    put(server, stream, "before", published_at=BEFORE)
    put(server, stream, "now")
    page.add_init_script(f"const now = Date.now; Date.now = () => now() + {wrong * 1000};")
    open_live(page, server, stream)
    stamp = page.locator("#e-now .stamp time")
    expect(stamp).to_have_attribute("data-local-ago", "now")
    expect(page.locator("#e-before .stamp")).to_contain_text("Mar 8, 2026, 1:59 AM EST")
    expect(page.locator("#e-before .stamp time")).not_to_have_attribute("data-local-ago", "now")
    assert_same_as_fresh(page, server, stream)


def test_over_a_change_of_the_clocks_each_time_has_the_zone_of_its_instant(
    page: Page, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    for id, at in (("before", BEFORE), ("after", AFTER), ("between", BETWEEN)):
        put(server, stream, id, published_at=at)
        expect(page.locator(f"#e-{id}")).to_be_attached()
    expect(page.locator("#e-before .stamp")).to_contain_text("1:59 AM EST")
    expect(page.locator("#e-after .stamp")).to_contain_text("3:00 AM EDT")
    page.locator("#zone").click()
    own = [
        page.locator(f"#e-{id} .stamp time").get_attribute("data-local-time") for id in ("before", "after", "between")
    ]
    assert own == ["Mar 8, 7:59 AM GMT+1", "Mar 8, 8:00 AM GMT+1", "Mar 29, 1:30 AM GMT+1"]
    put(server, stream, "later", published_at="2026-03-29T01:00:00Z")
    later = page.locator("#e-later .stamp time")
    expect(later).to_have_attribute("data-local-time", "Mar 29, 3:00 AM GMT+2")
    assert_same_as_fresh(page, server, stream)
