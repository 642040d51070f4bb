"""Pages that people open in a browser: one file, no scripts, nothing fetched, every name escaped."""

from __future__ import annotations

from pipeline.pages.picture import COLOURS, Box, picture_with_boxes
from pipeline.pages.render import render

__all__ = ["COLOURS", "Box", "picture_with_boxes", "render"]
