"""`pushserver import`: each line is added once, and a bad one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pushserver import model

from ..support.commands import (
    DONE,
    ENTRIES,
    PAGE,
    RECORDS,
    REFUSED,
    WRONG_USAGE,
    assert_nothing_stored,
    file_of,
    headlines,
    lines,
    read_until,
    started,
)
from ..support.server import Run, Running


def test_import_of_a_file_adds_it_once(server: Running, stream: str, run: Run, tmp_path: Path) -> None:
    file = file_of(tmp_path, lines(RECORDS[:2]) + b"\n  \n" + lines(RECORDS[2:]))
    first = run("import", stream, file)
    assert (first.returncode, first.stdout) == (DONE, f"{stream}: 4 added, 0 known already\n")
    snapshot = server.snapshot(stream)
    assert snapshot["page"]["headline"] == "Storm & tide"
    assert headlines(server, stream) == [entry["headline"] for entry in ENTRIES]
    assert snapshot["entries"][-1]["published_at"] == "2023-07-10T19:33:00.000Z"
    again = run("import", stream, file)
    assert (again.returncode, again.stdout) == (DONE, f"{stream}: 0 added, 4 known already\n")
    assert server.snapshot(stream) == snapshot


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_import_drops_a_byte_order_mark(server: Running, stream: str, run: Run, tmp_path: Path, mark: bytes) -> None:
    for source in (file_of(tmp_path, mark + lines(RECORDS)), "-"):
        assert run("import", stream, source, input=mark + lines(RECORDS)).returncode == DONE
    assert len(server.snapshot(stream)["entries"]) == 3


def test_import_reads_standard_input(server: Running, stream: str, run: Run) -> None:
    done = run("import", stream, "-", input=lines(RECORDS))
    assert (done.returncode, done.stdout) == (DONE, f"{stream}: 4 added, 0 known already\n")
    assert done.stderr == "", "a bar of progress is for terminals"
    assert len(server.snapshot(stream)["entries"]) == 3


def test_import_of_a_longer_file_adds_what_is_new(server: Running, stream: str, run: Run) -> None:
    assert run("import", stream, "-", input=lines(RECORDS[:3])).returncode == DONE
    done = run("import", stream, "-", input=lines(RECORDS))
    assert (done.returncode, done.stdout) == (DONE, f"{stream}: 1 added, 3 known already\n")


def test_import_of_nothing_adds_nothing(server: Running, stream: str, run: Run) -> None:
    done = run("import", stream, "-", input=b"\n")
    assert (done.returncode, done.stdout) == (DONE, f"{stream}: 0 added, 0 known already\n")
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize(
    ("line", "reasons"),
    [
        (b'{"entry": {"headline": "x"', ["JSON"]),
        (b"not json", ["JSON", "not json"]),
        (b'{"entry": {"headline": "Z\xfcrich"}}', ["UTF-8", "0xfc"]),
        (b'{"entry": {"headline": "x", "headline": "y"}}', ["headline", "twice"]),
        (b'{"article": {"headline": "x"}}', ['{"page"', '{"entry"', "article"]),
        (b'{"entry": {"headline": "x"}, "page": {"headline": "x"}}', ['{"entry"']),
        (b'{"entry": "x"}', ['{"entry"']),
        (b'["entry"]', ['{"entry"']),
        (b'{"entry": {"headline": "x", "titel": "y"}}', ["titel: expected only known fields"]),
        (b'{"page": {"headline": "x", "timezone": "Mars/Olympus"}}', ["timezone: expected an IANA time zone"]),
    ],
)
def test_import_stops_at_a_bad_line_and_says_which(
    server: Running, stream: str, run: Run, tmp_path: Path, line: bytes, reasons: list[str]
) -> None:
    file = file_of(tmp_path, lines(RECORDS[:2]) + b"\n" + line + b"\n" + lines(RECORDS[2:]))
    done = run("import", stream, file)
    assert done.returncode == REFUSED
    assert f"{file}, line 4: " in done.stderr
    assert "\n  stored before it: 2 lines; correct what is wrong, and run the command again" in done.stderr
    assert all(reason in done.stderr for reason in reasons), done.stderr
    assert headlines(server, stream) == ["First flood warning"]


@pytest.mark.parametrize("bad", [b"not json\n", b'{"entry": {"id": "x", "rev": 1}}\n'])
def test_an_export_that_is_damaged_is_restored_up_to_the_bad_line(
    server: Running, stream: str, run: Run, bad: bytes
) -> None:
    for headline in ("One", "Two", "Three"):
        server.publish_ok(stream, headline)
    first, second, *rest = run("export", stream).stdout.encode().splitlines(keepends=True)
    done = run("import", f"{stream}-b", "-", input=first + second + bad + b"".join(rest))
    assert done.returncode == REFUSED
    assert "<stdin>, line 3: " in done.stderr
    assert "\n  stored before it: 2 lines; " in done.stderr
    assert len(server.snapshot(f"{stream}-b")["entries"]) == 1  # the first line is the stream's
    again = run("import", f"{stream}-b", "-", input=first + second + b"".join(rest))
    assert again.stdout == f"{stream}-b: {len(rest)} added, 2 known already\n"


def test_import_with_a_speed_keeps_the_gaps_and_the_order(server: Running, stream: str, run: Run) -> None:
    cursor = server.put_page(stream, PAGE).json()["cursor"]
    done = run("import", stream, "-", "--speed", "200000", input=lines(RECORDS[1:]))
    assert (done.returncode, done.stdout) == (DONE, f"{stream}: 3 added, 0 known already\n")
    assert headlines(server, stream) == [entry["headline"] for entry in ENTRIES]
    with started(server.url, server.data, "tail", stream, "--json", "--cursor", cursor) as process:
        stored_at = [model.milliseconds(json.loads(read_until(process, "\n"))["at"]) for _ in ENTRIES]
    published_at = [model.milliseconds(entry["published_at"]) for entry in ENTRIES]
    for earlier, later in ((0, 1), (1, 2)):
        gap = (published_at[later] - published_at[earlier]) / 200_000
        assert stored_at[later] - stored_at[earlier] >= int(gap)


@pytest.mark.parametrize("speed", ["0", "-1", "x"])
def test_import_at_no_speed_is_wrong_usage(server: Running, stream: str, run: Run, speed: str) -> None:
    assert run("import", stream, "-", "--speed", speed, input=lines(RECORDS)).returncode == WRONG_USAGE
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize("suffix", ["#x", "?x", "/x", " x"])
def test_a_name_that_is_not_one_of_a_stream_reaches_no_other_stream(
    server: Running, stream: str, run: Run, tmp_path: Path, suffix: str
) -> None:
    done = run("import", stream + suffix, file_of(tmp_path, lines(RECORDS[:1])))
    assert done.returncode == REFUSED
    assert "stream: expected 1 to 64 characters" in done.stderr
    assert_nothing_stored(server, stream)
