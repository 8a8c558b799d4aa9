"""Recipes: the graph, its templates, its checks and its picture."""
