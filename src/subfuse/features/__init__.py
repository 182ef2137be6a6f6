"""Patch features: encoders, our feature files and those of other tools."""
