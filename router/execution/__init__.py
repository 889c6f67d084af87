"""Carries a plan through against the clock."""
