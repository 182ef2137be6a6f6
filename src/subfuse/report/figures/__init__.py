"""The figures of a report, drawn from numbers alone: nothing here is public."""

__all__: list[str] = []
