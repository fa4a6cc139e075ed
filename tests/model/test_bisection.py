"""Searching for the moment of a loss: the right bracket, never more questions than promised, and no change overseen
that a question has met."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.model.bisection import (
    Answer,
    Change,
    Question,
    Span,
    Why,
    bracket,
    changes,
    next_question,
    unsteady,
)

DAY = 86_400_000


def asked(span: Span, holds: Callable[[int], bool], commits: Sequence[int] | None = None) -> list[Answer]:
    """All answers of a search. `commits`, sorted: when the state changed; None: Neon does not say."""
    answers: list[Answer] = []
    while question := next_question(span, answers):
        at = question.at
        known = [] if commits is None else [each for each in commits if each <= at][-1:]
        since = known[0] if known else at
        answers.append(Answer(at=at, why=question.why, holds=holds(at), unchanged_since=since))
        assert len(answers) <= span.most
    return answers


@st.composite
def spans(draw: st.DrawFn) -> Span:
    since = draw(st.integers(0, 10**13))
    return Span(since, since + draw(st.integers(1, 40 * DAY)), draw(st.sampled_from([1, 7, 1000])))


@given(spans(), st.data())
def test_one_change_is_bracketed_to_the_step_with_at_most_the_promised_questions(
    span: Span, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(span.since + 1, span.until))
    answers = asked(span, lambda at: at < lost)
    good, bad = bracket(answers)
    assert span.since <= good < lost <= bad <= span.until
    assert bad - good <= span.step
    assert len(changes(answers)) == 1
    assert unsteady(answers) == ()


@given(spans(), st.data())
def test_what_neon_says_of_commits_only_makes_it_more_exact(span: Span, data: st.DataObject) -> None:
    moments = st.integers(span.since, span.until)
    lost = data.draw(st.integers(span.since + 1, span.until))
    commits = sorted({lost, *data.draw(st.lists(moments, max_size=20))})
    answers = asked(span, lambda at: at < lost, commits)
    good, bad = bracket(answers)
    assert span.since <= good < lost <= bad <= span.until
    assert bad - good <= span.step
    assert unsteady(answers) == ()
    assert bad in commits  # the first bad moment is where something was committed, not where a question happened to be


@given(spans(), st.data())
def test_a_lonely_commit_is_found_to_the_millisecond(span: Span, data: st.DataObject) -> None:
    lost = data.draw(st.integers(span.since + 1, span.until))
    assert bracket(asked(span, lambda at: at < lost, [span.since, lost])) == (lost - 1, lost)


@given(spans(), st.data())
def test_every_change_between_two_questions_is_told_and_the_last_loss_is_bracketed(
    span: Span, data: st.DataObject
) -> None:
    inside = st.integers(span.since + 1, span.until)
    turns = sorted(data.draw(st.sets(inside, min_size=1, max_size=7)))
    turns = turns if len(turns) % 2 else turns[:-1]  # it holds at the beginning and not at the end

    def holds(at: int) -> bool:
        return bisect_right(turns, at) % 2 == 0

    answers = asked(span, holds, turns if data.draw(st.booleans()) else None)
    good, bad = bracket(answers)
    assert holds(good)
    assert not holds(bad)
    assert bad - good <= span.step
    met = [holds(at) for at in (span.since, *span.samples, span.until)]
    assert len(changes(answers)) >= sum(one != two for one, two in pairwise(met))
    assert all(answer.at <= good for answer in answers if answer.holds)
    assert unsteady(answers) == ()


def test_deleted_put_back_and_deleted_again_is_seen_by_the_samples() -> None:
    span = Span(0, 10_000, 1)
    answers = asked(span, lambda at: at < 3000 or 5000 < at < 9000)
    assert [(change.holds) for change in changes(answers)] == [False, True, False]
    assert bracket(answers) == (8999, 9000)


def test_a_day_takes_22_questions_to_the_second_and_31_to_the_millisecond() -> None:
    assert Span(0, DAY, 1000).most == 22
    assert Span(0, DAY, 1).most == 31
    assert len(asked(Span(0, DAY, 1000), lambda at: at < 50_123_456)) == 22


@pytest.mark.parametrize(("at_since", "at_until", "questions"), [(False, False, 1), (False, True, 1), (True, True, 2)])
def test_ends_that_are_not_as_they_should_be_end_the_search(at_since: bool, at_until: bool, questions: int) -> None:
    assert len(asked(Span(0, DAY, 1000), lambda at: at_until if at else at_since)) == questions


def test_a_range_of_one_millisecond_needs_its_ends_only() -> None:
    assert [answer.why for answer in asked(Span(5, 6, 1000), lambda at: at < 6)] == [Why.END, Why.END]


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been() -> None:
    span = Span(0, DAY, 1000)
    whole = asked(span, lambda at: at < 777_777)
    for number, answer in enumerate(whole):
        assert next_question(span, whole[:number]) == Question(answer.at, answer.why)


def test_a_change_without_a_commit_is_told() -> None:
    answers = [
        Answer(at=0, why=Why.END, holds=True, unchanged_since=0),
        Answer(at=100, why=Why.END, holds=False, unchanged_since=0),
    ]
    assert unsteady(answers) == (Change(0, 100, False),)
