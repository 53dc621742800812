from __future__ import annotations

import dataclasses
import io
import subprocess
from importlib import metadata
from importlib.resources import files

import pytest
from omegaconf import OmegaConf
from rich.console import Console
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.config.recipes import compose_recipe
from verl_rsim.config.schema import parse_config
from verl_rsim.core.policy_description import PolicyDescription
from verl_rsim.training.checkpoint.training_record import trained_rules
from verl_rsim.training.preflight import doctor, hardware
from verl_rsim.training.preflight.doctor import Level, broken, diagnose, ok, warning
from verl_rsim.training.preflight.trained_rules_check import check_trained_rules

pytestmark = pytest.mark.slow


def report(*checks) -> tuple[bool, str]:
    out = io.StringIO()
    return diagnose(Console(file=out, width=100), checks), out.getvalue()


def test_only_what_is_broken_fails_and_each_trouble_has_its_remedy():
    healthy, text = report(lambda: iter([ok("a", "well"), warning("b", "so so", "rest")]))
    assert healthy
    assert text == "ok       a: well\nwarning  b: so so\n         -> rest\n"
    assert not report(lambda: iter([broken("c", "bad", "mend")]))[0]


def test_a_check_that_cannot_be_imported_is_a_finding():
    def check_versions():
        yield ok("python", "3")
        import no_such_module  # noqa: F401

    healthy, text = report(check_versions)
    assert not healthy
    assert "broken   versions: ModuleNotFoundError: No module named 'no_such_module'" in text


def test_a_package_that_is_missing_or_of_a_wrong_version_is_named(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "ray":
            raise metadata.PackageNotFoundError(name)
        return "4.0" if name == "transformers" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {finding.subject: finding for finding in doctor.check_versions()}
    assert found["ray"].level is Level.BROKEN
    assert "transformers" in found["verl-rsim"].details
    assert "(here: 4.0)" in found["verl-rsim"].details


@pytest.mark.parametrize(
    ("script", "level", "said"),
    [
        ("raise SystemExit(0)", Level.OK, "registered"),
        ("raise SystemExit(2)", Level.BROKEN, "verl does not load it"),
        ("import sys; print('noise', file=sys.stderr); 1 / 0", Level.BROKEN, "ZeroDivisionError"),
        ("import time; time.sleep(60)", Level.BROKEN, "more than"),
    ],
)
def test_the_plugin_is_looked_at_in_a_fresh_process(monkeypatch, script, level, said):
    monkeypatch.setattr(doctor, "PROBE", script)
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 5)
    (finding,) = doctor.check_plugin()
    assert finding.level is level
    assert said in finding.details
    assert "noise" not in finding.details


