from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pushserver import model, settings

from ..support.server import ROOT, Run, Running, clean_environment

DONE, REFUSED, WRONG_USAGE, NOT_REACHED = 0, 1, 2, 3

PAGE: dict[str, Any] = {"headline": "Storm & tide", "timezone": "America/New_York", "lang": "en-US"}
ENTRIES: list[dict[str, Any]] = [
    {"headline": "First flood warning", "published_at": "2023-07-10T19:33:00Z", "bylines": [{"name": "Cy Roe"}]},
    {"headline": "Ferries stop", "published_at": "2023-07-11T04:00:00Z", "body": "All are *in port*."},
    {"headline": "Sea wall holds", "published_at": "2023-07-11T15:53:00Z", "tags": ["wall"]},
]
RECORDS: list[dict[str, Any]] = [{"page": PAGE}, *({"entry": entry} for entry in ENTRIES)]


@contextmanager
def started(url: str, data: Path, *arguments: str, input: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A command that runs beside the test; it is killed where it did not end."""
    with subprocess.Popen(
        [sys.executable, "-m", "pushserver", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "PUSHSERVER_URL": url, "PUSHSERVER_DATA": str(data)},
        stdin=subprocess.PIPE if input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module", autouse=True)
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A publish to an address where nobody listens. It tries for a while: it is begun first, and looked at last."""
    data = tmp_path_factory.mktemp("unreachable")
    (data / "publish.key").write_text("key\n")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with started(url, data, "publish", "storm", "--headline", "x") as process:
            yield process


def lines(records: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def file_of(folder: Path, content: bytes, name: str = "updates.jsonl") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a command prints up to the line that has a text."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(f"{text!r} was not in {printed!r}")


def headlines(server: Running, stream: str) -> list[str]:
    """The headlines of a stream, the oldest first."""
    return [entry["headline"] for entry in reversed(server.snapshot(stream)["entries"])]


def assert_nothing_stored(server: Running, stream: str) -> None:
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404


# --- publish


def test_publish_stores_an_entry_and_says_which(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream, "--headline", "Smith & Sons – é", "--tag", "one", "--tag", "two")
    (entry,) = server.snapshot(stream)["entries"]
    assert (done.returncode, done.stderr) == (DONE, "")
    assert done.stdout == f"published: {entry['id']}, revision 1, event 1, on disk\n"
    assert (entry["headline"], entry["tags"]) == ("Smith & Sons – é", ["one", "two"])


def test_publish_takes_the_body_from_a_file(server: Running, stream: str, run: Run, tmp_path: Path) -> None:
    file = file_of(tmp_path, "Zürich is *flooded*.\n\n- one\n- two\n".encode(), "body.md")
    assert run("publish", stream, file, "--headline", "Flood").returncode == DONE
    (entry,) = server.snapshot(stream)["entries"]
    assert entry["headline"] == "Flood"
    assert entry["blocks"] == [
        {"type": "paragraph", "html": "Zürich is <em>flooded</em>."},
        {"type": "list", "ordered": False, "items": ["one", "two"]},
    ]


def test_publish_takes_the_body_from_standard_input_and_answers_in_json(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream, "-", "--json", input="Zürich".encode())
    assert done.returncode == DONE
    answer = json.loads(done.stdout)
    (entry,) = server.snapshot(stream)["entries"]
    assert entry["blocks"] == [{"type": "paragraph", "html": "Zürich"}]
    assert (answer["id"], answer["rev"], answer["n"], answer["durability"]) == (entry["id"], 1, 1, "disk")
    assert (answer["cursor"], answer["replayed"]) == (server.snapshot(stream)["cursor"], False)


def test_publish_takes_bylines_with_and_without_an_organisation(server: Running, stream: str, run: Run) -> None:
    bylines = ("--byline", "Ada Pell, Wire", "--byline", "Ben Ode", "--byline", "Cy Roe,Post, Inc.")
    assert run("publish", stream, "--headline", "x", *bylines).returncode == DONE
    (entry,) = server.snapshot(stream)["entries"]
    assert entry["bylines"] == [
        {"name": "Ada Pell", "org": "Wire"},
        {"name": "Ben Ode"},
        {"name": "Cy Roe", "org": "Post, Inc."},
    ]


def test_publish_with_one_key_stores_one_entry(server: Running, stream: str, run: Run) -> None:
    arguments = ("publish", stream, "--headline", "x", "--idempotency-key", "abc")
    first, again = run(*arguments), run(*arguments)
    assert (first.returncode, again.returncode) == (DONE, DONE)
    assert again.stdout == first.stdout.replace("published:", "published before:")
    assert headlines(server, stream) == ["x"]


def test_each_line_is_published_as_it_comes(server: Running, stream: str) -> None:
    with started(server.url, server.data, "publish", stream, "--each-line", "--tag", "score", input=True) as process:
        assert process.stdin is not None
        for headline in ("Home 1, Away 0", "Zürich “2”"):
            process.stdin.write(f"{headline}\n")
            process.stdin.flush()
            assert read_until(process, "\n").startswith("published: ")
            assert headlines(server, stream)[-1] == headline
        process.stdin.write("\nthe last one has no end")
        process.stdin.close()
        assert read_until(process, "\n").startswith("published: ")
        assert process.wait(10) == DONE
    assert [entry["tags"] for entry in server.snapshot(stream)["entries"]] == [["score"]] * 3


def test_a_line_that_is_refused_is_passed_over(server: Running, stream: str, run: Run, tmp_path: Path) -> None:
    file = file_of(tmp_path, b"one\n" + b"x" * 301 + b"\nZ\xfcrich\nfour\n")
    done = run("publish", stream, file, "--each-line")
    assert done.returncode == REFUSED
    assert "line 2: headline: expected at most 300 characters" in done.stderr
    assert "line 3: expected UTF-8, got byte 0xfc at 1" in done.stderr
    assert headlines(server, stream) == ["one", "four"]


def test_lines_that_are_sent_again_with_one_key_are_known(server: Running, stream: str, run: Run) -> None:
    arguments = ("publish", stream, "--each-line", "--idempotency-key", "scores")
    assert run(*arguments, input=b"0:0\n0:1\n").returncode == DONE
    again = run(*arguments, input=b"0:0\n0:1\n0:0\n")
    assert [line.partition(":")[0] for line in again.stdout.splitlines()] == ["published before"] * 2 + ["published"]
    assert headlines(server, stream) == ["0:0", "0:1", "0:0"]


def test_lines_end_where_no_line_could_be_published(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream, "--each-line", "--key", "wrong", input=b"0:0\n0:1\n")
    assert (done.returncode, "line 1: Publishing requires a publish key" in done.stderr, "line 2" in done.stderr) == (
        1,
        True,
        False,
    )
    for option in ("--wait", "--headline=x"):
        assert run("publish", stream, "--each-line", option, input=b"x\n").returncode == WRONG_USAGE
    assert_nothing_stored(server, stream)


def test_publish_without_a_key_says_where_it_looked(server: Running, stream: str, run: Run, tmp_path: Path) -> None:
    done = run("publish", stream, "--headline", "x", PUSHSERVER_DATA=str(tmp_path))
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert "PUSHSERVER_KEY" in done.stderr
    assert str(tmp_path / "publish.key") in done.stderr
    assert_nothing_stored(server, stream)


def test_a_key_that_is_given_wins_over_the_one_in_the_data_folder(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream, "--headline", "x", PUSHSERVER_KEY="another-key")
    assert done.returncode == REFUSED
    assert "Authorization" in done.stderr
    assert "another-key" not in done.stderr
    assert_nothing_stored(server, stream)
    assert (
        run("publish", stream, "--headline", "x", "--key", server.key, PUSHSERVER_KEY="another-key").returncode == DONE
    )


def test_publish_of_what_is_refused_names_the_field(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream, "--headline", "x" * 301)
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert "headline: expected at most 300 characters" in done.stderr
    assert_nothing_stored(server, stream)


def test_a_dry_run_shows_the_entry_and_says_what_looks_odd(server: Running, stream: str, run: Run) -> None:
    arguments = ("publish", stream, "--dry-run", "--headline", "x" * 111)
    done = run(*arguments)
    assert done.returncode == DONE
    assert "x" * 111 in done.stdout
    assert "warning: headline: expected at most 110 characters" in done.stderr
    assert json.loads(run(*arguments, "--json").stdout)["warnings"][0]["field"] == "headline"
    assert_nothing_stored(server, stream)


def test_publish_of_nothing_is_refused(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream)
    assert done.returncode == REFUSED
    assert "a headline, a body or blocks" in done.stderr
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize("source", ["file", "-"])
def test_publish_of_a_body_that_is_not_utf_8_is_refused(
    server: Running, stream: str, run: Run, tmp_path: Path, source: str
) -> None:
    body = b"Z\xfcrich"
    done = run("publish", stream, source if source == "-" else file_of(tmp_path, body, "body.md"), input=body)
    assert done.returncode == REFUSED
    assert "UTF-8" in done.stderr
    assert "0xfc" in done.stderr
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize("suffix", ["#x", "?x", "/x", " x"])
def test_a_name_that_is_not_one_of_a_stream_reaches_no_other_stream(
    server: Running, stream: str, run: Run, tmp_path: Path, suffix: str
) -> None:
    done = run("import", stream + suffix, file_of(tmp_path, lines(RECORDS[:1])))
    assert done.returncode == REFUSED
    assert "stream: expected 1 to 64 characters" in done.stderr
    assert_nothing_stored(server, stream)


def test_publish_of_a_file_that_is_not_there_is_wrong_usage(run: Run, stream: str, tmp_path: Path) -> None:
    done = run("publish", stream, str(tmp_path / "nothing.md"))
    assert done.returncode == WRONG_USAGE
    assert "nothing.md" in done.stderr


# --- import


def test_an_entry_is_corrected_and_withdrawn(server: Running, stream: str, run: Run) -> None:
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "One", "body": "As it was."})
    corrected = run("correct", stream, "x", "-", "--class", "correction", "--note", "It was not.", input=b"As it *is*.")
    assert (corrected.returncode, "corrected: x, revision 2" in corrected.stdout) == (DONE, True), corrected
    (entry,) = server.snapshot(stream)["entries"]
    assert (entry["headline"], entry["blocks"][0]["html"]) == ("One", "As it <em>is</em>.")
    assert entry["correction"]["note"] == "It was not."
    assert "unchanged" in run("correct", stream, "x", "--headline", "One", "--class", "minor").stdout
    late = run("correct", stream, "x", "--headline", "Two", "--if-rev", "1")
    assert (late.returncode, "If-Match: expected revision" in late.stderr) == (REFUSED, True)
    withdrawn = run("withdraw", stream, "x", "--reason", "legal", "--json")
    assert json.loads(withdrawn.stdout)["rev"] == 3
    assert server.snapshot(stream)["entries"] == []
    assert run("withdraw", stream, "x").returncode == REFUSED


