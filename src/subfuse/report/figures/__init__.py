"""The figures of a report, drawn from numbers alone."""