def test_the_memory_of_a_container_is_its_own(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemAvailable: 6000 kB\n")
    (tmp_path / "max").write_text(str(5000 * 1024))
    assert hardware.memory(tmp_path / "meminfo", ()) == hardware.Memory(8000 * 1024, 6000 * 1024)
    assert hardware.memory(tmp_path / "meminfo", (str(tmp_path / "max"),)) == hardware.Memory(5000 * 1024, 3000 * 1024)


def test_segments_that_a_process_maps_are_not_left_over(tmp_path):
    shared, process = tmp_path / "shm", tmp_path / "proc/42"
    shared.mkdir()
    process.mkdir(parents=True)
    for name in ("psm_used", "psm_old", "sem.mp-old", "other"):
        (shared / name).write_bytes(b"x" * 5000)
    (process / "maps").write_text(f"7f00-7f01 rw-s 00000000 00:01 7 {shared}/psm_used\n")
    left = hardware.orphaned_segments(shared, tmp_path / "proc")
    assert {path.name for path in left.paths} == {"psm_old", "sem.mp-old"}
    assert left.size >= 2 * 4096


def test_the_gpus_are_what_nvidia_smi_says(tmp_path, monkeypatch):
    from verl_rsim.training.preflight import doctor_job

    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.gpus() == []
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 80GB, 81559, 80000'\n")
    program.chmod(0o755)
    assert hardware.gpus() == [hardware.Gpu("NVIDIA H100, 80GB", 81559 << 20, 80000 << 20)]
    program.write_text("#!/bin/sh\necho 'no driver' >&2; exit 9\n")
    with pytest.raises(RuntimeError, match="no driver"):
        hardware.gpus()
    assert doctor_job._gpus() == [], "the check of the hardware has said so"
    program.write_text("#!/bin/sh\necho 'NVIDIA GB10, [N/A], [N/A]'\n")
    assert hardware.gpus() == [hardware.Gpu("NVIDIA GB10", 0, 0)]


def test_on_a_gpu_the_servers_take_their_share_of_it(home, monkeypatch):
    from verl_rsim.training.preflight import doctor_job

    monkeypatch.setenv("RSIM_HOME", str(home))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")  # composing imports verl, which looks for its platform once a process
    monkeypatch.setattr(
        hardware, "gpus", lambda: [hardware.Gpu("A", 80 * doctor.GIB, 0), hardware.Gpu("B", 90 * doctor.GIB, 0)]
    )
    config = compose_recipe("tiny", ["actor_rollout_ref.rollout.gpu_memory_utilization=0.5"])
    monkeypatch.setattr(doctor_job.cpu, "is_chosen", lambda: False)
    reasoner = doctor_job.plan_of(config, "reasoner", frozen=False)
    assert reasoner.server_bytes_allowed == 40 * doctor.GIB, "of the smaller one"
    assert (reasoner.micro_tokens, reasoner.master_bytes, reasoner.all_logits) == (4096, 4, True)
    planner = doctor_job.plan_of(config, "planner", frozen=False)
    findings = list(doctor_job._check_fit(config, [planner, reasoner], Console(file=io.StringIO())))
    assert [finding.level for finding in findings] == [Level.OK]
    config.actor_rollout_ref.rollout.gpu_memory_utilization = 0.9
    reasoner = doctor_job.plan_of(config, "reasoner", frozen=False)
    (finding,) = doctor_job._check_fit(config, [planner, reasoner], Console(file=io.StringIO()))
    assert finding.level is Level.BROKEN
    assert "lower actor_rollout_ref.rollout.gpu_memory_utilization" in finding.fix


def test_a_planner_with_gpus_of_its_own_has_a_table_of_its_own(home, monkeypatch):
    from verl_rsim.training.preflight import doctor_job

    monkeypatch.setenv("RSIM_HOME", str(home))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(hardware, "gpus", lambda: [hardware.Gpu("A", 80 * doctor.GIB, 0)])
    config = compose_recipe("tiny", ["rsim.planner_pool={enable:true,n_gpus_per_node:2}"])
    monkeypatch.setattr(doctor_job.cpu, "is_chosen", lambda: False)
    plans = [doctor_job.plan_of(config, role, frozen=False) for role in ("planner", "reasoner")]
    assert [plan.ranks for plan in plans] == [2, 1]
    printed = io.StringIO()
    assert len(list(doctor_job._check_fit(config, plans, Console(file=printed, width=200)))) == 2
    of_planner, of_reasoner = printed.getvalue().split("of each of the reasoner's GPUs")
    assert "planner's server" in of_planner
    assert "reasoner's server" not in of_planner
    assert "planner's server" not in of_reasoner


@pytest.mark.parametrize(
    ("overrides", "cores", "remedy"),
    [
        ([], 5, ""),  # 2 for storage, 3 for its GPU
        ([], 4, "ray_kwargs.ray_init.num_cpus=5"),
        (["transfer_queue.backend.SimpleStorage.num_data_storage_units=8"], 11, "num_data_storage_units=1"),
        (["rsim.planner_pool={enable:true,n_gpus_per_node:2}"], 11, ""),
        (["rsim.planner_pool={enable:true,n_gpus_per_node:2}"], 10, "ray_kwargs.ray_init.num_cpus=11"),
        (["rsim.planner_pool={enable:true,n_gpus_per_node:2,nnodes:2}"], 1, "nothing said"),
        (["+ray_kwargs.ray_init.address=auto"], 1, "nothing said"),
    ],
)
def test_a_job_that_would_wait_for_cores_without_end_is_found(home, monkeypatch, overrides, cores, remedy):
    from verl_rsim.training.preflight import doctor_job

    monkeypatch.setenv("RSIM_HOME", str(home))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = compose_recipe("tiny", [f"ray_kwargs.ray_init.num_cpus={cores}", *overrides])
    found = list(doctor_job._check_cores(config))
    if remedy == "nothing said":
        assert found == []
        return
    assert found[0].level is (Level.BROKEN if remedy else Level.OK)
    assert remedy in found[0].fix


def test_the_cache_of_a_server_is_what_vllm_takes_it_to_be(monkeypatch):
    from omegaconf import OmegaConf

    from verl_rsim.training.preflight import doctor_job

    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setattr(hardware, "memory", lambda: hardware.Memory(1000, 1000))
    rollout = OmegaConf.create({"gpu_memory_utilization": 0.5, "engine_kwargs": {"vllm": {}}})
    assert doctor_job._cache_bytes(rollout, 100) == 400, "a share of the machine's, less what the model takes"
    for given, size in ((1234, 1234), ("2G", 2 << 30), ("1.5m", 1_500_000)):
        rollout.engine_kwargs.vllm.kv_cache_memory_bytes = given
        assert doctor_job._cache_bytes(rollout, 100) == size
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert doctor_job._cache_bytes(rollout, 100) == 3 << 30


def test_the_doctor_of_a_recipe_says_what_fits_and_what_does_not(home, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(home))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(doctor, "CHECKS", ())
    good = CliRunner().invoke(app, ["doctor", "tiny"])
    assert good.exit_code in (0, 1), "a busy machine may be too small"
    for part in ("recipe: tiny can start", "labels 1 to 9 are tokens", "KV cache", "memory of the job: peak about"):
        assert part in good.output, good.output
    bad = CliRunner().invoke(app, ["doctor", "tiny", "rsim.lambda=2"])
    assert bad.exit_code == 1
    assert "rsim.lambda=2" in bad.output
    stock = CliRunner().invoke(app, ["doctor", "grpo_code", f"actor_rollout_ref.model.path={home}/models/tiny-llama"])
    for part in ("grpo_code is a stock verl job", "reasoner's KV cache", "memory of the job: peak about"):
        assert part in stock.output, stock.output
    for nowhere in ("nowhere", "nowhere.yaml"):
        assert CliRunner().invoke(app, ["doctor", nowhere]).exit_code == 1


def test_the_doctor_compares_the_rules_with_those_of_a_models_training(home, tmp_path):
    config = compose_recipe("tiny", [f"planner.model.path={tmp_path}", f"actor_rollout_ref.model.path={tmp_path}/no"])
    rsim = parse_config(OmegaConf.to_container(config.rsim, resolve=True))
    assert list(check_trained_rules(config, rsim)) == []
    rules = trained_rules(config, rsim)
    described = PolicyDescription(role="planner", base_model="tiny", step=1, rules=rules)
    described.write(tmp_path)
    assert list(check_trained_rules(config, rsim)) == [ok("rules", "those under which the planner was trained")]
    other = dataclasses.replace(rules.rules, max_turns=8, delimiter="##")
    dataclasses.replace(described, rules=dataclasses.replace(rules, rules=other)).write(tmp_path)
    (finding,) = check_trained_rules(config, rsim)
    assert finding.fix == "rsim.max_turns=8 rsim.step_delimiter='##'"
    assert "max_turns 3, trained with 8" in finding.details
    dataclasses.replace(described, role="reasoner").write(tmp_path)
    (finding,) = check_trained_rules(config, rsim)
    assert "is a trained reasoner" in finding.details


def test_a_job_is_a_recipe_a_file_of_ones_own_or_the_overrides_alone(tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    own.write_text((files("verl_rsim.recipes.tiny") / "tiny.yaml").read_text().replace("max_turns: 3", "max_turns: 5"))
    assert compose_recipe("tiny", []).rsim.max_turns == 3
    assert compose_recipe(str(own), []).rsim.max_turns == 5
    assert compose_recipe("rsim_trainer", ["planner.model.path=x"]).planner.model.path == "x"
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: started.append(command) or 0)
    assert CliRunner().invoke(app, ["train", str(own), "rsim.lambda=0.3"]).exit_code == 0
    assert started[0][3:] == ["--config-path", str(tmp_path), "--config-name", "own", "rsim.lambda=0.3"]
