"""Services that take images from a detector's stream."""
