"""Shift consistency of anybody's classifier on anybody's images."""
