"""The commands of a newsroom's desk, run in the test's own process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pushserver.__main__ import main

from ..support.keys import as_key, create_key
from ..support.server import Running
from ..support.worker import Serve

Command = Callable[..., Result]


@pytest.fixture
def command(server: Running) -> Command:
    """Run a command against the server, in this process."""
    variables = {"PUSHSERVER_URL": server.url, "PUSHSERVER_DATA": str(server.data)}
    return lambda *arguments, input="": CliRunner().invoke(main, arguments, env=variables, input=input)


def test_delete_asks_first_and_says_where_readers_are_closed(server: Running, command: Command, stream: str) -> None:
    server.publish_ok(stream, "first")
    assert command("delete", stream, input="n\n").exit_code == 1
    nobody = command("delete", stream)
    assert (nobody.exit_code, "Nothing was deleted" in nobody.stderr, "--yes" in nobody.stderr) == (2, True, True)
    assert server.snapshot(stream)["n"] == 1
    done = command("delete", stream, "--yes")
    assert (done.exit_code, done.output) == (0, f"deleted {stream}: its readers are disconnected on 1 worker\n")
    assert server.http.get(f"/streams/{stream}").status_code == 410
    assert json.loads(command("delete", stream, "--yes", "--forget", "--json").output)["forgotten"] is True
    refused = command("delete", stream, "--yes")
    assert (refused.exit_code, refused.output) == (1, f"pushserver: There is no stream {stream}.\n")


def test_erase_says_since_when_and_what_is_left_to_do(server: Running, command: Command, stream: str) -> None:
    id = server.publish_ok(stream, "first")["id"]
    refused = command("erase", stream, id)
    assert (refused.exit_code, "withdraw it first" in refused.output) == (1, True)
    assert command("withdraw", stream, id).exit_code == 0
    again = command("withdraw", stream, id, "--reason", "legal")
    assert (again.exit_code, f"To erase its text from the store: pushserver erase {stream} {id}" in again.output) == (
        1,
        True,
    )
    done = command("erase", stream, id)
    assert (done.exit_code, done.output.startswith(f"erased {id} at 20")) == (0, True)
    assert done.output.endswith("the store's files have the text no more\n")


def test_a_legal_withdrawal_says_whether_its_text_has_left_the_store(
    server: Running, command: Command, serve: Serve, stream: str
) -> None:
    ids = [server.publish_ok(stream, headline)["id"] for headline in ("one", "two")]
    done = command("withdraw", stream, ids[0], "--reason", "legal")
    assert done.output.splitlines()[-1].endswith("the store's files have the text no more")
    done = command("withdraw", stream, ids[1], "--reason", "legal", "--url", serve("--replicas", "1").url)
    assert done.output.splitlines()[-1] == f"its text may still be in the store: pushserver erase {stream} {ids[1]}"


def test_an_erasure_that_too_few_replicas_have_is_to_be_repeated(
    server: Running, command: Command, serve: Serve, stream: str
) -> None:
    id = server.publish_ok(stream, "one")["id"]
    assert command("withdraw", stream, id).exit_code == 0
    done = command("erase", stream, id, "--url", serve("--replicas", "1").url)
    erased, missing = done.output.splitlines()
    assert erased.startswith(f"erased {id} at 20")
    assert missing == (
        "fewer replicas than --replicas have it: a failover may bring the text back; "
        f"to repeat it: pushserver erase {stream} {id}"
    )
    assert len(command("erase", stream, id).output.splitlines()) == 1, "a server that asks for no replica"


def test_history_names_the_keys_and_never_a_text(server: Running, command: Command, stream: str) -> None:
    id = server.publish_ok(stream, "a text")["id"]
    key = create_key(server, "--streams", stream)
    corrected = server.send("PATCH", f"/streams/{stream}/entries/{id}", {"headline": "another"}, **as_key(key))
    assert corrected.status_code == 200
    done = command("history", stream, id)
    assert done.exit_code == 0, done.output
    first, second = (line.split("  ") for line in done.output.splitlines())
    assert (first[0], first[2:]) == ("1", ["server", "publish"])
    assert (second[0], second[2:]) == ("2", [f"{key.split('_')[1]} desk", "correct", "headline"])
    assert [row["rev"] for row in json.loads(command("history", stream, id, "--json").output)["revisions"]] == [1, 2]
    refused = command("history", stream, id, "--key", key)
    assert (refused.exit_code, "lacks the right `audit`" in refused.output) == (1, True)
    assert command("history", stream, "none").exit_code == 1


def test_streams_are_listed_for_people_and_for_programs(server: Running, command: Command, stream: str) -> None:
    server.publish_ok(stream, "first")
    line = next(line for line in command("streams").output.splitlines() if line.startswith(f"{stream} "))
    assert "  live  1 entries  " in line
    rows = [json.loads(line) for line in command("streams", "--json").output.splitlines()]
    assert next(row for row in rows if row["stream"] == stream)["entries"] == 1


def test_all_streams_are_exported_to_a_folder_and_imported_from_it(
    server: Running, command: Command, stream: str, tmp_path: Path
) -> None:
    names = [f"{stream}-a", f"{stream}-b"]
    for name in names:
        server.publish_ok(name, "first")
    entries = [server.snapshot(name)["entries"] for name in names]
    folder = tmp_path / "exported"
    done = command("export", "--all", str(folder), "--history")
    assert done.exit_code == 0, done.output
    assert {f"{name}.jsonl" for name in names} <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.part"))
    for path in folder.iterdir():  # the server is shared: only these are to come back
        if path.name.removesuffix(".jsonl") not in names:
            path.unlink()
    for name in names:
        server.send("DELETE", f"/streams/{name}?forget=true", b"")
    imported = command("import", "--all", str(folder))
    assert imported.exit_code == 0, imported.output
    assert [line.partition(":")[0] for line in imported.output.splitlines()] == names
    assert [server.snapshot(name)["entries"] for name in names] == entries
    history = server.send("GET", f"/streams/{names[0]}/desk/entries/{entries[0][0]['id']}/history", b"").json()
    assert [row["action"] for row in history["revisions"]] == ["publish", "restore"]


def test_a_refused_export_leaves_no_half_file_and_an_empty_folder_is_no_import(
    server: Running, command: Command, stream: str, tmp_path: Path
) -> None:
    server.publish_ok(stream, "first")
    key = create_key(server, "--streams", stream)
    assert command("export", "--all", str(tmp_path), "--key", key).exit_code == 1
    assert list(tmp_path.iterdir()) == []
    done = command("import", "--all", str(tmp_path))
    assert (done.exit_code, f"in {tmp_path}, found none" in done.output) == (1, True)


def test_one_stream_or_all_is_asked_for(command: Command, tmp_path: Path) -> None:
    for arguments in (("export",), ("export", "x", "--all", str(tmp_path)), ("import", "x"), ("import",)):
        assert command(*arguments).exit_code == 2
