"""Mutated commands and configs: each works or is refused in one sentence; ``python -m tests.fuzz N`` tries more."""

import signal
import sys

import pytest

from tests import fuzz


def test_mutated_commands_work_or_end_in_one_sentence():
    assert fuzz.run(60) == []


def test_a_long_word_is_no_long_sentence():
    assert fuzz.problem(fuzz.Case(["x" * 2000], {}, False)) is None


def test_mutations_are_those_of_the_seed_and_of_all_kinds():
    first = list(fuzz.cases(60, seed=0))
    assert first == list(fuzz.cases(60, seed=0)) != list(fuzz.cases(60, seed=1))
    assert {bool(case.files) for case in first} == {case.on_meta for case in first} == {True, False}


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: print("zoo: error: " + "x" * 300, file=sys.stderr) or 2, "cannot be read"),
        (lambda: print("zoo: error: \x1b[31m", file=sys.stderr) or 2, "cannot be read"),
        (lambda: print("usage: zoo", file=sys.stderr) or 2, "ends with 2"),
        (lambda: 3, "ends with 3"),
        (lambda: print("Traceback (most recent call last):", file=sys.stderr), "prints a traceback"),
        (lambda: signal.raise_signal(signal.SIGALRM), "takes more than"),
    ],
)
def test_a_wrong_answer_is_found(answer, wrong, monkeypatch):
    monkeypatch.setattr(fuzz, "main", lambda words: answer())
    assert wrong in fuzz.problem(fuzz.Case(["list"], {}, False))
