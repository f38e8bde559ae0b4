"""The examination of a public address: what is tried in which order, each step with a deadline.

With a key it makes a stream of its own, publishes to it, and deletes it, or ends it where the key may not delete.
Without one it reads a stream that there is, and cannot see what the server believes of a request.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from .. import findings
from ..findings import Finding
from . import judgements
from .remedies import proxy_of, remedy
from .target import Answered, FollowingReader, Target, Unanswered

PREFIX = "doctor-"  # of the names of streams for probing
PROMPT = 5.0  # seconds within which a frame arrives that nobody holds back
HEARTBEAT, HEARTBEAT_MOST = 15.0, 300.0  # seconds: of a server that names none, and the most that it can be set to
READERS = 16  # at a time, to see on which workers they are
NO_STREAM = "not tried: expected a key (--key, --key-file) or --stream"
HEADLINE = "A check of this site"


async def examine(url: str, key: str, stream: str, token: str = "") -> AsyncIterator[Finding]:
    """The findings about a public address, as they come. An empty `stream` has one made with the key.

    `token` is for readers of a private stream.
    """
    async with Target.opened(url, key, token) as target:
        examination = Examination(target)
        if not await examination.reach():
            for finding in examination.findings:
                yield finding
            return
        shown = 0
        async with examination.probed(stream) as name:
            async for _ in examination.steps(name, own=bool(name) and not stream):
                for finding in examination.findings[shown:]:
                    yield finding
                shown = len(examination.findings)
        for finding in examination.findings[shown:]:
            yield finding


class Examination:
    """An Examination gathers findings about one target. `proxy` is the one that answers show, '' for none."""

    def __init__(self, target: Target) -> None:
        self.findings: list[Finding] = []
        self.proxy = ""
        self._is_direct = self._has_socket = False
        self._target = target
        self._answers: list[Answered] = []

    def _add(self, *results: Finding) -> None:
        self.findings.extend(results)

    async def _ask(self, method: str, path: str, value: Any = None, *, keyed: bool = False, **headers: str) -> Answered:
        answer = await self._target.ask(method, path, value, keyed=keyed, **headers)
        self._answers.append(answer)
        return answer

    # --- steps

    async def reach(self) -> bool:
        """Ask whether this server answers at all."""
        try:
            sent = time.time()
            answer = await self._ask("GET", "/livez")
        except Unanswered as error:
            self._add(findings.error("reach", str(error), "compare the address, the name and the certificate"))
            return False
        self.proxy = proxy_of(answer.headers)
        if answer.status in (301, 302, 307, 308):
            location = answer.headers.get("location", "")
            self._add(findings.error("reach", f"{self._target.url} redirects to {location}", "look at that address"))
            return False
        if answer.json() != {"live": True}:
            says = f"/livez answers {answer.status}, and not as this server does"
            self._add(findings.error("reach", says, "pass every path on to the server, without changing it"))
            return False
        self._add(findings.ok("reach", self._target.url))
        self._date(answer, sent)
        return True

    def _date(self, answer: Answered, sent: float) -> None:
        if not self._target.key and "date" in answer.headers:
            at = parsedate_to_datetime(answer.headers["date"]).timestamp()
            self._add(judgements.judge_clock(at, sent - 1, time.time()))  # a date has no fractions of a second

    @asynccontextmanager
    async def probed(self, stream: str) -> AsyncIterator[str]:
        """The name of a stream to read; where none is named, one that is made and deleted; '' where neither can be."""
        if stream or not self._target.key:
            yield stream
            return
        name = f"{PREFIX}{secrets.token_hex(4)}"
        if not await self._begin(name):
            yield ""
            return
        try:
            yield name
        finally:
            await self._end(name)

    async def _begin(self, name: str) -> bool:
        try:
            answer = await self._ask("PUT", f"/streams/{name}", {"headline": HEADLINE}, keyed=True)
        except Unanswered as error:
            self._add(findings.error("publish", str(error)))
            return False
        if answer.status in (200, 201, 202):
            self._add(findings.ok("publish", "a page is stored"))
            return True
        detail = f"status {answer.status}: {answer.json().get('detail', '')}"
        if answer.status == 401:
            do = f"use a key of the server; or let the header through:\n{remedy('authorization', self.proxy)}"
            self._add(findings.error("publish", f"{judgements.NO_KEY} ({detail})", do))
        else:
            do = f"pushserver keys create doctor --streams '{PREFIX}*' --can publish,page,delete"
            self._add(findings.error("publish", detail, do))
        return False

    async def _end(self, name: str) -> None:
        """Delete the stream; end it where the key may not delete."""
        try:
            if (await self._ask("DELETE", f"/streams/{name}?forget=true", keyed=True)).status in (200, 202):
                return
            answer = await self._ask("POST", f"/streams/{name}/end", keyed=True)
        except Unanswered as error:
            self._add(findings.warning("end", f"the stream {name} is neither deleted nor ended: {error}"))
            return
        if answer.status in (200, 201, 202):
            self._add(findings.ok("end", f"the stream {name} stays listed as ended: the key lacks the right delete"))
        else:
            self._add(findings.warning("end", f"the stream {name} is not ended: status {answer.status}"))

    async def steps(self, stream: str, *, own: bool) -> AsyncIterator[None]:
        """Try one thing after the other; with an `own` stream also what needs entries."""
        await self._tried(self._caches(stream))
        await self._tried(self._pages(stream))
        yield
        if not stream:
            self._add(*(findings.warning(name, NO_STREAM) for name in ("websocket", "events", "time-out")))
            return
        await self._tried(self._readers(stream, own=own))
        yield
        if own:
            await self._tried(self._spread(stream))
            yield
        self._add(*judgements.judge_cookies([answer.headers for answer in self._answers], self.proxy))

    async def _tried(self, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except Unanswered as error:
            self._add(findings.error("reach", str(error)))

    async def _caches(self, stream: str) -> None:
        for path in ("/readyz", "/readyz"):
            answer = await self._ask("GET", path)
        self._add(*judgements.judge_age("/readyz", answer.headers, self.proxy))
        if not (stream and self._target.key):
            return
        path = f"/streams/{stream}/desk/echo"
        sent = time.time()
        first = await self._ask("GET", path, keyed=True)
        received = time.time()
        second = await self._ask("GET", path, keyed=True)
        if first.status != 200 or "id" not in first.json() or second.status != 200:
            self._add(findings.error("echo", f"{path} answers {first.status}", "pass every path on to the server"))
            return
        echo, target = first.json(), self._target
        self._is_direct = judgements.is_direct(echo, first.port)
        at = datetime.fromisoformat(echo["at"]).timestamp()
        self._add(
            *judgements.judge_echo(echo, scheme=target.scheme, netloc=target.netloc, port=first.port, proxy=self.proxy),
            judgements.judge_caching(echo, second.json(), self.proxy),
            judgements.judge_clock(at, sent, received),
        )

    async def _pages(self, stream: str) -> None:
        if stream:
            page = await self._ask("GET", f"/streams/{stream}", Accept="text/html", Accept_Encoding="gzip")
            is_shared = "private" not in page.headers.get("cache-control", "")
            if page.status == 200 and is_shared:  # the server compresses neither refusals nor pages of private streams
                self._add(judgements.judge_coding(page.headers, self.proxy))

    async def _readers(self, stream: str, *, own: bool) -> None:
        """Open a reader of each kind, publish to both, and leave them for two heartbeats."""
        async with AsyncExitStack() as stack:
            readers = [await self._open_socket(stack, stream), await self._open_events(stack, stream)]
            present = [reader for reader in readers if reader is not None]
            heartbeats = [await self._greeted(reader) for reader in present]
            if own and present:
                await self._published(stream, present)
            await self._idle(present, max([beat for beat in heartbeats if beat] or [0.0]))

    async def _open_socket(self, stack: AsyncExitStack, stream: str) -> FollowingReader | None:
        try:
            reader = await stack.enter_async_context(self._target.socket(stream, origin=self._target.origin))
        except Unanswered as error:
            self._add(await self._why_no_socket(stream, error))
            return None
        self._has_socket = True
        self._add(findings.ok("websocket", "passes"))
        return reader

    async def _why_no_socket(self, stream: str, refused: Unanswered) -> Finding:
        """Try it as a program does, which has no origin: if that passes, the server takes the page for a stranger's."""
        if refused.status == 403:
            try:
                async with self._target.socket(stream):
                    says = f"a page of {self._target.origin} is refused (403): the server gets another host or scheme"
                    both = f"{remedy('host', self.proxy)}\n{remedy('scheme', self.proxy)}"
                    return findings.error("websocket", says, f"{both}\nserver: --forwarded PROXY, --public-url")
            except Unanswered as error:
                refused = error
        if refused.status in (401, 403, 404):
            return _no_such_reader("websocket", stream, refused)
        return findings.error("websocket", f"does not pass: {refused}", remedy("upgrade", self.proxy))

    async def _open_events(self, stack: AsyncExitStack, stream: str) -> FollowingReader | None:
        try:
            reader = await stack.enter_async_context(self._target.events(stream))
        except Unanswered as error:
            if error.status in (401, 403, 404):
                self._add(_no_such_reader("events", stream, error))
                return None
            says = f"Server-Sent Events do not pass: {error}"
            self._add(findings.error("events", says, remedy("buffering", self.proxy)))
            return None
        coding = reader.headers.get("content-encoding", "")
        if coding:
            says = f"a proxy compresses Server-Sent Events ({coding}): an event waits until a block is full"
            self._add(findings.error("events", says, remedy("gzip", self.proxy)))
        return reader

    async def _greeted(self, reader: FollowingReader) -> float:
        """The seconds between two heartbeats, as the first frame names them; 0 where it does not come."""
        hello = await reader.next("hello", PROMPT)
        if hello is None:
            self._held(reader, "the first frame")
            return 0.0
        return min(float(hello.get("heartbeat", HEARTBEAT)), HEARTBEAT_MOST)

    def _held(self, reader: FollowingReader, frame: str) -> None:
        if "content-encoding" in reader.headers:
            return  # of which there is a finding
        says = f"{frame} does not arrive within {PROMPT:g} s over {reader.name}: a proxy holds it back"
        subject = "websocket" if reader.name == "WebSocket" else "events"
        self._add(findings.error(subject, says, remedy("buffering", self.proxy)))

    async def _published(self, stream: str, readers: list[FollowingReader]) -> None:
        """Publish an entry, which every reader gets at once."""
        answer = await self._ask("POST", f"/streams/{stream}/entries", {"headline": HEADLINE}, keyed=True)
        if answer.status not in (201, 202):
            self._add(findings.error("publish", f"an entry is refused: status {answer.status}"))
            return
        for reader in readers:
            if await reader.next("entry.put", PROMPT) is None:
                self._held(reader, "an entry")
            elif reader.name != "WebSocket":
                self._add(findings.ok("events", "Server-Sent Events are not held back"))

    async def _idle(self, readers: list[FollowingReader], heartbeat: float) -> None:
        """Wait for two heartbeats: whoever is cut meanwhile would be cut on every quiet stream."""
        if not heartbeat:
            return
        for reader in readers:
            for _ in range(2):
                if await reader.next("head", 2 * heartbeat + PROMPT) is None:
                    break
            if reader.ended_after is not None:
                says = f"{reader.name} was cut after {reader.ended_after:.1f} s, with heartbeats each {heartbeat:g} s"
                do = remedy("timeout", self.proxy, seconds=max(4 * heartbeat, 60))
                self._add(findings.error("time-out", says, do))
            else:
                self._add(findings.ok("time-out", f"{reader.name} outlasts two heartbeats ({heartbeat:g} s each)"))

    async def _spread(self, stream: str) -> None:
        """Let readers resume, and see by the receipt of an entry on which workers they are."""
        first = await self._ask("POST", f"/streams/{stream}/entries", {"headline": HEADLINE}, keyed=True)
        cursor = first.json().get("cursor", "")
        async with AsyncExitStack() as stack:
            readers = [await self._resumed(stack, stream, cursor) for _ in range(READERS)]
            hellos = [await reader.next("hello", PROMPT) for reader in readers if reader]
            if not hellos:
                return
            reasons = {str(hello.get("reason")) for hello in hellos if hello and not hello.get("complete")}
            if reasons:
                says = f"a reader that comes back gets no missed events but a snapshot: {', '.join(sorted(reasons))}"
                self._add(findings.error("resume", says, "give every server the same store (--redis)"))
            else:
                self._add(findings.ok("resume", f"{len(hellos)} readers go on where they were"))
            await self._receipt(stream, len(hellos))

    async def _resumed(self, stack: AsyncExitStack, stream: str, cursor: str) -> FollowingReader | None:
        open_reader = self._target.socket if self._has_socket else self._target.events
        try:
            return await stack.enter_async_context(open_reader(stream, cursor))
        except Unanswered:
            return None

    async def _receipt(self, stream: str, readers: int) -> None:
        entry = await self._ask("POST", f"/streams/{stream}/entries", {"headline": HEADLINE}, keyed=True)
        path = f"/streams/{stream}/entries/{entry.json().get('id')}/delivery?wait=5"
        receipt = (await self._ask("GET", path, keyed=True)).json()
        if "workers" in receipt:
            spread = judgements.judge_spread(receipt["workers"], readers, self.proxy, is_direct=self._is_direct)
            self._add(spread)


def _no_such_reader(subject: str, stream: str, refused: Unanswered) -> Finding:
    return findings.error(
        subject, f"{refused} for the stream {stream}", "name a public stream: --stream, or give a token for it: --token"
    )
