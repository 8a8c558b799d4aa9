"""The ISPyB metadata database: look-ups and stores, with no messaging in it."""
