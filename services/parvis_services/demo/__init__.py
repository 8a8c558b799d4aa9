"""The demonstration: a whole grid scan on one machine."""
