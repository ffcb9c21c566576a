"""Ranges of numbers: what is refused, and what the sentence says."""

import math

import pytest
import torch

from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, between, given


@pytest.mark.parametrize(
    ("check", "value", "sentence"),
    [
        (lambda x: at_least(1, views=x), 0, "views is 0: give a number of at least 1."),
        (lambda x: at_least(1, views=x), -3, "views is -3: give a number of at least 1."),
        (lambda x: at_least(0, views=x), math.inf, "views is inf: give a number of at least 0."),
        (lambda x: at_least(1, channels=x), [64, 0], "channels holds 0: give numbers of at least 1."),
        (lambda x: at_least(1, channels=x), {8: 64, 16: -1}, "channels holds -1: give numbers of at least 1."),
        (lambda x: at_least(1, views=x), None, "views is null: give a number of at least 1."),
        (lambda x: at_least(1, views=x), "many", "views is many: give a number of at least 1."),
        (lambda x: above(0, seconds=x), 0.0, "seconds is 0.0: give a number above 0."),
        (lambda x: above(0, seconds=x), math.nan, "seconds is nan: give a number above 0."),
        (lambda x: between(0, 1, decay=x), 2, "decay is 2: give a number from 0 to 1."),
        (lambda x: between(0, 1, decay=x), math.nan, "decay is nan: give a number from 0 to 1."),
    ],
)
def test_numbers_outside_are_refused_by_name(check, value, sentence):
    with pytest.raises(UserError) as error:
        check(value)
    assert str(error.value) == sentence


def test_numbers_inside_pass():
    at_least(1, views=1, frames=1.5, channels=[1, (2, 3)], **given(resolution=None))
    above(0, seconds=1e-9)
    between(0, 1, decay=0, share=1.0)
    between(0, math.inf, clip_norm=math.inf)
    at_least(1, views=torch.tensor(3).item())
