"""The results of a comparison are shown as one table of ratios, and beside the targets."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

OURS = "pushserver"
BEGIN, END = "<!-- begin: bench/compare -->", "<!-- end: bench/compare -->"
NOT_SHOWN = ("of it kernel", "store us/entry", "load", "limit", "put off")  # in the JSON only

Rounds = dict[int, float]


class Results:
    """Results are the figures of all rounds: by workload, figure and contender, and then by round."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.titles: dict[str, str] = {}
        self.names: list[str] = report["contenders"]
        self.values: dict[tuple[str, str, str], Rounds] = defaultdict(dict)
        self.figures: dict[str, list[str]] = defaultdict(list)
        self.remarks: list[str] = list(report["skipped"])
        for result in report["results"]:
            letter = result["workload"]
            self.titles[letter] = result["title"]
            where = f"({letter}) {result['contender']}, round {result['round'] + 1}"
            if "invalid" in result:
                self.remarks.append(f"{where} does not count: {result['invalid']}")
            elif result["figures"].get("limit") == "load":
                self.remarks.append(f"{where}: the load was the limit, so it may be faster")
            for figure, value in result.get("figures", {}).items():
                if figure not in NOT_SHOWN:
                    self.values[letter, figure, result["contender"]][result["round"]] = value
                    if figure not in self.figures[letter]:
                        self.figures[letter].append(figure)

    def median(self, letter: str, figure: str, name: str = OURS) -> float | None:
        rounds = self.values.get((letter, figure, name))
        return statistics.median(rounds.values()) if rounds else None

    def ratios(self, letter: str, figure: str, name: str) -> list[float]:
        """Return a contender's figure divided by ours, for each round, in ascending order."""
        ours, theirs = self.values.get((letter, figure, OURS), {}), self.values.get((letter, figure, name), {})
        return sorted(theirs[number] / ours[number] for number in ours.keys() & theirs.keys() if ours[number])


