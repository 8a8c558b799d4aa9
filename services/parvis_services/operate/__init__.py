"""Services that keep the others going."""
