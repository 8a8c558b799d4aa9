"""Services that analyse images."""
