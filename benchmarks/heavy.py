"""A worker whose module takes its time to import, as many of real life do; nobody preloads it."""

from __future__ import annotations

import asyncio  # noqa: F401
import email.message  # noqa: F401
import sqlite3  # noqa: F401
import unittest.mock  # noqa: F401
import urllib.request  # noqa: F401
import xml.dom.minidom  # noqa: F401

from workers import Idle


class Heavy(Idle):
    """Tells when its first loop runs, then waits."""
