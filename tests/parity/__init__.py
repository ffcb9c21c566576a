"""Cases of published programs, recorded as ``cases/<system>/<case>``, and what replays them.

``harness.py`` reads cases and compares; ``replay.py`` stands in for what was drawn or computed elsewhere;
``published.py`` loads, watches and trains networks. Each system has a package with a function for each kind of case:

- ``build.py``: networks, cameras and renderers for published options; names of published tensors
- ``draws.py``: published random numbers under our names
- ``networks.py``, ``rendering.py``, ``sampling.py``, ``training.py``, ``files.py``: the cases, by what they are about
- ``__init__.py``: ``KINDS``, the function for cases whose names begin so; ``ABSENT``, outputs that our formulation does
  not have, by kind of case, with the reason; ``LOOSE``, outputs whose tolerance may be over ten times the usual, by
  kind of case and pattern of names: how often, and why
"""
