"""Variables that are given twice."""

from manager.application.spec_body import last_of_each


def test_the_last_value_counts_and_the_order_is_kept() -> None:
    given = ["A=first", "B=kept", "A=last", "C", "B=", "C=c=d"]
    assert last_of_each(given) == ["A=last", "B=", "C=c=d"]
