"""The private parts of jsonargparse and Lightning that one file each touches are still there."""

import inspect
import re
from pathlib import Path
from unittest.mock import patch

import jsonargparse
import pytorch_lightning as pl
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies.launchers import multiprocessing

from tests.systems import SYSTEMS
from zoo.training import lightning_private
from zoo.training.gan import GAN
from zoo.utils import parser
from zoo.weights import bundle

ROOT = Path(__file__).parent.parent
HOMES = {"zoo/training/lightning_private.py", "zoo/utils/parser.py"}


def test_options_of_a_parser_are_found():
    ours = jsonargparse.ArgumentParser()
    ours.add_argument("--a.b", type=int, required=True)
    ours.add_argument("--c", type=int)
    where = (
        "jsonargparse has moved ArgumentParser._actions: mend option_names and required_names in zoo/utils/parser.py"
    )
    assert {"a.b", "c"} <= {*parser.option_names(ours)}, where
    assert parser.required_names(ours) == ["a.b"], where


def test_what_may_be_imported_is_as_it_was_afterwards():
    from jsonargparse import _common

    where = "jsonargparse has moved _common.parsing_settings: mend allowed_imports in zoo/utils/parser.py"
    assert hasattr(_common, "parsing_settings"), where
    before = dict(_common.parsing_settings)
    with parser.allowed_imports(["zoo"]):
        assert _common.parsing_settings["import_path_verdicts"]["zoo"] is True, where
    assert dict(_common.parsing_settings) == before, where


def test_objects_within_objects_are_parsed_alike_and_more_seldom():
    """Its nested parsers call ``parse_object`` with ``namespace`` and ``defaults``, which we answer in another way."""
    config, parsed, calls = SYSTEMS["eg3d"]()["model"], [], []
    plain = jsonargparse.ArgumentParser.parse_object

    def counting(self, *args, **kwargs):
        calls[-1] += 1
        return plain(self, *args, **kwargs)

    with patch.object(jsonargparse.ArgumentParser, "parse_object", counting):
        for kind in (bundle.Parser, jsonargparse.ArgumentParser):
            calls.append(0)
            ours = kind(exit_on_error=False)
            ours.add_subclass_arguments(GAN, "config", required=True)
            parsed.append(ours.parse_object({"config": config}))
    assert parsed[0] == parsed[1] and calls[0] < calls[1] / 2, "mend ParsedOnce in zoo/utils/parser.py"


def test_lightning_reads_no_checkpoint_before_it_is_ours():
    where = (
        "Lightning has moved LightningCLI._parse_ckpt_path: see that it reads no --ckpt_path, in lightning_private.py"
    )
    assert "_parse_ckpt_path" in vars(LightningCLI), where
    assert "self._parse_ckpt_path()" in Path(pl.cli.__file__).read_text(), where


def test_parts_of_a_trainer_are_found(tmp_path):
    where = "Lightning has moved a private part: mend the function in zoo/training/lightning_private.py: "
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False)
    module = pl.LightningModule()
    assert lightning_private.trainer_of(module) is None, where + "trainer_of"
    module.trainer = trainer
    assert lightning_private.trainer_of(module) is trainer, where + "trainer_of"
    path = lightning_private.requeued_checkpoint(trainer)
    assert path.name == "hpc_ckpt_1.ckpt" and path.parent == tmp_path, where + "requeued_checkpoint"
    found = lightning_private.cluster_environment(trainer)
    assert isinstance(found, LightningEnvironment), where + "cluster_environment"


def test_processes_hand_over_a_file_of_this_name():
    where = "Lightning has another name for the file of ddp_spawn: mend HANDED_OVER in lightning_private.py"
    source = inspect.getsource(multiprocessing._MultiProcessingLauncher._collect_rank_zero_results)
    assert f'"{lightning_private.HANDED_OVER}"' in source, where


def test_private_parts_are_touched_in_one_file_of_each_library():
    private = r"\b(?:trainer|module|gan|parser|ours|jsonargparse|pl)\._[a-z]\w+|\._\w+_connector\b|\b_common\b"
    files = [path for folder in ("zoo", "callbacks", "datamodules") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if re.search(private, path.read_text())}
    assert found == HOMES, "move what is private there, where the tests above watch over it"
