"""This project's package ``datamodules``, for programs that have this folder first on their path."""

from zoo.utils.user_code import become

become(__name__)
