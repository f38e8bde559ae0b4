"""Every fault has a line for each of the three proxies."""

from __future__ import annotations

import pytest

from pushserver.doctor.remedies import NAMES, REMEDIES, proxy_of, remedy


@pytest.mark.parametrize("fault", REMEDIES)
def test_every_fault_has_a_line_for_each_proxy(fault: str) -> None:
    lines = remedy(fault, seconds=90).splitlines()
    assert [line.partition(":")[0] for line in lines] == [*NAMES.values()]
    assert "{seconds}" not in "".join(lines)
    assert "{{" not in "".join(lines)
    for proxy, name in NAMES.items():
        (line,) = remedy(fault, proxy, seconds=90).splitlines()
        assert line.startswith(f"{name}: ")


def test_a_proxy_shows_itself_by_its_headers() -> None:
    assert proxy_of({"server": "nginx/1.22.1"}) == "nginx"
    assert proxy_of({"server": "Caddy"}) == "caddy"
    assert proxy_of({"via": "1.1 Caddy", "server": "x"}) == "caddy"
    assert proxy_of({}) == ""
