"""Publishing again what the store had acknowledged and lost, as after a failover to a replica that lagged behind.

Pure. Whoever still holds the event sends it through the same script, under the idempotency key that it came with: of
all workers one wins, and a publisher who meanwhile sent it again loses nothing either. Entry and revision stay what
they were; place and number in the order are new.
"""

from __future__ import annotations

from . import model
from .log import Append
from .model import Event


def again(stream: str, event: Event) -> Append:
    """The event as it was published, to be stored in place of the revision that it replaced."""
    data = model.loads(event.data)
    about = {"entry.put": "entry", "page.put": "page", "stream.end": "page"}.get(event.type)
    state = data[about] if about else data
    at = model.milliseconds(data["at"])
    key, _, body_hash = event.request.partition(" ")
    return Append(
        stream=stream,
        type=event.type,
        data=data,
        at=at,
        state=state,
        rev=state["rev"],
        shown_at=event.shown_at,
        entry_id=event.entry_id,
        order=model.order_of(state) if event.type == "entry.put" else at,
        key=key or f"lost-{event.cursor.nonce}",
        body_hash=body_hash,
    )
