"""The live demo publishes a made-up storm: its earlier entries at once, its later ones one by one."""

from __future__ import annotations

import json
import logging
import shlex
import time
from importlib import resources
from typing import Any

import httpx2

from .. import model
from ..client import Publisher, PublishError

logger = logging.getLogger(__name__)

FIRST, EVERY = 6.0, 5.0  # seconds until the first later entry, and between two
NAMES = 100  # demo, demo-2, … are tried until one is free


def begin(url: str, key: str) -> str:
    """Publish the page and the earlier entries to a new stream; return its name."""
    page, entries = _lines()
    started = model.now()
    with Publisher(url, key, direct=True) as publisher:
        stream = _free_stream(url)
        publisher.put_page(stream, page)
        for line in entries:
            if "minutes_before" in line:
                published_at = model.instant(started - line["minutes_before"] * 60_000)
                publisher.publish(stream, {**line["entry"], "published_at": published_at})
    return stream


def go_on(url: str, key: str, stream: str) -> None:
    """Publish the later entries, one by one. An error ends the demo early."""
    _, entries = _lines()
    time.sleep(FIRST)
    try:
        with Publisher(url, key, direct=True) as publisher:
            for line in entries:
                if "minutes_before" not in line:
                    _publish(publisher, stream, line)
                    time.sleep(EVERY)
    except PublishError as error:
        logger.warning("the demo ended early: %s", error)


def _publish(publisher: Publisher, stream: str, line: dict[str, Any]) -> None:
    """Publish the entry of a line, under its id if it has one, or correct the one that it names."""
    if "correction" in line:
        publisher.correct(stream, line["id"], line["correction"])
    elif "id" in line:
        publisher.put_entry(stream, line["id"], line["entry"])
    else:
        publisher.publish(stream, line["entry"])


def _lines() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = resources.files(__package__).joinpath("demo.jsonl").read_text("utf-8").splitlines()
    page, *entries = [json.loads(line) for line in lines]
    return page["page"], entries


def _free_stream(url: str) -> str:
    """Return the first of demo, demo-2, … that does not exist yet, or the last where all exist."""
    for number in range(1, NAMES + 1):
        stream = "demo" if number == 1 else f"demo-{number}"
        if httpx2.get(f"{url}/streams/{stream}/entries?limit=1", trust_env=False).status_code == 404:
            break
    return stream


def curl(url: str, stream: str, key: str) -> str:
    """Return a shell command that publishes an entry; `key` is for the shell, and stands between double quotes."""
    body = json.dumps({"headline": "Hello from the command line", "body": "It **appears** without a reload."})
    return (
        f'curl -H "Authorization: Bearer {key}" -H "Content-Type: application/json" '
        f"-d {shlex.quote(body)} {shlex.quote(f'{url}/streams/{stream}/entries')}"
    )
