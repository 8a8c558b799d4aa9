"""Services that start recipes."""
