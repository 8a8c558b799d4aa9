"""Services that watch for data."""
