"""Its own package, so that one of the same name that a library installs is not taken for it."""
