"""Tasks of lm-eval from a folder of the user's own run no code unless allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from callbacks import BenchmarkMonitor
from lit_sft.__main__ import main
from lit_sft.evaluation.harness import score_task
from lit_sft.evaluation.harness_code import check_tasks, task_files
from lit_sft.evaluation.scores import Skipped
from lit_sft.evaluation.suite import HarnessSet
from tests.lit_sft.evaluation.conftest import MakeModel

pytest.importorskip("lm_eval")

Write = Callable[..., str]

PLAIN = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: ITEMS}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{q}}\\nAnswer:"
doc_to_choice: options
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with a task without code, and a module that leaves a trace when it is imported."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    items = tmp_path / "items.json"
    items.write_text(json.dumps([{"q": "Who?", "options": ["me", "you"], "gold": 0}] * 3))
    (folder / "mine.yaml").write_text(PLAIN.replace("ITEMS", str(items)))
    (folder / "trap.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\ndef shown(doc): return doc['q']\n"
    )
    return folder


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "mine.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


CODE = {
    "a function": ('"Question: {{q}}\\nAnswer:"', "!function trap.shown", r"mine\.yaml:7: `!function trap\.shown`"),
    "a class": ("task: mine", "task: mine\nclass: x.Y", r"mine\.yaml:3: `class` names a Python class"),
    "an object": ("gold\n", "!!python/object/apply:os.system [ls]\n", r"`!!python/object/apply:os\.system` is code"),
    "a script": ("dataset_path: json", "dataset_path: tasks/trap.py", r"`dataset_path` 'tasks/trap\.py' contains code"),
    "a folder with a script": ("dataset_path: json", "dataset_path: tasks", "'tasks' contains code, not only data"),
    "pickles": ("dataset_path: json", "dataset_path: pandas", "'pandas' contains code, not only data"),
    "remote code": ("{data_files", "{trust_remote_code: true, data_files", "`trust_remote_code` runs a data set's own"),
    "unsafe code": ("task: mine", "task: mine\nunsafe_code: true", "`unsafe_code` runs what the model writes"),
    "a foreign metric": ("metric: acc,", "metric: ./metric,", r"the metric '\./metric' is not one of lm-eval's"),
    "a metric of evaluate": ("metric: acc,", "metric: acc, hf_evaluate: true,", "`hf_evaluate` downloads and runs"),
    "other prompts": ("task: mine", "task: mine\nuse_prompt: 'promptsource:x'", "`use_prompt` loads templates"),
    "internals": ("{{q}}", "{{ q.__class__.__mro__ }}", "a template uses Python internals"),
    "an included file": ("task: mine", "task: mine\ninclude: ../other.inc", r"other\.inc:1: `!function trap\.shown`"),
}  # fmt: skip


@pytest.mark.parametrize("case", CODE)
def test_tasks_containing_code_are_refused_before_anything_runs(
    tmp_path: Path,
    tasks: Path,
    write: Write,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make_model: MakeModel,
    case: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.inc").write_text("process_docs: !function trap.shown\n")
    check_tasks("tasks")
    old, new, message = CODE[case]
    change(tasks, old, new)
    with pytest.raises(ValueError, match=message):
        check_tasks("tasks")
    check_tasks("tasks", ["tasks"])
    check_tasks("tasks", [str(tmp_path)])
    with pytest.raises(ValueError, match=message):
        list(score_task(make_model(), HarnessSet("mine", include="tasks"), Skipped(), allow_code=["elsewhere"]))
    suite = write("suite.yaml", "harness: {mine: {task: mine, include: tasks}}")
    assert main(["evaluate", "--suite", suite, "--models", "a=nowhere"]) == 2
    said = capsys.readouterr().err
    assert "add `--allow_code tasks`" in said
    with pytest.raises(ValueError, match="Score it after training"):
        BenchmarkMonitor(suite)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", [".yaml", "..yaml", "sub/.yaml", "a.b.yaml", " .yaml"])
def test_every_file_that_lm_eval_reads_is_checked_whatever_its_name(tmp_path: Path, tasks: Path, name: str) -> None:
    from lm_eval.tasks._index import TaskIndex

    path = tasks / name
    path.parent.mkdir(exist_ok=True)
    (tasks / "mine.yaml").rename(path)
    assert {path} == set(TaskIndex._iter_yaml_files(tasks)) <= set(task_files(tasks))
    path.write_text(path.read_text().replace('"Question: {{q}}\\nAnswer:"', "!function trap.shown"))
    with pytest.raises(ValueError, match=r"`!function trap\.shown` is code"):
        check_tasks(str(tasks))
    assert not (tmp_path / "sprung").exists()


def test_a_function_runs_where_it_is_allowed(tmp_path: Path, tasks: Path, make_model: MakeModel) -> None:
    change(tasks, '"Question: {{q}}\\nAnswer:"', "!function trap.shown")
    settings = HarnessSet("mine", include=str(tasks))
    rows = list(score_task(make_model(), settings, Skipped(), allow_code=[str(tasks)]))
    assert [row.details["question"] for row in rows] == ["Who?"] * 3
    assert (tmp_path / "sprung").exists()


def test_template_that_hides_access_to_internals_is_stopped_at_run_time(
    tmp_path: Path, tasks: Path, make_model: MakeModel
) -> None:
    command = f"touch {tmp_path / 'sprung'}"
    hidden = "cycler|attr('_'~'_init_'~'_')|attr('_'~'_globals_'~'_')"
    change(tasks, '"Question: {{q}}\\nAnswer:"', json.dumps(f"{{{{ ({hidden})['os'].system('{command}') }}}}"))
    check_tasks(str(tasks))
    with pytest.raises(Exception, match=r"unsafe|has no attribute '__"):
        list(score_task(make_model(), HarnessSet("mine", include=str(tasks)), Skipped()))
    assert not (tmp_path / "sprung").exists()
    list(score_task(make_model(), HarnessSet("mine", include=str(tasks)), Skipped(), allow_code=[str(tasks)]))
    assert (tmp_path / "sprung").exists()  # the trap does work
