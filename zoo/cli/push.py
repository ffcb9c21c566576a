"""``zoo push``: a bundle for the Hugging Face Hub."""


def run(source: str, repository: str, private: bool = False, redistribute: bool = False) -> None:
    """Copy a bundle to the Hugging Face Hub; 'zoo download hf:user/name' fetches it from there.

    Args:
        source: name or folder of a bundle.
        repository: user/name; made where there is none.
        private: a new repository is seen by its owner only.
        redistribute: also weights converted from a published checkpoint, with permission of its authors.
    """
    from zoo.weights.hub import push as push_bundle

    print(push_bundle(source, repository, private, redistribute))
