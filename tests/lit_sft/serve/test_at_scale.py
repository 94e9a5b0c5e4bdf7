"""What must hold over many requests: equal texts, no leak, throughput, lm-eval as a client (`make test-serve`)."""

from __future__ import annotations

import gc
import json
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("openai", reason="needs the extra `endpoint`")

import openai
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lit_sft.models.adapters import causal_lm
from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.worker import Pending
from tests.conftest import MODELS, byte_tokenizer
from tests.lit_sft.chat.conftest import never_ending
from tests.lit_sft.models.test_generation import build
from tests.lit_sft.models.test_streaming import mixed_texts
from tests.lit_sft.serve.running import HELLO, RunningServer, answer_of, prompt_of, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("temperature", [0.0, 1.2], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", MODELS)
def test_200_answers_are_equal_streamed_together_and_one_by_one(name: str, temperature: float) -> None:
    bundled = AutoTokenizer.from_pretrained("examples/tokenizer")
    model = LoadedModel(name, build(name, bundled).double(), bundled, "chatml")
    texts = mixed_texts(200)
    settings = GenerationSettings(24, temperature, 0.95)
    expected = [
        model.answer_requests([GenerationRequest(model.encoder.ids_of_document(text), settings, seed)])[0].text
        for seed, text in enumerate(texts)
    ]
    with running({name: lambda: model}) as server, server.client() as client, ThreadPoolExecutor(32) as threads:

        def ask(seed: int, is_streamed: bool) -> str:
            asked = {"max_tokens": 24, "temperature": temperature, "top_p": 0.95, "seed": seed}
            found = client.completions.create(model=name, prompt=texts[seed], stream=is_streamed, **asked)
            parts = found if is_streamed else [found]
            return "".join(choice.text for part in parts for choice in part.choices)

        seeds = range(len(texts))
        alone = [ask(seed, False) for seed in seeds]
        together = list(threads.map(lambda seed: ask(seed, False), seeds))
        streamed = list(threads.map(lambda seed: ask(seed, True), seeds))
    assert alone == expected
    assert together == expected
    assert streamed == expected
    num_replaced = sum("\ufffd" in text for text in expected)
    print(f"{name}: {len({*expected})} different of {len(expected)}, {num_replaced} with a replacement character")


def test_1000_requests_leave_nothing_behind(model: LoadedModel) -> None:
    draw = random.Random(0)
    with running({"tiny": lambda: model}) as server, server.client() as client:
        ask_often(server, client, draw, 200)
        before = left_behind()
        ask_often(server, client, draw, 1000)
        after = left_behind()
    print(f"before: {before}, after: {after}")
    assert after["requests"] == 0
    assert after["threads"] <= before["threads"]
    assert after["files"] <= before["files"]
    assert after["objects"] <= before["objects"] * 1.01
    assert after["megabytes"] <= before["megabytes"] + 20


def ask_often(server: RunningServer, client: Any, draw: random.Random, num: int) -> None:
    """Requests of all kinds: whole, streamed, cancelled, refused."""
    settings: dict[str, Any] = {"model": "tiny", "messages": HELLO}
    start = len(server.lines)
    for _ in range(num):
        kind, length = draw.randrange(5), draw.randint(1, 12)
        if kind == 0:
            client.chat.completions.create(**settings, max_tokens=length, logprobs=True, top_logprobs=3)
        elif kind == 1:
            list(client.chat.completions.create(**settings, max_tokens=length, stream=True))
        elif kind == 2:
            stream = client.chat.completions.create(**settings, max_tokens=400, stream=True)
            next(iter(stream))
            stream.close()
        elif kind == 3:
            client.completions.create(model="tiny", prompt=f"text {length}", echo=True, logprobs=1, max_tokens=length)
        else:
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(**settings, max_tokens=10_000)
    wait_until(lambda: len(server.lines) == start + num)
    wait_until(lambda: server.worker.num_running == 0)


def left_behind() -> dict[str, int]:
    """What the process holds."""
    gc.collect()
    objects = gc.get_objects()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "requests": sum(issubclass(type(each), (Pending, GenerationRequest)) for each in objects),
        # the pool that encodes prompts grows up to a limit that depends on the cores
        "threads": sum(not thread.name.startswith("asyncio") for thread in threading.enumerate()),
        "files": len(os.listdir("/proc/self/fd")),
        "objects": len(objects),
        "megabytes": pages * os.sysconf("SC_PAGE_SIZE") // 2**20,
    }


