"""The actor of xoscar that `message_peers` asks, in a module that its process can import."""

from __future__ import annotations

from typing import Any

import xoscar


class Echo(xoscar.Actor):
    def echo(self, message: Any) -> Any:
        return message
