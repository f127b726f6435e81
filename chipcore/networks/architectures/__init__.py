"""Architectures that no library has."""
