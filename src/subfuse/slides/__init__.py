"""Slides and folders of tiles: opening them, finding tissue, looking at their quality."""
