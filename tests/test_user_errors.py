"""What a user can mend ends in one sentence: found by its type, whoever raised what from it."""

import re

import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator
from torch._utils import ExceptionWrapper

from tests.runs import fit
from tests.tiny import write_config
from zoo.cli import list as list_verb
from zoo.cli.checks import check_accelerator
from zoo.cli.command import main
from zoo.training.resume import shortened
from zoo.utils.errors import UserError, fail, mendable, reader_failed
from zoo.utils.parser import LONGEST

REFUSED = {
    "--model.optimizer_d.lr=abc": "--model.optimizer_d.lr must be a number, not 'abc'.",
    "--model.emas.slow.decay=x": "--model.emas.slow.decay must be a number or the import path of a function, not 'x'.",
    "--model.emas=3": "--model.emas must be a mapping (name: value) or null, not '3'.",
    "--model.precision=float8": "--model.precision must be one of 'float32', 'bf16', 'fp16', not 'float8'.",
    "--model.precision=null": "precision is null: give one of float32, bf16, fp16.",
    "--trainer.precision=x": "--trainer.precision must be one of 64, 32, 16 or one of ",
    "--data=3": "--data must be the import path of a LightningDataModule or null, not '3'.",
    "--data=datamodules.ImageFolder": "datamodules.ImageFolder needs path: give --data.path.",
    "--model.generator=zoo.pigan.Discriminator": "--model.generator must be the import path of a Generator, not ",
    "--model.generator.renderer.quadrature.density=os.system": "'os.system' runs programs or code, or touches files",
    "--model.generator.renderer.depths=shutil.rmtree": "'shutil.rmtree' runs programs or code, or touches files",
    "--model.generator.renderer.depths=math.sqrt": "must be the import path of a Depths, not 'math.sqrt'.",
    "--model.generator.renderer.depths=zoo.render.relu": "VolumeRenderer is relu, which cannot be called with (rays",
    "--model.generator.renderer.depths=torch.nn.ReLU": "depths of VolumeRenderer is ReLU, which cannot be called with ",
    "--model.generator.renderer.quadrature.intervals=zoo.render.depths.stratify": "which cannot be called with (t, dir",
    "--model.generator.renderer.quadrature.density=torch.nn.ReLU": "is ReLU, which cannot be called with (raw, points)",
    "--model.generator.renderer.quadrature.density=torch.add": "density must be the import path of a class, not 'add'.",
    **{
        f"--model.generator.renderer.quadrature.density={name}": f"'{name}' runs programs or code, or touches files"
        for name in ("torch.save", "torch.load", "torch.hub.load", "numpy.save", "yaml.unsafe_load")
    },
    "--model.emas.slow.decay=math.sqrt": "decay of EMA is sqrt, which cannot be called with (updates)",
    "--model.emas.slow.decay=zoo.render.relu": "decay of EMA is relu, which cannot be called with (updates)",
    "--model.emas.slow.decay=logging.info": "decay of EMA is null: give a number from 0 to 1.",
    "--model.emas.slow.decay=zoo.render.Stratified": "the import path of a function, not 'zoo.render.Stratified'.",
    "--model.optimizer_d=math.sqrt": "--model.optimizer_d must be the import path of an Optimizer, not 'math.sqrt'.",
    "--model.optimizer_d=torch.nn.Linear": "must be the import path of an Optimizer, not 'torch.nn.Linear'.",
    "--model.optimizer_d=torch.optim.Optimizer": "torch.optim.Optimizer needs defaults: give --model.optimizer_d.",
    "--model.optimizer_d.lr=-1": "optimizer_d cannot be made: Invalid learning rate: -1.0.",
    "--model.optimizer_g.eps=-1": "optimizer_g cannot be made: Invalid epsilon value: -1.0.",
    "--model.optimizer_g.betas=[2,2]": "optimizer_g cannot be made: Invalid beta parameter",
    "--model.optimizer_g.lr=1e308": "lr of optimizer_g is 1e+308: give a number from -1e+30 to 1e+30.",
    "--model.optimizer_d=torch.optim.LBFGS": "optimizer_d is LBFGS, which evaluates the loss itself",
    "--model.optimizer_d=tests.test_user_errors.Ungrouped": "optimizer_d cannot be made: no groups here.",
    "--model.r1_weight=&a [*a]": "look for an anchor (&, *) that repeats or contains itself",
    "--trainer.strategy=abc": "The trainer refuses its options: You selected an invalid strategy name",
    "--trainer.accelerator=[]": "invalid accelerator name: `accelerator='[]'`",
    "--trainer.devices=-5": "--trainer.devices is -5: give a number from 1 on",
    "--trainer.devices=100000000000000000000": "--trainer.devices is 100000000000000000000: give a number from 1 on",
    "--trainer.num_nodes=99999999": "--trainer.num_nodes is 99999999: give a number of machines from 1 on, up to",
    "--trainer.num_nodes=0": "--trainer.num_nodes is 0: give a number of machines from 1 on",
    "--trainer.default_root_dir=/dev/null/x": "but '/dev/null' is no folder",
    "--trainer.default_root_dir=a\0b": "a name cannot hold a zero byte",
    "--seed_everything=4294967296": "give a whole number from 0 to 4294967295.",
    "--ckpt_path=": "--ckpt_path is empty",
    "--ckpt_path=pigan-cars32": "--ckpt_path is 'pigan-cars32', weights without the state of a training: start from",
    "--data=tests.test_user_errors.Narrow": "The width of what is narrow is 3: take 2 at most.",
    "--trainer.callbacks+=tests.test_user_errors.Watching": "Watching needs something to watch.",
    "--init_from": "--init_from needs a value.",
    "--init_fresh=generator.mapping": "must be a list, not 'generator.mapping'. A list of it alone is '[generator.map",
    "--data=datamodules.ImageFolder --data.path=a: b": "needs quotes of its own, as in '\"a: b\"'.",
    "--trainer.max_steps=0": "--trainer.max_steps is 0, which trains nothing: give a number of iterations, or -1",
    "--model.generator.renderer.chunk": "--model.generator.renderer.chunk needs a value.",
    "--model.optimizer_g.betas=[0,null]": "--model.optimizer_g.betas must be a number, not 'null'.",
    "--model.emas.slow.decay=true": "must be a number or the import path of a function, not 'true'.",
    "--model=pigan": "--model must be the import path of a GAN or null, not 'pigan'. Did you mean 'zoo.PiGAN'?",
    "--data=ImageFoldr": "not 'ImageFoldr'. Did you mean 'datamodules.ImageFolder'?",
    "--model.generator.poses=GausianPoses": "not 'GausianPoses'. Did you mean 'zoo.render.GaussianPoses'?",
    "--model.generator.renderer.quadrature.background=white": "not 'white'. Did you mean 'zoo.render.white'?",
    "--data=tests": "not 'tests'. Images of your own are --data datamodules.ImageFolder --data.path tests.",
    "--data=datamodules.Cars --data.path=tests": "Cars has no option 'path'. Images of your own are --data ",
    "-c=debug": "There is no file 'debug'. Did you mean 'overlays/debug'?",
    "-c=overlay/debg": "There is no file 'overlay/debg'. Did you mean 'overlays/debug'?",
    "pigan/cars32": "'pigan/cars32' is one value too many: give an experiment as -c pigan/cars32.",
    "--max_steps=3": "There is no option '--max_steps'. Did you mean '--trainer.max_steps'?",
    "--seed=3": "There is no option '--seed'. Did you mean '--seed_everything'?",
    "--batch_size=3": "'--batch_size': those of the model, the data and the trainer begin with",
}


