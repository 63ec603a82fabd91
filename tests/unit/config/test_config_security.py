import json
import subprocess
from pathlib import Path

import pytest
import torch

import polytask
from polytask import UserError
from polytask.config import Config

SITE = Path(torch.__file__).parents[1]

SYSTEM = {"_target_": "pytorch_lightning.LightningModule"}
REFUSED = [
    "os.system",
    "torch.os.system",
    "builtins.eval",
    "builtins.exec",
    "torch.hub.load",
    "torch.load",
    "torch.serialization.load",
    "torch.utils.collect_env.run",
    "torch.utils.cpp_extension.load",
    "torch.nn.modules.module.os.system",
    "torch.utils.data.dataloader.os.system",
    "torch.nn.modules.module.functools.partial",
    "torch.nn.functional.importlib.import_module",
    "subprocess.Popen",
    "functools.partial",
    "pickle.loads",
    "operator.methodcaller",
    "torch.jit.load",
    "torch.jit.ScriptModule",
    "torch.package.PackageImporter",
    "torch.fx.GraphModule",
    "torch.distributed.nn.RemoteModule",
    "torch.distributed.run.main",
    "torch.from_file",
    "torch.frombuffer",
    "torch.import_ir_module",
    "torch.ops.load_library",
    "torch.classes.load_library",
    "torch.compile",
    "torch.save",
    "torch.set_default_device",
    "torch.library.Library",
    "torch.utils.data.datapipes.iter.FileOpener",
    "torch.utils.data.datapipes.utils.decoder.basichandlers",
    "torch.utils.data.graph.traverse",
    "torch.nn.Module.apply",
    "torch.Tensor.numpy",
    "torch._C._nn.gelu",
    "torch.nn.Module.__init__",
    "pytorch_lightning.LightningModule.load_from_checkpoint",
    "pytorch_lightning.cli.LightningCLI",
    "pytorch_lightning.seed_everything",
    "pytorch_lightning.utilities.rank_zero.rank_zero_info",
    "polytask.config.Config.read",
    "polytask.config.Config",
    "polytask.config.follow_parent",
    "polytask.config._resolve.importlib.import_module",
    "polytask.cli.main",
    "polytask.optim.Callable",
    "polytask.optim.nn.Module.load_state_dict",
    "torchmetrics.utilities.checks.os.system",
    "numpy.load",
    "yaml.unsafe_load",
    "omegaconf.OmegaConf.register_new_resolver",
    "logging.config.dictConfig",
    "polytask.models.MultiHead.forward",
    "polytask.models.MLP.to",
    "polytask.template.net.Net",
    "polytask.losses.MultiTaskLoss.forward",
    "polytask.experiment._fit.fit",
    "polytask.checkpoint.load",
    "polytask.UserError",
    "polytask.metrics.nn.Linear.forward",
    "pytorch_lightning.demos.boring_classes.BoringModel",
    "pytorch_lightning.serve.ServableModuleValidator",
    "pytorch_lightning.callbacks.Callback.on_fit_start",
    "torch.ao.quantization.fx.graph_module.ObservedGraphModule",
    "torch.ao.nn.quantized.Linear",
    "torch.nn.functional.F.relu.__call__",
    "torch.nn.modules.linear.Linear.forward",
    "torch.utils.data._utils.worker.WorkerInfo",
    "models.net.Net",
    "antigravity.geohash",
]


def config(target, **options):
    return Config.from_plain(
        {"system": SYSTEM, "vars": {"x": {"_target_": target}}}, where="x.ckpt", **options
    )


def of_target(problems):
    return [str(problem) for problem in problems if "vars.x" in str(problem)]


@pytest.mark.parametrize("target", REFUSED)
def test_what_may_run_code_is_refused_by_check_and_build(target):
    refusing = config(target)

    assert of_target(refusing.problems())
    with pytest.raises(UserError, match=r"vars\.x"):
        refusing.build("vars.x")


@pytest.mark.parametrize("target", ["wave.Wave_read", "tabnanny.check", "this.s"])
def test_a_refused_module_is_not_imported(monkeypatch, target):
    root = target.partition(".")[0]
    monkeypatch.delitem(__import__("sys").modules, root, raising=False)

    config(target).problems()

    assert root not in __import__("sys").modules


@pytest.mark.parametrize("name", ["os.system", "posix.system", "posix"])
def test_nothing_is_called_before_it_is_judged(tmp_path, name):
    file = tmp_path / "made"
    values = {"vars": {"x": {"_target_": "torch.os.system", "_args_": [f"touch {file}"]}}}

    with pytest.raises(UserError):
        Config.from_plain(values, where="x", allow=["torch"]).build("vars.x")

    assert not file.exists()


def test_an_expression_is_refused():
    refusing = Config.from_plain({"system": SYSTEM, "vars": {"x": '$__import__("os")'}}, where="x")

    assert "must not contain Python expressions" in of_target(refusing.problems())[0]


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        ("numpy.zeros", "numpy"),
        ("torch.load", "torch.load"),
        ("torch.set_default_device", "torch"),
        ("os.getcwd", "os.getcwd"),
        ("collections.Counter", "collections"),
    ],
)
def test_allow_widens(target, allow):
    assert of_target(config(target).problems())
    problems = of_target(config(target, allow=[allow]).problems())
    assert not any("builds models" in problem or "cannot be imported" in problem for problem in problems)


