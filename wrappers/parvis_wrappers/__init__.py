"""Long jobs: one module a wrapped program. None yet: a site adds its own through the entry point `parvis.wrappers`."""
