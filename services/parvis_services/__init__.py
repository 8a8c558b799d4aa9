"""The services of a beamline, found by `parvis` through entry points."""
