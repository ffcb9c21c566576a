"""``zoo convert``: published checkpoints to bundles, and back."""

from pathlib import Path
from typing import Literal

from zoo.cli.options import refuse_unused
from zoo.utils.targets import folder_target


def run(
    file: str,
    out: Path,
    system: str | None = None,
    experiment: str | None = None,
    weights: str | None = None,
    rest: bool = True,
    to: Literal["zoo", "official"] = "zoo",
    license: str | None = None,
    data: str | None = None,
) -> None:
    """Turn a published checkpoint into a weights bundle, or back; nothing in the file is imported or run.

    Args:
        file: of the checkpoint; or a folder or zip with one generator in it, or download.zip/folder/file.pth. With --to
            official a bundle, its name or folder.
        out: the bundle's folder.
        system: such as pigan, or 'tensors' to write only the tensors and settings of all networks in the file; by
            default the one that recognises the file.
        experiment: gives cameras, depths and numbers of samples where the file does not hold them: a file or a name
            that 'zoo list' shows; by default the published one, if there is only one.
        weights: which of the file's weights, such as raw or ema; by default those that the paper's images come from.
        rest: also write the other weights and the discriminator, if the file has them.
        to: zoo for a bundle; official for state dicts as the published program saves them.
        license: of the weights, for the card.
        data: what they were trained on, for the card.
    """
    out = folder_target(out)
    if to == "official" or system == "tensors":
        where = "with --to official" if to == "official" else "with --system tensors"
        unused = {"experiment": experiment, "weights": weights, "rest": rest, "license": license, "data": data}
        refuse_unused(where, run, **unused, **({"system": system} if to == "official" else {}))
    from zoo.weights.convert import convert as convert_file
    from zoo.weights.convert import save_tensors, to_official

    if to == "official":
        print(*to_official(file, out), sep="\n")
        return
    if system == "tensors":
        contents = save_tensors(file, out)
        print("Wrote tensors and settings only: no system here can render with them.")
    else:
        options = {"rest": rest, "license": license, "data": data}
        converted, contents = convert_file(file, out, system, experiment, weights, **options)
        print(f"Used {converted.used}.")
    print(f"The file ({contents.container}) names these, none of which was imported or run:")
    print("".join(f"  {name}\n" for name in contents.names or ["(nothing)"]), end="")
    print(out)
