"""Adapters to other projects. Each needs an extra of its own and is imported by its full name."""
