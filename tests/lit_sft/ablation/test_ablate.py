"""Studies of a tiny model, run as a user would run them: killed and restarted, and with failing arms."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from data_modules.rendering.masking import MASKS
from lit_sft.__main__ import main
from lit_sft.ablation.budget import TrialCost, make_plan
from lit_sft.ablation.collect import read_trial
from lit_sft.ablation.ray_tasks import short_folder
from lit_sft.ablation.study import read_study
from lit_sft.ablation.study_report import write_report
from lit_sft.ablation.trials import TrialFiles
from tests.conftest import MODELS, alpaca_rows
from tests.waiting import wait_until

Write = Callable[..., str]


@pytest.fixture
def settings(write: Write, tokenizer_folder: str, tmp_path: Path) -> dict[str, Any]:
    base = {
        "model": {
            "backbone": {"config": {**MODELS["gpt2"], "n_layer": 1}, "tokenizer": tokenizer_folder},
            "optimizer": {"lr": 1e-2},
            "generation": {"max_new_tokens": 4},
        },
        "data": {
            "train": write("train.jsonl", alpaca_rows(40)), "val": write("val.jsonl", alpaca_rows(48)[40:44]),
            "test": write("test.jsonl", alpaca_rows(56)[44:]), "template": "chatml", "batch_size": 4,
            "cache_dir": str(tmp_path / "cache"), "encoding_processes": 1,
        },
        "trainer": {
            "max_steps": 6, "accelerator": "cpu", "log_every_n_steps": 1,
            "callbacks": [
                "callbacks.RunHealth",
                {"class_path": "callbacks.SampleGeneration", "init_args": {"prompts": ["<b>?"], "max_new_tokens": 3}},
            ],
        },
    }  # fmt: skip
    return {
        "question": "Does the mask <i>matter</i>?",
        "base": write("base.yaml", yaml.safe_dump(base)),
        "axes": {"data.mask": ["whole_sequence", "output_only"]},
        "seeds": [0, 1],
        "validations": 2,
        "answers": 4,
    }


def command(config: str, root: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "lit_sft", "ablate", "--config", config, "--root", str(root), "--jobs", "2", *more]


def metrics(folder: Path) -> list[list[str]]:
    with (folder / "report.csv").open(encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.mark.parametrize("equal", ["steps", "supervised_tokens", "flops"])
def test_all_trials_get_the_same_budget(settings: dict[str, Any], write: Write, equal: str) -> None:
    plan = make_plan(read_study(write("s.yaml", yaml.safe_dump({**settings, "budget": {"equal": equal}}))))
    amounts = {key: getattr(found, equal) for key, found in plan.amounts.items()}
    first = amounts["mask=whole_sequence", 0]
    for key, amount in amounts.items():
        one_step = amount / plan.amounts[key].steps
        assert first <= amount <= first + 2 * one_step, key
    assert plan.amounts["mask=whole_sequence", 0].steps == 6
    assert (plan.amounts["mask=output_only", 0].steps > 6) == (equal != "steps")


def test_both_documents_of_a_pair_are_counted_where_both_are_trained(settings: dict[str, Any], write: Write) -> None:
    rows = [{"prompt": f"Count to {n}.", "chosen": "12345"[: n % 5 + 1], "rejected": "No. " * 20} for n in range(28)]
    files = {"data.train": write("pairs.jsonl", rows[:24]), "data.val": write("others.jsonl", rows[24:])}
    given = {**files, "data.test": None, "data.packing": False}
    axes = {"model.objective.name": ["next_token", "dpo"]}
    made = {**settings, "axes": axes, "settings": given, "seeds": [0], "budget": {"equal": "steps"}}
    study = read_study(write("pairs.yaml", yaml.safe_dump(made)))
    plan, store = make_plan(study), TrialCost(study, study.all_arms()[1], 0).data.stores["train"]
    one, both = (plan.amounts[f"name={name}", 0] for name in ("next_token", "dpo"))
    assert (one.steps, one.examples) == (both.steps, both.examples) == (6, len(store))
    rejected = [example.rejected for example in store if example.rejected is not None]
    assert (len(rejected), both.tokens - one.tokens) == (len(store), sum(len(each) for each in rejected))
    supervised = sum(int((each.loss_weights(MASKS["output_only"]) > 0).sum()) for each in rejected)
    assert both.supervised_tokens - one.supervised_tokens == supervised > 0
    assert both.flops > 2 * one.flops


def finished(root: Path) -> list[Path]:
    return list((root / "masks" / "trials").glob("*/version_0/result_last.json"))


def test_killed_study_resumes_and_gives_the_same_report(settings: dict[str, Any], write: Write, tmp_path: Path) -> None:
    config, straight, killed = write("masks.yaml", yaml.safe_dump(settings)), tmp_path / "straight", tmp_path / "killed"
    environment = {**os.environ, "COLUMNS": "200"}
    subprocess.run(command(config, straight), check=True, env=environment, capture_output=True)
    process = subprocess.Popen(command(config, killed), env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(finished(killed)), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    results = finished(killed)
    stamps = {path: path.stat().st_mtime_ns for path in results}
    again = subprocess.run(command(config, killed), check=True, env=environment, capture_output=True, text=True)
    assert {path: path.stat().st_mtime_ns for path in results} == stamps
    assert metrics(killed / "masks") == metrics(straight / "masks")
    assert "The metrics that matter" not in again.stdout  # a heading of the page
    assert "against" in again.stdout
    assert again.stdout.endswith(f"report  {killed / 'masks' / 'report.html'}\n")

    # the planned amounts equal the trained ones; both arms of a seed have equal weights and data order
    plan = make_plan(read_study(config))
    for trial in read_study(config).trials(straight):
        record = json.loads((trial.folder / "version_0" / "trial.json").read_text())
        planned = plan.amounts[trial.arm.name, trial.seed]
        assert (record["step"], record["examples"], record["tokens"], record["supervised_tokens"]) == (
            planned.steps, planned.examples, planned.tokens, planned.supervised_tokens,
        )  # fmt: skip
    page = (straight / "masks" / "report.html").read_text()
    assert page.count('<td data-name="holds">yes</td>') == 7
    assert "<i>" not in page
    assert "<b>" not in page
    # scored the same way, whatever the training mask
    weights = {(row[1], row[-1]) for row in metrics(straight / "masks") if row[0] == "mean"}
    assert len(weights) == len({metric for metric, _ in weights})


@pytest.mark.slow
def test_study_killed_ten_times_gives_the_same_report(settings: dict[str, Any], write: Write, tmp_path: Path) -> None:
    config, straight, killed = write("masks.yaml", yaml.safe_dump(settings)), tmp_path / "straight", tmp_path / "killed"
    subprocess.run(command(config, straight), check=True, capture_output=True)
    moments, kills = random.Random(0), 0
    while True:
        process = subprocess.Popen(command(config, killed), stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(timeout=moments.uniform(2, 25) if kills < 10 else 600)
            break
        except subprocess.TimeoutExpired:
            for group in trials_under(killed):
                os.kill(group, signal.SIGKILL)
            process.kill()
            process.wait()
            kills += 1
    assert process.returncode == 0
    print(f"{kills} kills")
    assert kills >= 2
    assert metrics(killed / "masks") == metrics(straight / "masks")


def trials_under(folder: Path) -> list[int]:
    """Processes that train or test trials in a folder; they outlive the study that began them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_failing_arms_do_not_stop_the_others_and_the_report_says_why(
    settings: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = {
        "base": {},
        "same": {},
        "misspelt": {"data.maks": "output_only"},
        "diverges": {"model.optimizer.lr": 1e30},
        "grows too large": {"trainer.callbacks+": "tests.lit_sft.ablation.test_ablate.Killed"},
    }
    study = {**settings, "axes": {}, "arms": arms, "seeds": [0], "budget": {"amount": 4}}
    config = write("fails.yaml", yaml.safe_dump(study))
    done = subprocess.run(
        command(config, tmp_path), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert done.returncode == 1, done.stderr
    text = (tmp_path / "fails" / "report.md").read_text()
    for reason in ("data.maks", "expected a finite number", "killed by SIGKILL, usually out of memory"):
        assert reason.replace("_", "&#95;") in text
    same = [row for row in metrics(tmp_path / "fails") if row[0] == "difference" and row[2] == "same"]
    assert same
    assert {float(row[3]) for row in same} == {0.0}
    assert "“same” and “base” are identical in nats per answer token, in every record and seed." in text

    # failed trials are not retried unless asked; failures caused by settings are cleared when the settings change
    study["arms"]["misspelt"] = {"data.mask": "output_only"}
    write("fails.yaml", yaml.safe_dump(study))
    before = (tmp_path / "fails" / "trials" / "diverges-seed0" / "log.txt").stat().st_size
    assert subprocess.run(command(config, tmp_path), capture_output=True).returncode == 1
    assert (tmp_path / "fails" / "trials" / "misspelt-seed0" / "version_0" / "result_last.json").is_file()
    assert (tmp_path / "fails" / "trials" / "diverges-seed0" / "log.txt").stat().st_size == before

    study["arms"]["same"] = {"model.optimizer.lr": 1e-3}
    write("fails.yaml", yaml.safe_dump(study))
    assert main(["ablate", "--config", config, "--root", str(tmp_path)]) == 2
    assert (
        "same-seed0: was started with different settings (model.optimizer.lr was null, is now 0.001)"
        in capsys.readouterr().err.replace("\n", " ")
    )

    study["arms"]["same"] = {}
    write("fails.yaml", yaml.safe_dump({**study, "answers": 3}))
    assert main(["ablate", "--config", config, "--root", str(tmp_path)]) == 2
    assert "was started with different settings (answers was 4, is now 3)" in capsys.readouterr().err.replace("\n", " ")

    write("fails.yaml", yaml.safe_dump(study))
    write("test.jsonl", alpaca_rows(57)[44:])
    assert main(["ablate", "--config", config, "--root", str(tmp_path)]) == 2
    assert "was started with different settings (data was " in capsys.readouterr().err.replace("\n", " ")


class Killed(Callback):
    """A process that the system kills."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_plan_is_shown_with_its_commands_and_nothing_is_run(
    settings: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write("masks.yaml", yaml.safe_dump(settings))
    assert main(["ablate", "--config", config, "--root", str(tmp_path / "runs"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("-m lit_sft fit --config") == 4
    assert said.count("checkpoints/last.ckpt --answers 4") == 4  # of `test`, which follows each `fit`
    assert "MFLOP" in said
    assert " 0.0 " not in said
    assert " in total if run one at a time" in " ".join(said.split())
    assert not list((tmp_path / "runs").rglob("*.ckpt"))
    assert main(["ablate", "--config", config, "--root", str(tmp_path / "runs"), "--slurm", "--jobs", "3"]) == 0
    script = (tmp_path / "runs" / "masks" / "slurm.sh").read_text()
    assert "#SBATCH --array=0-3%3" in script
    assert "--only $SLURM_ARRAY_TASK_ID" in script


def test_a_plan_of_the_best_checkpoint_tests_the_run_as_a_whole(
    settings: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    study = read_study(write("best.yaml", yaml.safe_dump({**settings, "seeds": [0], "checkpoint": "best"})))
    files = TrialFiles(study, study.trials(tmp_path)[0])
    plan = make_plan(study)
    assert [left[3] for left in files.commands(plan)] == ["fit", "test"]
    assert files.commands(plan)[1][4] == str(files.run)  # which checkpoint is best is known after training only
    (files.run / "checkpoints").mkdir(parents=True)
    (files.run / "fit.json").write_text("{}")
    assert [left[3:5] for left in files.commands(plan)] == [["test", str(files.run / "checkpoints" / "last.ckpt")]]


def test_an_arm_with_wrong_settings_fails_the_plan(
    settings: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = {"base": {}, "misspelt": {"data.msk": "output_only"}, "unknown value": {"data.mask": "whole"}}
    config = write("wrong.yaml", yaml.safe_dump({**settings, "axes": {}, "arms": arms}))
    assert main(["ablate", "--config", config, "--root", str(tmp_path / "runs"), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert f"{config}: arm “misspelt”: unrecognized arguments: --data.msk" in said.err
    assert "Also invalid: “unknown value”." in said.err
    assert "-m lit_sft fit" not in said.out


def test_trials_run_on_a_local_ray_cluster(settings: dict[str, Any], write: Write, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    arms = {"base": {}, "diverges": {"model.optimizer.lr": 1e30}}
    study = {**settings, "axes": {}, "arms": arms, "seeds": [0], "budget": {"amount": 4}}
    config = write("ray.yaml", yaml.safe_dump(study))
    done = subprocess.run(command(config, tmp_path, "--ray", "local"), capture_output=True, text=True)
    assert "base, seed 0: done" in done.stdout, done.stderr
    assert "diverges, seed 0: failed" in done.stdout
    assert (tmp_path / "ray" / "trials" / "base-seed0" / "version_0" / "result_last.json").is_file()


def test_losses_are_given_by_file_where_there_are_several(tmp_path: Path) -> None:
    run = tmp_path / "a" / "version_0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed_everything: 0\n")
    rows = [
        {"origin": f"{file}:{line}", "nats": {"whole_sequence": nats}, "tokens": {"whole_sequence": 2}}
        for file, line, nats in (("x/texts.jsonl", 1, 3.0), ("x/texts.jsonl", 2, 5.0), ("x/rows.json", 1, 1.0))
    ]
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "result.json").write_text(json.dumps({"files": ["records.jsonl"]}))
    found = read_trial(run / "result.json", "a")
    assert found is not None
    assert set(found.sums) == {"whole_sequence", "whole_sequence in texts.jsonl", "whole_sequence in rows.json"}
    assert sum(nats for nats, _ in found.sums["whole_sequence in texts.jsonl"].values()) == 8.0


def test_retry_restarts_a_failed_trial_including_the_baseline(
    settings: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = {**settings, "axes": {}, "seeds": [0], "budget": {"amount": 2}}
    study["arms"] = {"base": {"model.optimizer.lr": 1e30}, "other": {}}
    config = write("retry.yaml", yaml.safe_dump(study))
    assert subprocess.run(command(config, tmp_path), capture_output=True).returncode == 1
    text = (tmp_path / "retry" / "report.md").read_text()
    assert "no other arm has a result with the same seed as “base”" in text
    assert "|  | base | other | over |" in text
    assert "expected a finite number" in text

    study["arms"]["base"] = {"model.optimizer.lr": 1e-3}
    write("retry.yaml", yaml.safe_dump(study))
    arguments = ["ablate", "--config", config, "--root", str(tmp_path)]
    assert main(arguments) == 2
    assert "--retry restarts failed trials" in capsys.readouterr().err.replace("\n", " ")
    assert main([*arguments, "--set", "model.optimizer.lr=1e-3", "--retry"]) == 2  # of the other trial, which is done
    capsys.readouterr()
    assert subprocess.run(command(config, tmp_path, "--retry"), capture_output=True).returncode == 0
    assert "“base”" in (tmp_path / "retry" / "report.md").read_text()

    # its runs, reported one by one, are the same arms with the same seeds
    runs = [tmp_path / "retry" / "trials" / f"{arm}-seed0" / "version_0" for arm in ("base", "other")]
    again = write_report(runs, tmp_path / "again").with_suffix(".md").read_text()
    assert "Arms: “base”, “other”; “base” is the baseline." in again
    assert "model.optimizer.lr" in again
    alone = write_report(runs[:1], tmp_path / "alone").with_suffix(".md").read_text()
    assert "There is nothing to compare “base” with" in alone
    with pytest.raises(ValueError, match="is a study; report it alone"):
        write_report([tmp_path / "retry", runs[0]])


def test_setting_that_every_arm_sets_is_refused_for_all_trials(
    settings: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write("masks.yaml", yaml.safe_dump(settings))
    assert main(["ablate", "--config", config, "--root", str(tmp_path), "--set", "data.mask=output_only"]) == 2
    assert "--set data.mask: every arm of the study sets it" in capsys.readouterr().err


def test_missing_base_is_named_as_in_the_study_file(
    settings: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write("base.yaml", "data: {}")
    config = write("masks.yaml", yaml.safe_dump({**settings, "base": base.replace("base.y", "bas.y")}))
    assert main(["ablate", "--config", config, "--root", str(tmp_path)]) == 2
    assert f"{config}: base {tmp_path / 'bas.yaml'}: no such file; did you mean {base}?" in capsys.readouterr().err


def test_nothing_to_compare_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such folder"):
        write_report([tmp_path / "a" / "version_0", tmp_path / "b" / "version_0"])


@pytest.mark.parametrize(("temporary", "folder"), [("/tmp", None), ("/var/tmp/me", None), ("/t" * 60, "/tmp/ray")])
def test_a_local_ray_cluster_keeps_its_sockets_where_their_paths_are_short(temporary: str, folder: str | None) -> None:
    assert short_folder(temporary) == folder