class Narrow(pl.LightningDataModule):
    def __init__(self, width: int = 3) -> None:
        raise UserError(f"The width of what is narrow is {width}:\ntake 2 at most.")


class Watching(pl.Callback):
    def __init__(self) -> None:
        raise UserError("Watching needs something to watch.")


class Ungrouped(torch.optim.SGD):
    def __init__(self, params, lr: float = 1.0) -> None:
        raise ValueError("no groups here")


def refusal(words: list[str], capsys) -> str:
    """The last line of a command that must end with code 2."""
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and last.startswith("zoo: error: "), last
    return last.removeprefix("zoo: error: ")


@pytest.mark.parametrize(("word", "message"), REFUSED.items(), ids=list(REFUSED))
def test_a_value_that_cannot_be_is_named_with_what_is_allowed(word, message, tmp_path, capsys):
    said = refusal(["fit", "-c", write_config(tmp_path), *re.split(r" (?=--)", word)], capsys)
    assert message in said and len(said) < LONGEST + 20 and not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_is_refused_with_what_to_do(monkeypatch):
    for kind in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(kind, "is_available", staticmethod(lambda: False))
    check_accelerator("auto")
    with pytest.raises(UserError, match="torch sees no such GPU here: give --device cpu"):
        check_accelerator("gpu")


@pytest.mark.parametrize("null", ["null", "None"])
def test_null_within_an_object_is_null(null, tmp_path, capsys):
    """jsonargparse hands values on to the parsers of objects within objects as Python shows them."""
    words = ["--model.generator.renderer.chunk", null, f"--model.generator.renderer.fine={null}", "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", write_config(tmp_path), *words])
    renderer = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["generator"]["init_args"]["renderer"]
    assert not stop.value.code and renderer["init_args"]["chunk"] is None and renderer["init_args"]["fine"] is None


