"""The algebra of the retry budget, and the bounds of a backoff."""

from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.retry import MAX_TOKENS, RetryBudget, backoff

Actions = st.lists(st.booleans(), max_size=400)  # True: a first attempt, False: the wish for a further one


def granted(budget: RetryBudget, actions: list[bool]) -> list[bool | None]:
    """Return for each action whether a token was granted, None for a first attempt."""
    outcomes: list[bool | None] = []
    for earns in actions:
        if earns:
            budget.earn()
        outcomes.append(None if earns else budget.spend())
    return outcomes


@given(Actions, Actions, Actions)
def test_retries_are_a_tenth_of_the_first_attempts_and_ten(
    before: list[bool], actions: list[bool], after: list[bool]
) -> None:
    """I20: in every stretch, further attempts are at most ten and a tenth of the first ones."""
    stretch = granted(RetryBudget(), before + actions + after)[len(before) : len(before) + len(actions)]
    assert stretch.count(True) <= MAX_TOKENS + stretch.count(None) / 10


@given(Actions)
def test_a_refusal_is_counted_and_free(actions: list[bool]) -> None:
    """A refusal leaves the budget unchanged, and changes no later outcome."""
    budget = RetryBudget()
    outcomes = granted(budget, actions)
    assert budget.refused == outcomes.count(False)
    kept = [action for action, outcome in zip(actions, outcomes, strict=True) if outcome is not False]
    assert granted(RetryBudget(), kept) == [outcome for outcome in outcomes if outcome is not False]


@given(Actions)
def test_a_hundred_first_attempts_fill_it(actions: list[bool]) -> None:
    """After a hundred first attempts ten further ones may follow each other, and not eleven."""
    budget = RetryBudget()
    granted(budget, actions)
    granted(budget, [True] * (10 * MAX_TOKENS))
    assert granted(budget, [False] * (MAX_TOKENS + 1)) == [True] * MAX_TOKENS + [False]


def test_ten_first_attempts_earn_one() -> None:
    """Exactly ten first attempts earn one, without rounding errors."""
    budget = RetryBudget(limit=1)
    assert granted(budget, [False, False]) == [True, False]
    for _ in range(50):
        assert granted(budget, [True] * 9 + [False, True, False]) == [None] * 9 + [False, None, True]


@given(st.lists(st.floats(0, 30), max_size=50))
def test_a_second_earns_one(pauses: list[float]) -> None:
    """I20: without first attempts, there are at most ten further ones, and one for each second.

    After a long pause there are ten again, whatever came before.
    """
    clock = FakeClock(0.0)
    budget = RetryBudget(clock=clock)
    spent = 0
    for pause in pauses:
        clock.advance(pause)
        spent += budget.spend()
        assert spent <= MAX_TOKENS + clock.now + 1e-6
    clock.advance(MAX_TOKENS)
    clock.advance(MAX_TOKENS)
    assert granted(budget, [False] * (MAX_TOKENS + 1)) == [True] * MAX_TOKENS + [False]


@given(st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_a_backoff_lies_between_zero_and_a_bound_that_doubles(failures: int, chance: float) -> None:
    """The pause has full jitter, from zero up to a bound that doubles."""
    assert (backoff(0.1, 1, 0.5), backoff(0.1, 3, 0.5)) == (0.05, 0.2)
    assert 0 <= backoff(0.1, failures, chance) < 0.1 * 2 ** (failures - 1)
