from subfuse.pipeline import _then


def test_the_last_step_says_what_follows():
    told = []
    progress = _then(lambda *step: told.append(step), "now the report")
    assert progress is not None
    progress(1, 2, "explain: a")
    progress(2, 2, "explain: b")
    assert told == [(1, 2, "explain: a"), (2, 2, "explain: b; now the report")]
    assert _then(None, "now the report") is None