CONFIGS = {
    "binary": (bytes(range(256)), "is not a text file in UTF-8"),
    "of latin-1": ("model: {name: é}".encode("latin-1"), "is not a text file in UTF-8"),
    "empty": (b"# nothing\n", "is empty, where a config has names and values"),
    "a list": (b"- model\n", "holds a list, where a config has"),
    "broken": (b"data:\n  path: {a: [}\n", "is no yaml: "),
    "of one number for a trainer": (b"trainer: 5\n", "gives 'trainer: 5', which needs names and values"),
    "with a zero byte": (b'trainer: {max_time: "a\\0b"}\n', "holds a value with a zero byte"),
    "deep": (b"data: " + b"[" * 5000, "nested too deeply"),
    "a circle": (b"data: &a\n  x: *a\n", "contains itself"),
    "a bomb": (
        b"a: &a [x, x, x, x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(8)),
        "repeats or contains itself",
    ),
    "without a trainer": (b"trainer: null\n", "gives 'trainer:' without a value"),
    "of unknown parts": (b"modle: {class_path: zoo.pigan.PiGAN}\n", "Did you mean 'model'?"),
}


@pytest.mark.parametrize(("verb", "name"), [*(("fit", name) for name in CONFIGS), ("benchmark", "binary")])
def test_a_file_that_is_no_config_is_said_to_be_none(verb, name, tmp_path, capsys):
    data, message = CONFIGS[name]
    file = tmp_path / "config.yaml"
    file.write_bytes(data)
    before = ["-c", write_config(tmp_path)] if verb == "fit" else []
    said = refusal([verb, *before, *["-c"] * (verb == "fit"), str(file)], capsys)
    assert message in said and "config.yaml" in said and len(said) < LONGEST + 20


def test_a_sentence_is_found_behind_what_was_raised_from_it_and_bugs_are_not():
    def raised(error: Exception, cause: Exception | None = None, context: Exception | None = None) -> Exception:
        error.__cause__, error.__context__ = cause, context
        return error

    sentence = UserError("Say --out:\n  there is none.")
    assert mendable(raised(RuntimeError("x"), raised(TypeError("y"), sentence))) == "Say --out: there is none."
    assert mendable(FileNotFoundError("There is no x.")) == "There is no x."
    # a bug while an error of a user was handled is a bug
    assert mendable(raised(KeyError("x"), context=sentence)) is None
    assert isinstance(sentence, ValueError)


def test_what_a_reader_process_met_is_its_sentence_and_no_traceback():
    try:
        raise UserError("The image 'a.png'\nis broken.")
    except UserError:
        sent = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(UserError, match="Original Traceback") as met:
        sent.reraise()
    assert reader_failed(met.value) == "The image 'a.png' is broken."


def test_what_all_processes_met_is_said_once(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "only.png")
    words = ["--data", "datamodules.ImageFolder", "--data.path", str(tmp_path), "--data.resolution", "8"]
    with fit(write_config(tmp_path), *words, "--trainer.devices", "2") as process:
        said = process.stderr.read().splitlines()
        assert process.wait(timeout=60) == 2, said
    assert [line for line in said if "error" in line] == [
        "zoo: error: 2 processes cannot share 1 image(s): give more, or lower --trainer.devices."
    ]


@pytest.mark.parametrize("error", [ValueError("of torch"), KeyError("x"), TypeError("y")])
def test_a_bug_keeps_its_traceback(error, monkeypatch):
    def broken():
        raise error

    monkeypatch.setattr(list_verb, "config_names", broken)
    with pytest.raises(type(error)):
        main(["list"])


def test_a_long_sentence_keeps_its_value_and_its_advice(capsys):
    assert fail(f"'{'x' * 600}' is long: take a shorter one.") == 2
    said = capsys.readouterr().err.strip().removeprefix("zoo: error: ")
    assert said.startswith("'xxx") and said.endswith("is long: take a shorter one.") and len(said) < 300
    assert fail(f"'{'/long' * 30}' {'is wrong, ' * 20}so delete '{'/long' * 30}'.") == 2
    said = capsys.readouterr().err.strip().removeprefix("zoo: error: ")
    assert said.startswith("'/long") and said.count("wrong") == 20 and said.endswith("long/long'.") and len(said) < 400
    address = f"https://host/{'model/' * 20}file.pt"  # that somebody is to open
    assert fail(f"It {'is wrong, ' * 30}so fetch {address} with a browser.") == 2
    assert address in capsys.readouterr().err
    long = [f"{'generator.renderer.field.' * 4}{index} is missing" for index in range(9)]
    assert len(shortened(long)) <= 150 and shortened(long).endswith("; and 8 more")
    assert shortened(["a", "b", "c", "d"]) == "a; b; c; and 1 more"


def test_what_a_terminal_would_obey_is_not_printed(capsys):
    assert main(["sample", "\x1b[31mno\n\x9bsuch.ckpt", "--out", "x.png"]) == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("zoo: error: ") and said.isprintable() and "' [31mno  such.ckpt'" in said
