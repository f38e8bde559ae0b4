"""Remedies: for each fault of a proxy the line of nginx, HAProxy and Caddy that mends it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

NAMES = {"nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy"}

REMEDIES: dict[str, dict[str, str]] = {
    "upgrade": {
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
        "haproxy": "mode http passes upgrades on: remove `http-request del-header Upgrade`, and `option httpclose`",
        "caddy": "reverse_proxy passes upgrades on: remove `header_up -Upgrade` and `header_up -Connection`",
    },
    "buffering": {
        "nginx": "proxy_buffering off;  # and no `proxy_ignore_headers X-Accel-Buffering`",
        "haproxy": "remove what waits for the whole answer: `http-response wait-for-body`, filters",
        "caddy": "flush_interval -1",
    },
    "gzip": {
        "nginx": "gzip off;  # where /sse is passed on; or `gzip_types` without text/event-stream and *",
        "haproxy": "compression type text/html text/css application/javascript  # without text/event-stream",
        "caddy": "@pages not path */sse  and  encode @pages gzip",
    },
    "timeout": {
        "nginx": "proxy_read_timeout {seconds}s; proxy_send_timeout {seconds}s;",
        "haproxy": "timeout client {seconds}s, timeout server {seconds}s, timeout tunnel {seconds}s",
        "caddy": "transport http without `read_timeout` and `write_timeout`, or {seconds}s for each",
    },
    "host": {
        "nginx": "proxy_set_header Host $http_host;",
        "haproxy": "remove `http-request set-header Host …`",
        "caddy": "header_up Host {{host}}",
    },
    "scheme": {
        "nginx": "proxy_set_header X-Forwarded-Proto $scheme;",
        "haproxy": "http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}",
        "caddy": "header_up X-Forwarded-Proto {{scheme}}",
    },
    "address": {
        "nginx": "proxy_set_header X-Forwarded-For $remote_addr;",
        "haproxy": "option forwardfor",
        "caddy": "remove `header_up -X-Forwarded-For`",
    },
    "authorization": {
        "nginx": "proxy_set_header Authorization $http_authorization;",
        "haproxy": "remove `http-request del-header Authorization`",
        "caddy": "remove `header_up -Authorization`",
    },
    "cache": {
        "nginx": "proxy_cache off; where /desk/ and /readyz are passed on; no `proxy_ignore_headers Cache-Control`",
        "haproxy": "http-request cache-use … only `unless {{ path_sub /desk/ }}`",
        "caddy": "no `cache` of answers with Cache-Control: no-store",
    },
    "coding": {
        "nginx": "proxy_set_header Accept-Encoding $http_accept_encoding;",
        "haproxy": "remove `http-request del-header Accept-Encoding`, and `compression offload`",
        "caddy": "remove `header_up -Accept-Encoding`",
    },
    "sticky": {
        "nginx": "least_conn;  # in the upstream, in place of ip_hash, hash or sticky",
        "haproxy": "balance leastconn  # in place of `balance source`; remove `cookie` and `stick on`",
        "caddy": "lb_policy least_conn  # in place of ip_hash, client_ip_hash or cookie",
    },
}


def proxy_of(headers: Mapping[str, str]) -> str:
    """The proxy that answers show by their headers; '' where they do not. HAProxy adds none."""
    shown = f"{headers.get('server', '')} {headers.get('via', '')}".lower()
    return next((name for name in ("nginx", "caddy") if name in shown), "")


def remedy(fault: str, proxy: str = "", *, seconds: float = 60.0) -> str:
    """The lines that mend a fault: that of the proxy that is known, else of each."""
    lines = {name: text.format(seconds=f"{seconds:g}") for name, text in REMEDIES[fault].items()}
    names = [proxy] if proxy in lines else [*lines]
    return "\n".join(f"{NAMES[name]}: {lines[name]}" for name in names)
