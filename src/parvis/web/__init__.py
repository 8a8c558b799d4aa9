"""The web page: what goes on, for a browser and for a phone; started by `parvis web`."""
