"""The viewer: an HTTP interface to one run, and the page that shows it."""