def test_the_page_is_changed_by_what_is_given_and_ended(server: Running, stream: str, run: Run) -> None:
    assert run("page", stream, "--dek", "No headline").returncode == REFUSED
    assert run("page", stream, "--headline", "Page", "--timezone", "America/New_York").returncode == DONE
    assert run("page", stream, "--dek", "A dek", "--end").returncode == DONE
    page = server.snapshot(stream)["page"]
    assert [page[name] for name in ("headline", "dek", "timezone", "state")] == [
        "Page",
        "A dek",
        "America/New_York",
        "ended",
    ]
    assert run("page", stream).returncode == WRONG_USAGE


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


def test_import_reads_standard_input(server: Running, stream: str, run: Run) -> None:
    done = run("import", stream, "-", input=lines(RECORDS))
    assert (done.returncode, done.stdout) == (DONE, f"{stream}: 4 added, 0 known already\n")
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
        (b'{"entry": {"headline": "x", "titel": "y"}}', ["titel: expected no such field"]),
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
    assert all(reason in done.stderr for reason in reasons), done.stderr
    assert headlines(server, stream) == ["First flood warning"]


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


# --- tail


def test_tail_shows_what_there_is_and_then_what_comes(server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    for entry in ENTRIES:
        server.publish(stream, entry)
    with started(server.url, server.data, "tail", stream) as process:
        shown = read_until(process, "Sea wall holds")
        assert shown.startswith("# Storm & tide\n")
        assert shown.index("First flood warning") < shown.index("Ferries stop") < shown.index("All are in port.")
        assert "- Cy Roe" in shown
        server.publish(stream, {"headline": "Smith & Sons", "body": "Open *again* & dry.\n\n- one"})
        live = read_until(process, "- one")
        assert "Smith & Sons" in live
        assert "Open again & dry." in live
        server.put_page(stream, {**PAGE, "headline": "Storm passes"})
        assert read_until(process, "# Storm passes")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
        assert process.wait(10) == DONE


def test_tail_in_json_goes_on_after_a_cursor(server: Running, stream: str) -> None:
    cursor = server.publish_ok(stream, "one")["cursor"]
    server.publish_ok(stream, "two")
    with started(server.url, server.data, "tail", stream, "--json", "--cursor", cursor) as process:
        frame = json.loads(read_until(process, "\n"))
        assert (frame["type"], frame["n"], frame["prev"]) == ("entry.put", 2, cursor)
        assert frame["entry"]["headline"] == "two"
        server.publish_ok(stream, "drei – é")
        line = read_until(process, "\n")
        assert json.loads(line)["entry"]["headline"] == "drei – é"
        assert "é" in line


def test_tail_of_a_stream_that_is_not_there_is_refused(run: Run, stream: str) -> None:
    done = run("tail", stream)
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert "404" in done.stderr
    assert stream in done.stderr


# --- the program itself


def test_the_version_is_that_of_the_package(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (DONE, f"pushserver, version {metadata.version('pushserver')}\n")


def test_the_help_of_serve_lists_every_setting(run: Run) -> None:
    done = run("serve", "--help")
    assert done.returncode == DONE
    shown = " ".join(done.stdout.split())
    for field in settings.KNOBS:
        assert f"--{field.name.replace('_', '-')} " in shown
        assert field.metadata["help"] in shown
        for variable in settings.variables(field.name):
            assert variable in shown


@pytest.mark.parametrize("arguments", [["nothing"], ["publish"], ["serve", "--port", "x"], ["serve", "--nothing"]])
def test_wrong_usage_is_told_apart(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert "Error: " in done.stderr


def test_a_server_that_is_not_there_is_told_apart(unreachable: subprocess.Popen[str]) -> None:
    printed, errors = unreachable.communicate(timeout=60)
    assert (unreachable.returncode, printed) == (NOT_REACHED, "")
    assert "not reached" in errors
    assert "Traceback" not in errors
