"""Who may use the panel: on this machine everybody, over the network who knows the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is heard on this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """The rules. An empty token: whoever reaches the port, which only this machine does."""

    token: str

    @classmethod
    def to(cls, host: str, token: str = "") -> Access:
        """Returns the rules for a panel that listens on `host`.

        Beyond this machine a token is always wanted: one is made if none is given.
        """
        return cls(token if token or is_loopback(host) else secrets.token_urlsafe(16))

    @property
    def cookie(self) -> str:
        """The name of the cookie with the token: another one for each, because all panels of a
        host, on whatever port, get the same cookies."""
        return f"mobile_sam_panel_{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"

    def has_token(self, given: str | None) -> bool:
        """Whether a token is the right one."""
        return hmac.compare_digest((given or "").encode(), self.token.encode())

    def refusal(self, headers: Mapping[str, str], cookie: str | None) -> str:
        """Returns why a request is refused, empty if it is not.

        Args:
            headers: of the request.
            cookie: the token in it.
        """
        host = headers.get("Host", "")
        origin = headers.get("Origin")
        # A page of another site that runs in the user's browser must not get in.
        if origin is not None and urlsplit(origin).netloc != host:
            return f"origin {origin} is not this panel"
        if self.token:
            if self.has_token(cookie):
                return ""
            return "the panel's address is the one that it prints at its start, with the token"
        # Nor may a site that gave its own name this machine's address (DNS rebinding).
        name = urlsplit(f"//{host}").hostname or ""
        return "" if name in _LOOPBACK_NAMES else f"this panel is not called {name!r}"
