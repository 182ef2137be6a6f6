from subfuse.doctor import diagnose


def test_slide_formats_that_the_tests_do_not_cover_are_named_as_such() -> None:
    rows = {what: (state, remedy) for what, state, remedy in diagnose("a name that no encoder has")}

    (untried,) = (row for what, row in rows.items() if "NDPI" in what)
    assert "not tested" in untried[0]
    assert rows["encoder a name that no encoder has"][0] == "not available"
    assert rows["pyarrow"][1] == ("pip install 'subfuse[parquet]'" if rows["pyarrow"][0] == "missing" else "")
