"""Simulated detectors: synthetic frames and the file formats a detector writes."""
