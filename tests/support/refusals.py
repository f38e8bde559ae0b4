"""A test reads here what a refusal says."""

from __future__ import annotations

import httpx2


def problem(response: httpx2.Response, status: int) -> list[dict[str, str]]:
    """The faults of a refusal, which is a problem+json that says of each what was expected and what came."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:pushserver:problem:")
    assert body["title"]
    assert body["detail"]
    faults: list[dict[str, str]] = body.get("errors", [])
    for fault in faults:
        assert set(fault) == {"field", "expected", "got"}
        assert all(fault.values()), fault
    return faults
