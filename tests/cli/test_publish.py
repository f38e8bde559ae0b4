"""`pushserver publish`, `correct`, `withdraw`, `page` and `tail`."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pushserver.__main__ import main
from pushserver.cli.publish import receipt_line

from ..support.commands import (
    DONE,
    ENTRIES,
    NOT_REACHED,
    PAGE,
    REFUSED,
    WRONG_USAGE,
    assert_nothing_stored,
    file_of,
    headlines,
    read_until,
    started,
)
from ..support.server import KEY, LIMIT, Run, Running


@pytest.fixture(scope="module", autouse=True)
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A publish to an address where nobody listens. It tries for a while: it is begun first, and looked at last."""
    data = tmp_path_factory.mktemp("unreachable")
    (data / "publish.key").write_text(f"{KEY}\n")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with started(url, data, "publish", "storm", "--headline", "x") as process:
            yield process


# --- publish


def test_publish_stores_an_entry_and_says_which(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream, "--headline", "Smith & Sons – é", "--tag", "one", "--tag", "two")
    (entry,) = server.snapshot(stream)["entries"]
    assert (done.returncode, done.stderr) == (DONE, "")
    assert done.stdout == f"published: {entry['id']}, revision 1, event 1, on disk\n{server.url}{entry['url']}\n"
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


def test_a_dry_run_shows_the_organisation_of_each_byline(server: Running, stream: str, run: Run) -> None:
    bylines = ("--byline", "Ada Pell, Wire", "--byline", "Ben Ode", "--byline", "Cy Roe,Post, Inc.")
    done = run("publish", stream, "--headline", "x", *bylines, "--dry-run")
    assert "- Ada Pell, Wire; Ben Ode; Cy Roe, Post, Inc.\n" in done.stdout


def test_publish_with_one_key_stores_one_entry(server: Running, stream: str, run: Run) -> None:
    arguments = ("publish", stream, "--headline", "x", "--idempotency-key", "abc")
    first, again = run(*arguments), run(*arguments)
    assert (first.returncode, again.returncode) == (DONE, DONE)
    assert again.stdout == first.stdout.replace("published:", "published before:")
    assert headlines(server, stream) == ["x"]


def test_corrections_and_withdrawals_with_one_key_are_stored_once(server: Running, stream: str, run: Run) -> None:
    id = server.publish_ok(stream, "x")["id"]
    note = ("--class", "correction", "--note", "It was y.")
    for command, done, revision in (
        (("correct", stream, id, "--headline", "y", *note, "--idempotency-key", "abc"), "corrected", 2),
        (("withdraw", stream, id, "--idempotency-key", "def"), "withdrawn", 3),
    ):
        first, again = run(*command), run(*command)
        assert (first.returncode, again.returncode) == (DONE, DONE), again.stderr
        assert first.stdout.startswith(f"{done}: {id}, revision {revision}, ")
        assert again.stdout.startswith(f"{done} before: {id}, revision {revision}, ")


def test_a_key_of_another_withdrawal_is_refused(server: Running, stream: str, run: Run) -> None:
    ids = [server.publish_ok(stream, headline)["id"] for headline in ("one", "two")]
    first, other = (run("withdraw", stream, id, "--idempotency-key", "job7") for id in ids)
    assert (first.returncode, other.returncode, other.stdout) == (DONE, REFUSED, "")
    assert "used for another request; nothing was stored" in other.stderr
    assert headlines(server, stream) == ["two"]


@pytest.mark.parametrize(
    ("key", "got"), [("", "an empty string"), ("é", "é"), (" x", " x"), ("x\n", "x"), ('a"b', 'a"b')]
)
def test_a_key_that_the_server_would_refuse_is_wrong_usage(
    server: Running, stream: str, run: Run, key: str, got: str
) -> None:
    for command in (("publish", "--headline", "x"), ("publish", "--each-line"), ("correct", "x"), ("withdraw", "x")):
        done = run(command[0], stream, *command[1:], "--idempotency-key", key, input=b"x\n")
        assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
        assert (
            f"'--idempotency-key': expected 1 to 200 visible ASCII characters, no quote or backslash, got {got}"
            in done.stderr
        )
    assert_nothing_stored(server, stream)


def test_a_page_is_changed_and_ended_once(server: Running, stream: str, run: Run) -> None:
    command = ("page", stream, "--headline", "A page", "--end")
    assert run(*command).returncode == DONE
    again = run(*command)
    assert (again.returncode, again.stdout) == (DONE, "unchanged: revision 2\n" * 2)


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
    assert done.stdout.endswith("\nnothing was published: this is a dry run\n")
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


def test_publish_of_a_file_that_is_not_there_is_wrong_usage(run: Run, stream: str, tmp_path: Path) -> None:
    done = run("publish", stream, str(tmp_path / "nothing.md"))
    assert done.returncode == WRONG_USAGE
    assert "nothing.md" in done.stderr


