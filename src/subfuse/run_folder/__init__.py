"""The folder of a run: the only place that knows where its files lie and what its tables hold."""
