"""Bundles on the Hugging Face Hub, or another server at $HF_ENDPOINT: ``zoo push`` and ``zoo download hf:user/name``.

The Hub's library downloads files but does not check them, so that is done here: large files by the sha256, small ones
by the git hash that the Hub states for one commit.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gaierror

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import disable_progress_bars

from zoo.utils.errors import UserError, printable
from zoo.weights.bundle import CARD, load_bundle
from zoo.weights.fetch import HUB, NotFetched, is_offline, sha256_of
from zoo.weights.find import find
from zoo.weights.store import CONFIG, TENSORS, keep

WANTED = re.compile(r"[A-Za-z0-9_-]+\.(safetensors|yaml)|README\.md")  # all other files are left out
REPOSITORY = r"[\w-][\w.-]*/[\w-][\w.-]*"
HTTPError = HfHubHTTPError.__bases__[0]  # of the library that makes connections, which depends on the Hub's release
LOGIN = " Log in with 'hf auth login', or set $HF_TOKEN."
NAME = re.compile(rf"hf:({REPOSITORY})(?:@([\w./-]+))?")


def api() -> HfApi:
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", HUB))


def push(source: str, repository: str, private: bool = False, allowed: bool = False) -> str:
    """Copy a bundle into a repository, which is made where there is none; returns its address.

    Args:
        source: name or folder of a bundle.
        repository: ``user/name``.
        private: whether only its owner sees a new repository.
        allowed: whether the user may redistribute weights converted from a published checkpoint.

    Raises:
        ValueError: there is no such bundle, it must not be redistributed, or the Hub refuses.
    """
    if not re.fullmatch(REPOSITORY, repository):
        raise UserError(f"'{printable(repository, 80)}' is no repository such as user/name.")
    folder = find(source)
    if folder.is_file():
        raise UserError(f"{folder} is a checkpoint; 'zoo bundle' makes a bundle of it.")
    card = load_bundle(folder)[1].card  # and it is whole
    if "source_sha256" in card and not allowed:
        terms = card.get("license", "unknown")
        raise UserError(
            f"{source} was converted from a published checkpoint, whose licence is: {terms}. Ask its authors; with "
            "their permission give --redistribute true."
        )
    if not sys.stderr.isatty():
        disable_progress_bars()
    with explained(f"{repository} was not written", UserError, LOGIN):
        api().create_repo(repository, private=private, exist_ok=True)
        files = [file.name for file in folder.iterdir() if WANTED.fullmatch(file.name)]
        commit = api().upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=files,
            commit_message=f"Add {folder.resolve().name}",
        )
    return str(commit.repo_url)


def pull(name: str) -> Path:
    """The folder of a bundle from the Hub, fetched and checked where it is not there yet.

    Args:
        name: ``hf:user/repository`` or ``hf:user/repository@revision``.

    Raises:
        NotFetched: it cannot be reached.
        ValueError: it is no bundle that can be loaded safely, or did not come as stated.
    """
    parts = NAME.fullmatch(name)
    if not parts:
        raise UserError(f"'{name}' is no name such as hf:user/repository or hf:user/repository@revision.")

    def make(folder: Path) -> dict[str, str]:
        if is_offline():
            raise NotFetched(f"{name} is not here, and $ZOO_OFFLINE or $HF_HUB_OFFLINE forbids to fetch it: unset it.")
        commit = copy(parts[1], parts[2], folder)
        return {"sha256": load_bundle(folder)[1].sha256, "commit": commit}

    return keep(name, make)


def copy(repository: str, revision: str | None, folder: Path) -> str:
    """Fetch the files of a bundle into a folder, each checked; returns the commit that they are of."""
    failed = f"{repository} could not be fetched"
    with explained(failed, NotFetched):
        about = api().model_info(repository, revision=revision, files_metadata=True)
    wanted = [file for file in about.siblings if WANTED.fullmatch(file.rfilename)]
    missing = {TENSORS, CONFIG} - {file.rfilename for file in wanted}
    if missing:
        raise UserError(f"{repository} is no weights bundle: it has no {' and no '.join(sorted(missing))}.")
    for file in wanted:
        options = {"revision": about.sha, "local_dir": folder, "endpoint": api().endpoint}
        with explained(failed, NotFetched):
            path = Path(hf_hub_download(repository, file.rfilename, **options))
        stated = file.lfs.sha256 if file.lfs else file.blob_id
        if stated != (sha256_of(path) if file.lfs else git_hash(path)):
            raise NotFetched(
                f"{file.rfilename} of {repository} does not match the hash that the Hub states: try again."
            )
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    if not (folder / CARD).is_file():
        (folder / CARD).write_text(f"# {repository}\n")
    return str(about.sha)


@contextmanager
def explained(failed: str, kind: type[Exception], hint: str = "") -> Iterator[None]:
    """Turns errors of the Hub's library, whose types depend on its release, into one sentence; a hint for refusals."""
    try:
        yield
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError
        raise UserError(
            f"{failed}: it is gated. Accept its terms on its page, log in with 'hf auth login' (or set $HF_TOKEN), and "
            "try again."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(f"{failed}: the Hub has no such name and revision, or it is private.{hint}") from error
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = printable((lines or [type(error).__name__])[0]).rstrip(".")
        if is_unreachable(error):
            raise kind(f"{failed}: the Hub cannot be reached ({said}). Check the network, and try again.") from error
        is_refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
        raise kind(f"{failed}: {said}.{hint if is_refused else ''}") from error


def is_unreachable(error: BaseException | None) -> bool:
    """Whether there was no connection, or it ended before the answer did."""
    while error is not None and not isinstance(error, HfHubHTTPError):  # which the Hub has answered
        if isinstance(error, gaierror | ConnectionError | TimeoutError | HTTPError):
            return True
        error = error.__cause__ or error.__context__
    return False


def git_hash(path: Path) -> str:
    """The git hash of a file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
