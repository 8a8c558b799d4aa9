"""Spotfinding and per-image statistics, with no messaging in it."""
