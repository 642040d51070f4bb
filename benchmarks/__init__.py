"""Measurements of fieldmark, each a ratio against something named, taken in one run."""
