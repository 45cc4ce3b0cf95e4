"""Looks in a database for work and launches each row once, never more than N at a time."""
