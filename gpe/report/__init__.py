"""Blocks, and two renderers that draw any of them; it reads records and runs nothing."""
