"""What ``zoo --help`` says: the verbs by what they are for, an example of each, and the options of training."""

import re
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import NamedTuple

TRAINING = ("fit", "validate", "test", "predict")


class Verb(NamedTuple):
    """What a verb does, and a command that does it."""

    summary: str
    example: str


GROUPS = {
    "train": {
        "fit": Verb("train a model, or resume training", "zoo fit -c pigan/cars32 --trainer.max_steps 3000"),
    },
    "look": {
        "sample": Verb(
            "render a grid of samples from several sides, or one file per sample",
            "zoo sample pigan-cars32 --out grid.png --seeds 0-5",
        ),
        "orbit": Verb(
            "render a video of objects from all sides, image beside depth (GIF, WebP or MP4)",
            "zoo orbit pigan-cars32 --out orbit.gif",
        ),
        "mesh": Verb(
            "write objects as coloured surfaces (PLY or GLB)", "zoo mesh pigan-cars32 --out car.ply --seeds 3"
        ),
        "view": Verb(
            "show objects in the browser, to turn with the mouse, to edit and to save", "zoo view pigan-cars32"
        ),
        "invert": Verb(
            "GAN inversion: reproduce your image with a generator, and show it from all sides",
            "zoo invert my-car.png pigan-cars32 --out inverted",
        ),
        "predict": Verb(
            "render samples with the trainer, on many devices",
            "zoo predict -c pigan/cars32 --ckpt_path runs/pigan/cars32/checkpoints/last.ckpt",
        ),
    },
    "measure": {
        "evaluate": Verb(
            "score weights, or a folder of images, against real images",
            "zoo evaluate pigan-cars32 --real datamodules.Cars --count 1000",
        ),
        "leaderboard": Verb("print the table of scores, or write it as a page", "zoo leaderboard cars --top 10"),
        "compare": Verb(
            "train, score and draw several systems on equal terms, and write a report",
            "zoo compare configs/comparison.yaml --jobs 2 --threads 1",
        ),
        "benchmark": Verb(
            "time rendering or training of an experiment, or reading images",
            "zoo benchmark pigan/cars32 --work train --steps 10",
        ),
        "validate": Verb(
            "measure a model on the validation images",
            "zoo validate -c pigan/cars32 --ckpt_path runs/pigan/cars32/checkpoints/last.ckpt",
        ),
        "test": Verb(
            "measure a model on the test images",
            "zoo test -c pigan/cars32 --ckpt_path runs/pigan/cars32/checkpoints/last.ckpt",
        ),
    },
    "weights": {
        "list": Verb("names of weights and experiments", "zoo list pigan"),
        "download": Verb(
            "fetch published weights by name, check and convert them", "zoo download giraffe-cats-64.official"
        ),
        "convert": Verb(
            "turn a published checkpoint into a weights bundle, running nothing in it",
            "zoo convert generator.pth runs/mine --system pigan",
        ),
        "bundle": Verb(
            "write the weights of a checkpoint for others to use",
            "zoo bundle runs/pigan/cars32/checkpoints/last.ckpt runs/mine --license MIT",
        ),
        "push": Verb("copy a weights bundle to the Hugging Face Hub", "zoo push runs/mine me/cars"),
    },
    "data": {
        "data check": Verb(
            "describe a set of images before training: broken files, sizes, duplicates, cameras",
            "zoo data check photos --experiment graf/carla64 --out photos.png",
        ),
        "data pack": Verb(
            "crop and resize images once, into a zip that is read faster",
            "zoo data pack img_align_celeba celeba64.zip --preset celeba/pigan --resolution 64",
        ),
        "data cameras": Verb(
            "convert the cameras of images between formats (EG3D, NeRF, SRN, CARLA)",
            "zoo data cameras nerf/transforms.json images/dataset.json",
        ),
    },
    "shell": {
        "completion": Verb(
            "print a script with which bash or zsh completes verbs and options", 'eval "$(zoo completion bash)"'
        ),
    },
}
VERBS = {name: verb for verbs in GROUPS.values() for name, verb in verbs.items()}
TRAINING_HELP = """\
usage: zoo {verb} -c CONFIG.yaml [-c OVERLAY.yaml ...] [--KEY VALUE ...]

{summary}

  -c CONFIG.yaml              an experiment or overlay, a file or a name that 'zoo list' shows; the last one wins
  --trainer.max_steps N       stop after so many iterations
  --device NAME               auto (GPUs where there are some), cpu, cuda, cuda:1 or mps
  --trainer.devices N         how many processes or GPUs
  --trainer.default_root_dir DIR
                              where everything is written (default: that of --ckpt_path, or runs/<first config>)
  --trainer.callbacks+=NAME   add a callback, e.g. callbacks.samples.SampleGrid
  --data CLASS                where images come from, e.g. datamodules.ImageFolder; then --data.path DIR
  --model.KEY VALUE           any parameter of the model
  --checkpoint.every N        iterations between two checkpoints (default: 1000)
  --checkpoint.keep_every N   iterations between two checkpoints that are kept (default: none)
  --checkpoint.best NAME      score whose best checkpoint is kept (default: fid, the first FID; null for none)
  --ckpt_path FILE            resume from this checkpoint; options given here override those it was saved with
  --estimate                  time a few iterations of each stage, print parameters, memory and time, and stop
  --init_from NAME|FILE       start from the weights of a bundle or .ckpt (finetuning)
  --init_fresh "[PART,...]"   parts that do not start from them, e.g. [discriminator.final]
  --print_config              print all values and stop; the output is a config
  --model.help [CLASS], --data.help [CLASS]
                              parameters of a class
  --help-all                  every option of Lightning's trainer, too
"""


def overview() -> str:
    """The text of ``zoo --help``."""
    lines = ["usage: zoo VERB ...", "", "3D-aware GANs on one renderer.", ""]
    for title, verbs in GROUPS.items():
        lines += [f"{title}:", *summaries(verbs), ""]
    return "\n".join(
        [*lines, "zoo VERB --help lists its options and gives an example; zoo --version says which this is."]
    )


def summaries(verbs: dict[str, Verb]) -> list[str]:
    """A line of each verb."""
    return [f"  {name:<13} {verb.summary}" for name, verb in verbs.items()]


def of_two_words(first: str) -> list[str]:
    """A line of each verb of two words that begins with this one, such as 'data cameras'; mostly there are none."""
    return summaries({name: verb for name, verb in VERBS.items() if name.startswith(f"{first} ")})


def training_help(verb: str) -> str:
    """The text of ``zoo fit --help``, or of another verb of the trainer."""
    return f"{TRAINING_HELP.format(verb=verb, summary=VERBS[verb].summary)}\nexample: {VERBS[verb].example}"


def training_options() -> list[str]:
    """Options that the help of the trainer's verbs names."""
    return list(dict.fromkeys(re.findall(r"--[a-z_.-]*[a-z]", TRAINING_HELP)))


def version() -> str:
    """Of the installed package; of a checkout that was never installed there is none."""
    try:
        return installed("gan3d-zoo")
    except PackageNotFoundError:
        return "(not installed)"