@pytest.mark.parametrize("root", ["torchmetric", "timmy", "sometool"])
@pytest.mark.parametrize("form", ["package", "module", "namespace"])
def test_an_installed_package_is_named_with_its_option(tmp_path, monkeypatch, root, form):
    """Also if its name is like one of those that are allowed."""
    site = tmp_path / "site-packages"
    file = site / (f"{root}.py" if form == "module" else f"{root}/part.py")
    file.parent.mkdir(parents=True)
    file.write_text("raise RuntimeError('imported')")
    if form == "package":
        (site / root / "__init__.py").write_text("raise RuntimeError('imported')")
    target = f"{root}.Thing"
    (missing,) = of_target(config(target).problems())
    assert "there is no module" in missing
    monkeypatch.syspath_prepend(site)
    (problem,) = of_target(config(target).problems())
    assert f"Pass --allow {root} if you trust it" in problem
    assert "Did you mean" not in problem
    # A file that is not installed belongs to a project.
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text("")
    (problem,) = of_target(config("mine.Thing").problems())
    assert "Set 'project: DIR'" in problem


def test_allow_does_not_reach_another_package():
    assert of_target(config("torch.os.system", allow=["torch"]).problems())
    assert of_target(config("numpy.load", allow=["num", "numpy.save"]).problems())


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.Linear",
        "torch.nn.modules.linear.Linear",
        "torch.nn.Parameter",
        "torch.nn.functional.relu",
        "torch.nn.functional.gelu",
        "torch.nn.functional.max_pool2d",
        "torch.argmax",
        "torch.tensor",
        "torch.einsum",
        "torch.device",
        "torch.float32",
        "torch.optim.AdamW",
        "torch.optim.Adafactor",
        "torch.optim.swa_utils.AveragedModel",
        "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "torch.utils.data.DataLoader",
        "torch.utils.data.TensorDataset",
        "torch.utils.data.RandomSampler",
        "torch.utils.data.BatchSampler",
        "torch.utils.data.random_split",
        "torch.utils.data.default_collate",
        "torchmetrics.Accuracy",
        "torchmetrics.MetricCollection",
        "torchmetrics.classification.MulticlassAccuracy",
        "pytorch_lightning.callbacks.ModelCheckpoint",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.profilers.SimpleProfiler",
        "pytorch_lightning.strategies.DDPStrategy",
        "pytorch_lightning.plugins.MixedPrecision",
        "pytorch_lightning.accelerators.CPUAccelerator",
        "polytask.callbacks.StopOnSignal",
        "polytask.loggers.CSVLogger",
        "polytask.predictions.PredictionWriter",
        "polytask.optim.OptimizerFactory",
        "polytask.data.ReplayableLoader",
        "polytask.weighting.Fixed",
        "polytask.losses.MultiTaskLoss",
        "polytask.System",
        "polytask.adapters.BatchAdapter",
        "polytask.models.create_hard_sharing_model",
    ],
)
def test_what_models_are_made_of_is_allowed(target):
    values = {"system": SYSTEM, "vars": {"x": {"_target_": target, "_partial_": True}}}

    problems = Config.from_plain(values, where="x").problems()

    assert of_target(problems) == []


def project_config(project, target, **options):
    values = {"system": SYSTEM, "vars": {"x": {"_target_": target}}}
    return Config.from_plain(values, where="x.ckpt", project=project, **options)


def test_what_the_project_defines_is_allowed(project):
    (project / "more.py").write_text("def make():\n    return 'made'\n")

    assert project_config(project, "nets.own.Net").build("vars.x").width == 3
    assert project_config(project, "more.make").build("vars.x") == "made"


@pytest.mark.parametrize(
    "text",
    [
        "@functools.cache\ndef make():\n    return 'made'\n",
        "@functools.lru_cache(maxsize=2)\n@functools.cache\ndef make():\n    return 'made'\n",
        "class Maker:\n    def __call__(self):\n        return 'made'\nmake = Maker()\n",
        "def quiet(f):\n    return functools.wraps(f)(lambda: f())\n@quiet\ndef make():\n    return 'made'\n",
    ],
)
def test_what_the_project_defines_in_other_forms_is_allowed(project, text):
    (project / "more.py").write_text("import functools\n" + text)

    assert of_target(project_config(project, "more.make").problems()) == []
    assert project_config(project, "more.make").build("vars.x") == "made"


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("import functools, os\nsystem = functools.cache(os.system)", "reexport.system"),
        ("import functools, json\nload = functools.cache(json.load)", "reexport.load"),
        ("from torch.fx import symbolic_trace as trace", "reexport.trace"),
        ("from operator import itemgetter\nget = itemgetter(0)", "reexport.get"),
        ("import os", "reexport.os.system"),
        ("from os import system", "reexport.system"),
        ("from functools import partial", "reexport.partial"),
        ("import functools\nsystem = functools.partial(print)", "reexport.system"),
        ("from torch import load", "reexport.load"),
        ("from pytorch_lightning import LightningModule", "reexport.LightningModule.load_from_checkpoint"),
        ("_hidden = dict", "reexport._hidden"),
    ],
)
def test_what_the_project_only_imports_is_judged_by_its_own_home(project, line, target):
    (project / "reexport.py").write_text(line + "\n")

    assert of_target(project_config(project, target).problems())


