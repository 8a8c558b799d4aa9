"""The edge to `workflows` and `zocalo`: our services in their launchers, theirs in ours, one connection.

Only here are those packages imported; the extra `parvis[zocalo]` brings them.
"""