def test_what_is_piped_in_is_the_body(server: Running, stream: str, run: Run) -> None:
    assert run("publish", stream, "--headline", "h", input=b"\xef\xbb\xbfZ\xc3\xbcrich").returncode == DONE
    (entry,) = server.snapshot(stream)["entries"]
    assert (entry["headline"], entry["blocks"]) == ("h", [{"type": "paragraph", "html": "Zürich"}])
    assert run("correct", stream, entry["id"], input=b"Z\xc3\xbcrich *floods*").returncode == DONE
    assert run("correct", stream, entry["id"], "--headline", "Flood", input=b" \n").returncode == DONE
    (corrected,) = server.snapshot(stream)["entries"]
    assert (corrected["headline"], corrected["rev"]) == ("Flood", 3)
    assert corrected["blocks"] == [{"type": "paragraph", "html": "Zürich <em>floods</em>."[:-1]}]


def test_what_is_piped_in_and_is_no_utf_8_is_refused(server: Running, stream: str, run: Run) -> None:
    done = run("publish", stream, "--headline", "h", input=b"Z\xfcrich")
    assert (done.returncode, "0xfc" in done.stderr) == (REFUSED, True)
    assert_nothing_stored(server, stream)


def test_a_command_that_waits_for_a_pipe_says_so(server: Running, stream: str) -> None:
    with started(server.url, server.data, "publish", stream, "--headline", "h", input=True) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        assert "waiting for the body on standard input" in process.stderr.readline()
        process.stdin.close()
        assert process.wait(LIMIT) == DONE


def test_a_byte_order_mark_at_the_start_is_no_text(server: Running, stream: str, run: Run, tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert run("publish", stream, file_of(tmp_path, mark + b"**bold**", "b.md"), "--headline", "x").returncode == DONE
    assert run("publish", stream, "--each-line", input=mark + b"one\n" + mark + b"\ntwo\n").returncode == DONE
    assert headlines(server, stream)[1:] == ["one", "two"]
    assert server.snapshot(stream)["entries"][-1]["blocks"] == [{"type": "paragraph", "html": "<strong>bold</strong>"}]


# --- correct, withdraw, page


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
    again = run("withdraw", stream, "x")
    assert again.returncode == REFUSED
    assert "a withdrawn id is never used again, got withdrawn for the reason legal" in again.stderr


def test_a_withdrawal_says_whom_it_has_reached(server: Running, stream: str, run: Run) -> None:
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "One"})
    assert "\ndelivered to 0 readers on 1 worker\n" in run("withdraw", stream, "x").stdout


def test_the_page_is_changed_by_what_is_given_and_ended(server: Running, stream: str, run: Run) -> None:
    assert run("page", stream, "--dek", "No headline").returncode == REFUSED
    made = run("page", stream, "--headline", "Page", "--timezone", "America/New_York")
    assert (made.returncode, made.stdout) == (DONE, "created: revision 1, event 1, on disk\n")
    changed = run("page", stream, "--dek", "A dek", "--end")
    assert (changed.returncode, changed.stdout.split(",")[0]) == (DONE, "changed: revision 2")
    page = server.snapshot(stream)["page"]
    assert [page[name] for name in ("headline", "dek", "timezone", "state")] == [
        "Page",
        "A dek",
        "America/New_York",
        "ended",
    ]
    assert run("page", stream).returncode == WRONG_USAGE


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
        server.put_page(stream, {**PAGE, "headline": "Storm passes", "timezone": "Asia/Kolkata"})
        assert "lost" not in read_until(process, "another language, direction or zone; what is stored now follows")
        assert read_until(process, "- one")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
        assert process.wait(10) == DONE


def test_tail_says_of_each_entry_which_it_is_and_whether_it_is_a_correction(server: Running, stream: str) -> None:
    path = f"/streams/{stream}/entries/goal"
    published_at = "2023-07-10T19:33:00.000Z"
    server.send("PUT", path, {"headline": "Goal", "published_at": published_at})
    note = {"correction": {"class": "correction", "note": "It was Reed."}}
    with started(server.url, server.data, "tail", stream) as process:
        assert read_until(process, "Goal").endswith(f"\n{published_at}  goal  Goal\n")
        for headline, fields, done in (("One", {}, "changed"), ("Two", note, "corrected")):
            server.send("PATCH", path, {"headline": headline, **fields})
            line = read_until(process, headline).splitlines()[-1]
            assert re.fullmatch(rf"20\S+Z  {done}: goal  {headline}", line)
            assert not line.startswith(published_at)
        assert read_until(process, "Reed") == "  correction: It was Reed.\n"
        server.send("PATCH", path, {"headline": "Three", "correction": {"class": "minor"}})
        assert "  changed: goal  Three\n" in read_until(process, "Three")
        server.publish_ok(stream, "Four")
        assert re.search(r"\n20\S+Z  \w+  Four\n", read_until(process, "Four"))


