"""What can go wrong and what is said of it: one clear sentence, with the near match where there is one."""

import errno
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path


class UserError(ValueError):
    """What a user can mend; the message is one sentence that names the value, what is allowed and what to do."""


class WrongTree(UserError):
    """Files that are not what they should be; below its sentence, the message shows both trees, line by line."""


class Stopped(RuntimeError):
    """A run that ended early for a known reason; the message says why and what to do.

    Args:
        message: for the user.
        code: what the command exits with.
        silent: another process says it already.
    """

    def __init__(self, message: str, code: int = 1, silent: bool = False) -> None:
        super().__init__(message)
        self.code, self.silent = code, silent


def near(word: str, words: list[str]) -> str:
    """' Did you mean ...?' or nothing. The same letters in another order are nearer than others."""
    found = sorted(get_close_matches(word, words, cutoff=0.6), key=lambda one: sorted(one) != sorted(word))
    return f" Did you mean '{found[0]}'?" if found else ""


def missing_file(path: Path | str, names: Sequence[str] = ()) -> str:
    """There is no such file; the nearest name beside it, or among these. Of what is there but no file, what it is."""
    path = Path(path)
    if path.is_dir():
        example = f"'{printable(last, 120)}'" if (last := last_checkpoint(path)) else "one in it"
        return f"'{printable(path, 120)}' is a folder: name a file, such as {example}."
    if os.path.lexists(path):
        what = "no regular file" if path.exists() else "a link that leads nowhere"
        return f"'{printable(path, 120)}' is {what}: name a file on a disk."
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"There is no file '{path}'.{near_path(path, names)}"


def last_checkpoint(folder: Path) -> Path | None:
    """Of a run's folder, or of that of its checkpoints."""
    return next((file for file in (folder / "checkpoints/last.ckpt", folder / "last.ckpt") if file.is_file()), None)


def near_path(path: Path, names: Sequence[str] = ()) -> str:
    """A hint at the nearest name beside a path that is not there, or among these; or nothing."""
    beside = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    same_end = [f" Did you mean '{name}'?" for name in names if name.endswith(f"/{path}")]
    return near(str(path), [*beside, *names]) or "".join(same_end[:1])


def mendable(error: BaseException | None) -> str | None:
    """The sentence for what a user can mend: of the error or of one that it was raised from; None for a bug."""
    while error is not None and not isinstance(error, UserError | FileNotFoundError):
        error = error.__cause__
    if isinstance(error, WrongTree):
        return str(error)
    return None if error is None else " ".join(str(error).split())


def disk_problem(error: BaseException) -> str | None:
    """What is wrong with the disk and what to do; None for other errors."""
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"there is no space left for it ({error.strerror}); make room"
    if number == errno.ENAMETOOLONG:
        return f"there can be no such file ({error.strerror}); check the name"
    if number in (errno.EACCES, errno.EPERM) and error.filename and is_unreadable(error.filename):
        return f"it cannot be read ({error.strerror}); make it and its folders readable for this user"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"it cannot be written there ({error.strerror}); make the folder writable or take another"
    return None


def is_unreadable(path: Path | str) -> bool:
    """Whether a file or folder is there, or may be, and this user may not read it."""
    if os.path.lexists(path):
        return not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0))
    nearest = next((folder for folder in Path(path).absolute().parents if os.path.lexists(folder)), Path("/"))
    return not os.access(nearest, os.X_OK)


def printable(text: object, most: int = 200) -> str:
    """One line of text from elsewhere, without what a terminal would obey, and cut where it is long; None is null."""
    line = " ".join(one_line(("null" if text is None else str(text))[: 4 * most]).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def one_line(text: str) -> str:
    """With blanks for what a terminal would obey, such as escape codes in the name of a file."""
    return "".join(c if c.isprintable() else " " for c in text)


SHARED_MEMORY_FULL = (
    "The shared memory (/dev/shm) through which processes that read images pass them on is full. Make it larger "
    "(docker run --shm-size=1g) or read without such processes (--data.num_workers 0), and resume from the last "
    "checkpoint (--ckpt_path)."
)


def reader_failed(error: BaseException) -> str | None:
    """The sentence for what a process which reads images has sent, or died of; None for other errors.

    All that torch hands over is text: the traceback in that process, whose last part is the message. Where Lightning
    could not start readers, its own error hides why. That a reader died is raised wherever this process happens to be,
    which may make another error of it.
    """
    text = str(error)
    sent = re.match(r"Caught (\w+) in DataLoader worker process.*^[\w.]*\1: (.+)", text, re.DOTALL | re.MULTILINE)
    if sent and sent[1] in ("UserError", "Stopped", "FileNotFoundError"):
        return " ".join(sent[2].split())
    died = re.search(r"DataLoader worker \(pid.*?\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)", text)
    # The thread that pins memory ends when the connection to a reader breaks.
    died = died or re.search(r"Pin memory thread exited unexpectedly()", text)
    not_started = "iter(combined_loader)" in text and getattr(error.__context__, "errno", None) == errno.ENOSPC
    if not_started or (died and died[1] == "Bus error"):
        return SHARED_MEMORY_FULL
    if died:
        return reader_died(f" (killed by signal: {died[1]})" if died[1] else "")
    before = error.__cause__ or error.__context__
    return reader_failed(before) if before is not None else None


def reader_died(how: str = "") -> str:
    return (
        f"A process that reads images died{how}, most often because memory ran out. Take fewer of them "
        "(--data.num_workers N) or smaller batches, and resume from the last checkpoint (--ckpt_path)."
    )


def fail(message: str, code: int = 2) -> int:
    """Print the message as the last line of stderr; trees that it shows are below it."""
    sentence, *trees = map(one_line, message.split("\n"))
    print("zoo: error: " + "\n".join([shortened(sentence), *trees]), file=sys.stderr)
    return code


def shortened(sentence: str) -> str:
    """A long sentence, of whose longest words, such as paths, the beginning and the end are left.

    Addresses stay, as somebody is to open them in a browser.
    """
    if len(sentence) > 300:
        longest = r"(?<!\S)(?!https?://\S{,200}(?!\S))\S{80,}"
        sentence = re.sub(longest, lambda word: f"{word[0][:35]}...{word[0][-40:]}", sentence)
    return sentence if len(sentence) <= 600 else f"{sentence[:400]} ... {sentence[-190:]}"
