"""The error of a reply that was cut off."""

from __future__ import annotations

import aiohttp


class ReplyLost(aiohttp.ClientError):
    """An established connection broke: the request may have taken effect."""