def joined(former: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return a report that also has the results of a former one, but for those of the same workloads."""
    again = letters_of(report["results"])
    rest = [result for result in former["results"] if result["workload"] not in again]
    runs = [
        {**run, "workloads": [letter for letter in run["workloads"] if letter not in again]} for run in runs_of(former)
    ]
    return {
        **report,
        "skipped": list(dict.fromkeys([*former["skipped"], *report["skipped"]])),
        "contenders": list(dict.fromkeys([*former["contenders"], *report["contenders"]])),
        "runs": [*(run for run in runs if run["workloads"]), *runs_of(report)],
        "results": [*rest, *report["results"]],
    }


def runs_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of which a report has results: the command, the machine, and the workloads."""
    own = {"command": report["command"], "on": report["on"], "workloads": letters_of(report["results"])}
    return report.get("runs") or [own]


def letters_of(results: list[dict[str, Any]]) -> list[str]:
    """Return the letters of the workloads that these results are of."""
    return list(dict.fromkeys(result["workload"] for result in results))


def markdown(report: dict[str, Any]) -> str:
    """Return the tables: our figures, and the others' as ratios to ours; the median, and the range over rounds.

    The workloads of each run have a table of their own, with the contenders that took part.
    """
    results, lines = Results(report), []
    for run in runs_of(report):
        lines += [*_table(results, run["workloads"]), ""]
        own = [result for result in report["results"] if result["workload"] in run["workloads"]]
        lines += [f"Made by `{run['command']}` on {run['on']}. {_others(own)}", ""]
    remarks = [f"* {remark}" for remark in results.remarks]
    return "\n".join([*lines, *targets(results), *([""] if remarks else []), *remarks])


def _table(results: Results, letters: Sequence[str]) -> list[str]:
    names = {name for letter, _, name in results.values if letter in letters}
    others = [name for name in results.names if name in names and name != OURS]
    rows = [["", OURS, *others], ["---"] * (len(others) + 2)]
    for letter in letters:
        for figure in results.figures[letter]:
            cells = [_ratio(results.ratios(letter, figure, name)) for name in others]
            rows.append([f"({letter}) {results.titles[letter]}: {figure}", _own(results, letter, figure), *cells])
    return [f"| {' | '.join(row)} |" for row in rows]


def _others(own: list[dict[str, Any]]) -> str:
    """Return how much of the processors other programs used."""
    shares = [result["others"] for result in own]
    return f"Others took {statistics.median(shares):.0%} of the processors (median), {max(shares):.0%} at most."


def _own(results: Results, letter: str, figure: str) -> str:
    rounds = sorted(results.values[letter, figure, OURS].values())
    if not rounds:
        return "-"
    spread = f" ({_short(rounds[0])}-{_short(rounds[-1])})" if len(rounds) > 1 else ""
    return f"{_short(statistics.median(rounds))}{spread}"


def _ratio(ratios: list[float]) -> str:
    if not any(ratios):  # all are 0 where the contender uses system calls that are not counted
        return "-"
    spread = f" ({_short(ratios[0])}-{_short(ratios[-1])})" if len(ratios) > 1 else ""
    return f"x {_short(statistics.median(ratios))}{spread}"


def _short(value: float) -> str:
    """Format a number with three digits, or with thousands separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# --- the targets


class Goal(NamedTuple):
    """Goal is a target: at most `wanted`, or at least; `reached` is None where it was not measured."""

    text: str
    wanted: float
    reached: float | None
    least: bool = False

    @property
    def is_met(self) -> bool:
        assert self.reached is not None
        return self.reached >= self.wanted if self.least else self.reached <= self.wanted


def targets(results: Results) -> Iterator[str]:
    yield from ("| target | wanted | reached | |", "| --- | --- | --- | --- |")
    for goal in goals(results):
        bound = "at least" if goal.least else "at most"
        if goal.reached is None:
            yield f"| {goal.text} | {bound} {_short(goal.wanted)} | not measured | |"
        else:
            verdict = "met" if goal.is_met else "missed"
            yield f"| {goal.text} | {bound} {_short(goal.wanted)} | {_short(goal.reached)} | {verdict} |"


def goals(results: Results) -> list[Goal]:
    cpu = "CPU us/delivery"
    floor_c, floor_a = _times(results, "c", cpu, "floor"), _times(results, "a", cpu, "floor")
    idle = next((name for name in results.figures["d"] if name.startswith("idle us/s at 10")), "")
    ours_c, ours_g = results.median("c", cpu), results.median("g", cpu)
    return [
        Goal("(c) CPU of a delivery, times the floor's", 1.3, floor_c),
        Goal("(a) deliveries a second, times the best peer's", 3, _best(results, "a", "deliveries/s", most=True), True),
        Goal("(a) CPU of a delivery, times the floor's", 0.4, floor_a),
        Goal("(b) p50, times the best peer's", 1, _best(results, "b", "p50 ms")),
        Goal("(b) p99, times the best peer's", 1, _best(results, "b", "p99 ms")),
        Goal("(d) KiB (PSS) of an idle connection", 2.5, results.median("d", "KiB/connection")),
        Goal("(d) CPU us a second, of each of 10,000 idle connections", 2, results.median("d", idle)),
        Goal("(d) longest ms that /livez waits", 20, results.median("d", "longest wait ms")),
        Goal("(e) CPU us of connect, handshake and replay", 200, results.median("e", "CPU us/reader")),
        Goal("(f) entries a second, on disk", 2_000, results.median("f", "entries/s"), True),
        Goal("(f) p99 of an acknowledgement, ms", 20, results.median("f", "ack p99 ms")),
        Goal("(g) CPU of a delivery, times that of (c)", 2, ours_g / ours_c if ours_g and ours_c else None),
        Goal("(h) CPU of a GET of a page, a feed or entries, times the bare application's", 2, _costliest(results)),
        Goal("(h) CPU of a 304, times the bare application's", 1.5, _times(results, "h", "304: CPU us/GET", "bare")),
        Goal(
            "(h) CPU of a module, times the bare application's", 1.5, _times(results, "h", "static: CPU us/GET", "bare")
        ),
        Goal("(i) p99 of live delivery beside page loads, times alone", 2, results.median("i", "times alone")),
        Goal(
            "two workers: larger share above half, % of half",
            10,
            results.median("w", "larger share above half, % of half"),
        ),
    ]


def _times(results: Results, letter: str, figure: str, name: str) -> float | None:
    """Return our figure divided by another's: the median over the rounds."""
    ratios = results.ratios(letter, figure, name)
    return statistics.median(1 / ratio for ratio in ratios if ratio) if ratios else None


def _costliest(results: Results) -> float | None:
    """Return the largest ratio of a surface to the bare application."""
    surfaces = ("page", "entries", "atom", "json")
    ratios = [_times(results, "h", f"{surface}: CPU us/GET", "bare") for surface in surfaces]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _best(results: Results, letter: str, figure: str, *, most: bool = False) -> float | None:
    """Return our figure divided by the best peer's; the floor is not a peer."""
    peers = [_times(results, letter, figure, name) for name in results.names if name not in (OURS, "floor")]
    known = [times for times in peers if times is not None]
    return (min(known) if most else max(known)) if known else None


def put(page: str, table: str) -> str:
    """Return a page with the table between its marks. Raises ValueError where the marks are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected {BEGIN} and {END} in the page")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
