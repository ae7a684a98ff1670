"""Which accounts are asked for, and how often."""

from __future__ import annotations

from connectors.account_questions import MAX_ACCOUNTS_ASKED, RESYNC_INTERVAL_S, Questions


def make() -> tuple[Questions, list[None]]:
    woken: list[None] = []
    return Questions(lambda: woken.append(None)), woken


def test_nothing_is_asked_while_no_connection_is_open() -> None:
    questions, woken = make()
    assert not questions.ask("a", b"a?", 0.0)
    assert questions.take() is None
    questions.open()
    assert questions.ask("a", b"a?", 1.0)
    assert questions.take() == b"a?"
    assert questions.take() is None
    questions.close()
    assert not questions.ask("b", b"b?", 2.0)
    assert (questions.asked, questions.refused, len(woken)) == (1, 2, 1)


def test_an_account_is_asked_for_once_per_interval() -> None:
    questions, _ = make()
    questions.open()
    assert questions.ask("a", b"first", 10.0)
    assert questions.ask("b", b"other", 11.0)
    assert questions.ask("a", b"again", 10.0 + RESYNC_INTERVAL_S - 0.001)
    assert [questions.take(), questions.take(), questions.take()] == [b"first", b"other", None]
    assert questions.ask("a", b"again", 10.0 + RESYNC_INTERVAL_S)
    assert questions.take() == b"again"
    assert (questions.asked, questions.refused) == (3, 0)


def test_a_new_connection_is_asked_anew_and_gets_no_old_questions() -> None:
    questions, _ = make()
    questions.open()
    questions.ask("a", b"unsent", 0.0)
    questions.close()
    assert questions.take() is None
    questions.open()
    assert questions.take() is None
    assert questions.ask("a", b"new", 0.1)
    assert questions.take() == b"new"


def test_there_is_a_limit_to_questions_and_what_it_costs_is_counted() -> None:
    questions, _ = make()
    questions.open()
    assert all(questions.ask(str(number), b"?", 0.0) for number in range(MAX_ACCOUNTS_ASKED))
    assert not questions.ask("one more", b"?", 1.0)
    assert questions.ask("7", b"?", 1.0), "that one is on its way"
    assert questions.refused == 1
    # Asked long ago, but not sent yet: a connection that takes nothing must not let questions pile up.
    assert not questions.ask("one more", b"?", RESYNC_INTERVAL_S + 1.0)
    questions.take()
    assert questions.ask("one more", b"?", RESYNC_INTERVAL_S + 1.0)
    assert questions.asked == MAX_ACCOUNTS_ASKED + 1
