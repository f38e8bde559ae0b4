"""Findings as lines and as JSON: neither shows a secret, or what does not show as itself."""

from __future__ import annotations

import json

from pushserver import findings

RESULTS = [
    findings.ok("settings", "all can be read"),
    findings.warning("store redis://u:hunter2@host", "memory\x1b[2J", "set appendonly yes\nset appendfsync always"),
]


def test_a_list_has_what_to_do_below_each_finding() -> None:
    assert findings.listing(RESULTS).splitlines() == [
        "ok       settings: all can be read",
        "warning  store redis://u:***@host: memory\\x1b[2J",
        "         > set appendonly yes",
        "         > set appendfsync always",
    ]


def test_json_has_the_same_and_the_counts() -> None:
    report = json.loads(findings.as_json(RESULTS))
    assert (report["ok"], report["counts"]) == (True, {"ok": 1, "warning": 1, "error": 0})
    assert report["findings"][1]["do"] == ["set appendonly yes", "set appendfsync always"]
    assert "hunter2" not in json.dumps(report)
    wrong = [*RESULTS, findings.error("--key", "expected one")]
    assert not json.loads(findings.as_json(wrong))["ok"]
    assert findings.has_errors(wrong)
    assert not findings.has_errors(RESULTS)


def test_a_sentence_is_one_line_of_a_log() -> None:
    assert findings.warning("replicas", "got fewer", "start them").sentence() == "replicas: got fewer; start them"
    assert findings.error("--key", "expected one").sentence() == "--key: expected one"
