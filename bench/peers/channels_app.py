"""A peer: Django Channels on Daphne, with its Redis layer. It stores nothing.

Publishing is a bare ASGI application: a consumer's own channel, which it leaves with each request, loses entries here.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import re_path

# All readers of a process share the capacity: what is over it is dropped.
CONFIG = {"hosts": [os.environ["STORE"]], "capacity": 1_000_000}
LAYER = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": CONFIG}
settings.configure(CHANNEL_LAYERS={"default": LAYER}, SECRET_KEY="only for a benchmark on this machine")
django.setup()


class Read(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.group = f"g{self.scope['url_route']['kwargs']['group']}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def entry(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


async def http(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """`POST /pub/G`, and anything else."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"].startswith("/pub/"):
        group = f"g{scope['path'].removeprefix('/pub/')}"
        await get_channel_layer().group_send(group, {"type": "entry", "text": body.decode()})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


websocket = URLRouter([re_path(r"^ws/(?P<group>\d+)$", Read.as_asgi())])
application = ProtocolTypeRouter({"websocket": websocket, "http": http})
