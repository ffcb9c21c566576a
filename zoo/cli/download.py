"""``zoo download``: published weights by name."""

from pathlib import Path


def run(name: str, from_file: Path | None = None, rest: bool = True) -> None:
    """Fetch published weights, check and convert them; afterwards they are available by name.

    Args:
        name: a published checkpoint that 'zoo list' shows, or hf:user/repository for a bundle on the Hub.
        from_file: the file, downloaded by hand (also --from).
        rest: also keep raw weights, other EMAs and the discriminator, if the file has them.
    """
    from zoo.weights.download import download as fetch_weights

    print(fetch_weights(name, from_file, rest))
