"""Durations and moments as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


def tell_duration(seconds: float) -> str:
    """`0.4 s`, `72 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def tell_moment(moment: str) -> str:
    """An ISO 8601 time where the reader is: `4 Mar 14:05`, and `4 Mar 2025` for what is older than half a year."""
    local = datetime.fromisoformat(moment).astimezone()
    recent = datetime.now(timezone.utc) - local < timedelta(days=180)
    return f"{local.day} {local:%b %H:%M}" if recent else f"{local.day} {local:%b %Y}"