def test_8_clients_get_at_least_two_and_a_half_times_the_tokens_of_one() -> None:
    tokenizer = byte_tokenizer()
    model = LoadedModel("tiny", never_ending(tokenizer, 512), tokenizer, "chatml")
    with running({"tiny": lambda: model}) as server:
        ask_together(server, 1, 1)  # loads the model
        one, eight = (ask_together(server, num, 6) for num in (1, 8))
    print(f"one client: {one:,.0f} tokens a second, eight: {eight:,.0f}, {eight / one:.1f} times as many")
    assert eight >= 2.5 * one


def ask_together(server: RunningServer, num_clients: int, num_each: int) -> float:
    """Tokens per second of several clients, each of which asks again when it has its answer."""

    def ask(number: int) -> int:
        count = 0
        with server.client() as client:
            for turn in range(num_each):
                messages = [{"role": "user", "content": f"Client {number} asks for the {turn}th time."}]
                found = client.chat.completions.create(
                    model="tiny", messages=messages, max_tokens=100, temperature=0.8, seed=turn
                )
                count += found.usage.completion_tokens
        return count

    began = time.monotonic()
    with ThreadPoolExecutor(num_clients) as threads:
        num_tokens = sum(threads.map(ask, range(num_clients)))
    return num_tokens / (time.monotonic() - began)


@pytest.fixture
def tasks(write: Callable[..., str], tmp_path: Path) -> Path:
    """A task of multiple choice and one of generation, for lm-eval."""
    rows = [
        {"question": f"{text}?", "options": [text[:5], text[5:] or "none", "🐑 羊"], "answer": index % 3}
        for index, text in enumerate(mixed_texts(30))
    ]
    data = write("rows.jsonl", rows)
    shared = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\ntest_split: test\n"
    question = "doc_to_text: 'Question: {{question}} Answer:'\n"
    (tmp_path / "choice.yaml").write_text(
        f"task: serve_choice\n{shared}{question}output_type: multiple_choice\ndoc_to_choice: options\n"
        "doc_to_target: answer\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n"
    )
    (tmp_path / "text.yaml").write_text(
        f"task: serve_text\n{shared}{question}output_type: generate_until\ndoc_to_target: question\n"
        "generation_kwargs:\n  until: ['e']\n  max_gen_toks: 20\n  do_sample: false\n"
        "metric_list:\n  - metric: exact_match\n"
    )
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_lm_eval_gets_the_results_of_the_exported_model(
    tokenizer: PreTrainedTokenizerFast, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="needs the extra `eval`")
    pytest.importorskip("tenacity", reason="lm-eval's client of APIs needs it")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
    from lm_eval.tasks import TaskManager, get_task_dict

    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = LoadedModel("tiny", build("gpt2", tokenizer).double(), tokenizer, "plain")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)

    def evaluated(client: Any, *names: str, **options: Any) -> tuple[dict[str, Any], list[Any]]:
        found = lm_eval.evaluate(
            lm=client, task_dict=get_task_dict([*names], manager), bootstrap_iters=0, log_samples=True, **options
        )
        results = {name: dict(found["results"][name]) for name in names}
        return results, [sample["resps"] for name in names for sample in found["samples"][name]]

    names = ("serve_choice", "serve_text")
    causal_lm(model.backbone).save_pretrained(tmp_path / "model")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float64)
    alone = HFLM(pretrained=exported, tokenizer=tokenizer, max_length=512)
    expected, answers = evaluated(alone, *names)
    with running({"tiny": lambda: model}) as server:
        settings = {"model": "tiny", "tokenizer": str(tmp_path / "tokenizer"), "max_length": 512, "num_concurrent": 4}
        client = LocalCompletionsAPI(base_url=f"{server.address}/v1/completions", **settings)
        found, told = evaluated(client, *names)
        chat = LocalChatCompletion(base_url=f"{server.address}/v1/chat/completions", **settings)
        chat_results, chat_told = evaluated(chat, "serve_text", apply_chat_template=True)
    num_scored = 0
    for wanted, got in zip(answers, told, strict=True):
        for one, other in zip(wanted, got, strict=True):
            if isinstance(one[0], (tuple, list)):
                num_scored += 1
                assert other[0][0] == pytest.approx(one[0][0], abs=1e-3)
                assert bool(other[0][1]) == bool(one[0][1])
            else:
                assert other == one
    assert num_scored == 90
    questions = [f"Question: {text}? Answer:" for text in mixed_texts(30)]
    assert [sample[0] for sample in chat_told] == [
        [answer_of(model, prompt_of(model, question), num=20, stop=("e",))] for question in questions
    ]
    for name in names:
        for key, value in expected[name].items():
            assert found[name][key] == (pytest.approx(value) if isinstance(value, float) else value)
    print(json.dumps({"alone": expected, "served": found, "chat": chat_results}, default=str)[:1500])
