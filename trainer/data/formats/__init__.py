"""Readers of what annotation tools export: one module a format, `shapes` what they read into."""