def test_an_allowed_kind_may_be_named_through_the_project(project):
    (project / "reexport.py").write_text("from torch.nn import ReLU\n")

    assert of_target(project_config(project, "reexport.ReLU").problems()) == []


def test_code_inside_the_folder_but_of_another_package_is_not_the_projects(project, monkeypatch):
    site = project / "venv"
    site.mkdir()
    (site / "stranger.py").write_text("def run():\n    return 1\n")
    (project / "reexport.py").write_text("from stranger import run\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(__import__("sys").modules, "stranger", raising=False)

    assert of_target(project_config(project, "reexport.run").problems())


def test_the_project_of_a_checkpoint_is_not_imported_unasked(project):
    (project / "nets" / "own.py").write_text(f"open({str(project / 'ran')!r}, 'w')\n")
    values = {"project": str(project), "system": {"_target_": "nets.own.System"}}

    problems = [str(problem) for problem in Config.from_plain(values, where="x.ckpt").problems()]

    assert len(problems) == 1
    assert "--project DIR" in problems[0]
    assert not (project / "ran").exists()


def test_a_checkpoint_of_a_project_that_has_moved_can_be_read(project):
    values = {"project": "/nowhere/else", "system": {"_target_": "nets.own.System"}}

    config = Config.from_plain(values, where="x.ckpt", project=project)

    assert config.problems() == []
    assert config.plain["project"] == str(project)


@pytest.mark.parametrize("arguments", [{"trust_remote_code": True}, {"a": {"weights_only": False}}])
def test_code_that_comes_with_weights_is_refused(monkeypatch, tmp_path, arguments):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text("def create_model(name, **kwargs):\n    return kwargs\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "timm", raising=False)
    target = {"_target_": "timm.create_model", "name": "resnet18"}

    good = Config.from_plain({"system": SYSTEM, "vars": {"x": target}}, where="x")
    bad = Config.from_plain({"system": SYSTEM, "vars": {"x": {**target, **arguments}}}, where="x")

    assert good.build("vars.x") == {}
    assert any("must not run downloaded code" in problem for problem in of_target(bad.problems()))
    with pytest.raises(UserError, match="must not run downloaded code"):
        bad.build("vars.x")


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        (SITE, "torch.utils.collect_env.run"),
        (SITE / "torch" / "utils", "collect_env.run"),
        (SITE / "torch", "hub.load"),
        (SITE / "_pytest", "monkeypatch.notset"),
        (Path(subprocess.__file__).parent, "subprocess.run"),
        (Path(json.__file__).parent, "tool.main"),
        (Path(polytask.__file__).parent, "cli.main"),
    ],
)
def test_installed_code_is_no_project(tmp_path, folder, target):
    values = f"project: {folder}\nsystem: {{_target_: {target}, command: touch {tmp_path / 'ran'}}}\n"
    (tmp_path / "config.yaml").write_text(values)

    config = Config.read([tmp_path / "config.yaml"])

    assert any("config.yaml:1 project: must be a folder of your own" in str(p) for p in config.problems())
    assert config.project is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("written", ["${oc.env:POLYTASK_TEST_FOLDER}", "$@vars.x", "@vars.x", "a/${vars.x}"])
def test_a_project_is_no_reference(write, project, monkeypatch, written):
    monkeypatch.setenv("POLYTASK_TEST_FOLDER", str(project))

    config = Config.read([write(f'project: "{written}"\nvars: {{x: .}}\nsystem: {{}}\n')])

    assert any("project: must be a path without references" in str(problem) for problem in config.problems())
    assert config.project is None


def test_a_checkout_that_is_installed_in_place_can_be_a_project(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    (project / "nets.egg-info").mkdir()

    assert of_target(project_config(project, "nets.own.Net").problems()) == []


def test_packages_installed_into_a_folder_of_the_project_are_not_its_own(project):
    (project / "vendor" / "stranger-1.dist-info").mkdir(parents=True)
    (project / "vendor" / "stranger-1.dist-info" / "RECORD").touch()
    (project / "vendor" / "stranger.py").write_text("def run():\n    return 1\n")

    assert of_target(project_config(project, "vendor.stranger.run").problems())


def test_a_checkout_of_a_known_package_is_judged_by_kind(tmp_path):
    package = tmp_path / "timm"
    package.mkdir()
    (package / "tool.py").write_text("def run():\n    return 1\n")

    assert of_target(project_config(tmp_path, "timm.tool.run").problems())
