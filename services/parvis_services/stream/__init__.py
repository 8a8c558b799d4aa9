"""Detector streams: what a detector sends while it collects, read and written, and shared in memory."""
