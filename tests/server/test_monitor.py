"""The operators' listener: what it answers, and that nothing of it is on the public one."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from pushserver.server.exposition import OPENMETRICS, TEXT

from ..support.scrapes import ask, metrics_url, status
from ..support.server import LIMIT, Running, until


def test_metrics_and_status_are_answered_and_nothing_else(server: Running) -> None:
    answer = ask(server, "/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, TEXT)
    assert answer.headers["cache-control"] == "no-store"
    assert ask(server, "/metrics", Accept="application/openmetrics-text").headers["content-type"] == OPENMETRICS
    assert ask(server, "/metrics", method="HEAD").content == b""
    until(lambda: status(server)["workers"][0]["ready"] is True)
    assert ask(server, "/status.json", method="POST").status_code == 405
    assert ask(server, "/streams/x").status_code == 404


@pytest.mark.parametrize("path", ["/metrics", "/status.json"])
def test_the_public_listener_has_none_of_it(server: Running, path: str) -> None:
    assert server.http.get(path).status_code == 404


@pytest.mark.full
def test_a_client_that_sends_no_request_is_not_waited_for(server: Running) -> None:
    address = urlsplit(metrics_url(server))
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=LIMIT) as silent:
        silent.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert ask(server, "/status.json").status_code == 200
        assert silent.recv(1) == b"", "its head has a limit in time"
