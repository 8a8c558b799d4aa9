"""Parvis: recipes, messages and small stateless services for data analysis after acquisition."""

from importlib.metadata import version as _version

__version__ = _version("parvis")
