"""The one writer of tables on results pages."""

from benchmarks.markdown import table


def test_columns_of_numbers_stand_right():
    rows = [("a", 1, "0.5 ± 0.1", "< 0.01", "x"), ("2", "not run", "**-0.5**", "", "1")]
    assert table(["", "n", "gap", "p", "why"], rows) == [
        "| | n | gap | p | why |",
        "|---|--:|--:|--:|---|",
        "| a | 1 | 0.5 ± 0.1 | < 0.01 | x |",
        "| 2 | not run | **-0.5** | | 1 |",
    ]


def test_a_table_without_rows_or_numbers():
    assert table(["a", "b"], []) == ["| a | b |", "|---|---|"]
    assert table(["a", "b"], [("x", "not run")])[1] == "|---|---|"
