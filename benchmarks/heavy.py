"""A worker whose module takes long to import and is not preloaded, as many real ones."""

from __future__ import annotations

import asyncio  # noqa: F401
import email.message  # noqa: F401
import sqlite3  # noqa: F401
import unittest.mock  # noqa: F401
import urllib.request  # noqa: F401
import xml.dom.minidom  # noqa: F401

from workers import Idle


class Heavy(Idle):
    """Reports its first loop, then waits."""
