"""Models to compare with: slides only, expression only, both."""
