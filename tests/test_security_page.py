"""The results of attacks in docs/security.md."""

from security_page import BEGIN, END, PAGE, Trial, with_results

TRIAL = Trial("family", "a|b", 1234, "all refused", "passed", "2026-01-02", "Python 3")


def test_results_replace_earlier_ones() -> None:
    """The text around the results stays, and a second run leaves one table."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = with_results(page, [TRIAL])
    assert once.startswith(f"before\n{BEGIN}\n\n| attack ")
    assert once.endswith(f"\n\n{END}\nafter\n")
    assert "| family | a/b | 1,234 | all refused | passed | 2026-01-02 | Python 3 |" in once
    assert "old" not in once
    assert with_results(once, [TRIAL]) == once


def test_the_page_has_a_place_for_them() -> None:
    """The page has one place for results, which all suites share."""
    text = PAGE.read_text()
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    assert text.index(BEGIN) < text.index(END)