def test_tail_of_a_stream_that_has_ended_says_so(server: Running, stream: str, run: Run) -> None:
    server.publish_ok(stream, "One")
    with started(server.url, server.data, "tail", stream) as process:
        assert read_until(process, "One")
        cursor = server.send("POST", f"/streams/{stream}/end", {}).json()["cursor"]
        assert read_until(process, "ended").count("the stream has ended") == 1
        assert process.stdout is not None
        assert process.stdout.read() == ""
    done = run("tail", stream)
    assert (done.returncode, done.stdout.endswith("One\n\nthe stream has ended\n")) == (DONE, True)
    done = run("tail", stream, "--cursor", cursor)
    assert (done.returncode, done.stdout) == (DONE, "\nthe stream has ended\n")
    assert "has ended" not in run("tail", stream, "--json").stdout


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


# --- no server


def test_a_server_that_is_not_there_is_told_apart(unreachable: subprocess.Popen[str]) -> None:
    printed, errors = unreachable.communicate(timeout=LIMIT)
    assert (unreachable.returncode, printed) == (NOT_REACHED, "")
    assert "not reached" in errors
    assert "attempt 2 of 8" in errors
    assert errors.rstrip().endswith("nothing was stored.")
    assert "may have been stored" not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("no-such-host.invalid:8000", "expected a URL that begins with http:// or https://, got no-such-host"),
        ("ftp://127.0.0.1", "expected a URL that begins with http://"),
        ("http://127.0.0.1:99999", "99999"),
        ("http://", "expected a URL that begins with http://"),
        (
            "http://127.0.0.1:8000/live/streams/demo",
            "expected the root address of the server, such as http://127.0.0.1:8000/live, got http://127.0.0.1:8000/l",
        ),
        ("http://127.0.0.1:8000/streams/", "such as http://127.0.0.1:8000, got"),
        ("http://desk:secret@127.0.0.1:8000/?a=b", "such as http://desk:***@127.0.0.1:8000, got"),
    ],
)
@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("tail", "storm", "--url", "{url}"), "'--url' (env var: 'PUSHSERVER_URL')"),
        (("publish", "storm", "--headline", "x"), "'--url' (env var: 'PUSHSERVER_URL')"),
        (("doctor", "{url}"), "'URL'"),
        (("bench", "{url}"), "'[URL]'"),
    ],
)
def test_a_url_that_is_no_servers_is_wrong_usage(url: str, reason: str, arguments: Sequence[str], place: str) -> None:
    words = [word.format(url=url) for word in arguments]
    done = CliRunner().invoke(main, words, env={"PUSHSERVER_URL": url, "PUSHSERVER_KEY": KEY})
    assert (done.exit_code, done.stdout) == (WRONG_USAGE, "")
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"Error: Invalid value for {place}: expected ")
    assert reason in said
    assert "secret" not in said


def test_tail_of_what_is_no_server_ends_with_the_reason(stream: str, run: Run) -> None:
    done = run("tail", stream, "--url", "http://no-such-host.invalid")
    assert (done.returncode, done.stdout) == (NOT_REACHED, "")
    assert "[" in done.stderr.splitlines()[-1]


def test_tail_says_why_it_is_not_connected(stream: str, unused_url: str, tmp_path: Path) -> None:
    with started(unused_url, tmp_path, "tail", stream) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "next attempt " in line
        assert "refused" in line.lower() or "Connect call failed" in line


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense"])
def test_a_server_on_this_machine_is_reached_without_a_proxy(
    server: Running, stream: str, run: Run, proxy: str
) -> None:
    env = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"), proxy)
    assert run("publish", stream, "--headline", "x", **env).returncode == DONE


@pytest.mark.parametrize("bad", [{"ALL_PROXY": "gopher://127.0.0.1:9"}, {"HTTP_PROXY": "gopher://127.0.0.1:9"}])
def test_a_bad_environment_is_a_sentence(stream: str, run: Run, bad: dict[str, str]) -> None:
    done = run("publish", stream, "--headline", "x", "--url", "http://news.invalid", "--key", KEY, **bad)
    assert done.returncode == REFUSED
    assert "HTTP_PROXY" in done.stderr


@pytest.mark.parametrize(
    ("receipt", "says"),
    [
        ({"sent": 0, "workers": [{}]}, "delivered to 0 readers on 1 worker"),
        ({"sent": 1, "workers": [{}, {}], "behind": 1}, "delivered to 1 reader on 2 workers, not yet to 1 slow reader"),
        ({"sent": 0, "workers": [], "silent": 2}, "delivered to 0 readers on 0 workers, no answer from 2 workers"),
    ],
)
def test_a_receipt_names_who_was_not_reached(receipt: dict[str, Any], says: str) -> None:
    line = receipt_line({"behind": 0, "silent": 0, "p50_ms": 1, "p99_ms": 2, **receipt})
    assert line.replace(", half within 1 ms, 99 of 100 within 2 ms", "") == says
