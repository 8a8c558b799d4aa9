"""Long jobs: one module a wrapped program. None are part of this release."""
