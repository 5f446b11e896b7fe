"""Who may see the page and steer the tree: the one-time token, the cookie, and the checks of each request.

A page of another site, also one whose name was made to point to this machine (DNS rebinding), gets nothing: its `Host`
or its `Origin` is wrong, and the browser does not send it our cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
from collections.abc import Mapping

__all__ = ["HEADERS", "Refused", "Security"]

HEADERS: dict[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The headers of every answer. No script or style is inline, and nothing is loaded from elsewhere."""


class Refused(Exception):
    """A request that is not answered; `status` is the HTTP status, the text tells the reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status: int = status


class Security:
    """The secrets of one observer, and the checks of requests.

    Args:
        host: the address that it listens at.
        port: the port, which the name of the cookie has in it: cookies are shared by all ports of a host.
        token: the one-time token of the URL.
    """

    def __init__(self, host: str, port: int, token: str) -> None:
        self.cookie: str = f"suitkaise-{port}"
        self.csrf: str = secrets.token_urlsafe(32)
        self._host = host.strip("[]").lower()
        self._session = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._token: str | None = token

    def exchange(self, token: str) -> str | None:
        """Return the value of the cookie for the one-time token; None if it is wrong or was used before."""
        with self._lock:
            if self._token is None or not _equal(token, self._token):
                return None
            self._token = None
            return self._session

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Check `Host`, `Origin` and `Sec-Fetch-Site`. Raises Refused."""
        host = headers.get("host", "").lower()
        if not self._is_ours(_name(host)):
            raise Refused(421, f"this observer is not at {host!r}; use the URL that it has printed")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, f"requests of pages of {origin!r} are not answered")

    def check_session(self, cookies: Mapping[str, str]) -> None:
        """Check the cookie. Raises Refused."""
        if not _equal(cookies.get(self.cookie, ""), self._session):
            raise Refused(401, "open the URL that the observer has printed; it holds a token, which can be used once")

    def check_site(self, headers: Mapping[str, str]) -> None:
        """Check that a request for data comes from our own page, as far as the browser tells. Raises Refused."""
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refused(403, "requests of other pages are not answered")

    def check_change(self, headers: Mapping[str, str]) -> None:
        """Check that a request that changes something comes from our own page. Raises Refused."""
        if "origin" not in headers:
            raise Refused(403, "a change needs an Origin header, which every browser sends")
        if not _equal(headers.get("x-csrf-token", ""), self.csrf):
            raise Refused(403, "a change needs the page's own X-CSRF-Token; reload the page")

    def _is_ours(self, name: str) -> bool:
        if name in ("localhost", "127.0.0.1", "::1", self._host):
            return True
        if self._host not in ("0.0.0.0", "::", ""):
            return False
        try:  # at all addresses of the machine: an address cannot be rebound, a name can
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name(host: str) -> str:
    """Return the `Host` header without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] or host


def _equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())
