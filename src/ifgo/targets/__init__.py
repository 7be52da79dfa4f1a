"""Targets: each prints a Program as source, builds it and runs it. None defines arithmetic."""
