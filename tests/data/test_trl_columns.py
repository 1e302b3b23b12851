"""Exported files in TRL itself: what it takes them for, and a few steps of its trainers on them.

Needs the `bench` extra; importing TRL takes seconds, hence slow.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

from clew.core.types import Message, Outcome, Problem
from clew.data.expert import Solution
from clew.data.export import as_text, dpo_rows, kto_rows, save_rows, sft_rows, step_rows
from clew.data.origin import Origin
from clew.data.pairs import Pair
from clew.data.step_labels import StepLabels

pytestmark = [
    pytest.mark.slow,
    # What other packages do when they train is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def trl():
    pytest.importorskip("trl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import trl
        from datasets import load_dataset
        from trl import data_utils
        from trl.trainer.kto_trainer import KTOConfig, KTOTrainer
    return SimpleNamespace(trl=trl, utils=data_utils, load=load_dataset, kto=KTOTrainer, kto_config=KTOConfig)


@pytest.fixture(scope="module")
def model_and_tokenizer(tmp_path_factory):
    """A model of clew's own, saved as `clew` saves it and read back by `transformers`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from clew.models.checkpoint import save_checkpoint
    from clew.models.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **size, **heads, **ids))
    path = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(model, tokenizer, path)
    return lambda: (AutoModelForCausalLM.from_pretrained(path, dtype="float32"), AutoTokenizer.from_pretrained(path))


PROBLEM = Problem("countdown:3-5=8", "countdown", (Message("system", "be brief"), Message("user", "make 8 from 3 5")))


def solution(text, outcome):
    return Solution(problem=PROBLEM, tokens=(1, 2), text=text, outcome=outcome, value=float(outcome is Outcome.RIGHT))


GOOD, BAD = solution("answer 3 + 5", Outcome.RIGHT), solution("answer 5 - 3", Outcome.WRONG)
PAIR = Pair(
    problem=PROBLEM,
    prefix=(1,),
    chosen=(2, 3),
    rejected=(4, 5),
    chosen_value=1.0,
    rejected_value=0.0,
    prefix_text="have 5 3",
    chosen_text=" try 5 + 3 = 8",
    rejected_text=" try 5 - 3 = 2",
)
STEPS = StepLabels(problem=PROBLEM, steps=("have 5 3", " try 5 - 3 = 2"), labels=(1.0, 0.0))


def loaded(trl, tmp_path, rows, kind):
    path = tmp_path / f"rows-{len(list(tmp_path.iterdir()))}.{kind}"
    save_rows(path, rows)
    name = {"jsonl": "json", "parquet": "parquet"}[kind]
    return trl.load(name, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_trl_takes_each_form_for_what_it_is(trl, tmp_path, kind):
    for make, given in ((sft_rows, [GOOD]), (kto_rows, [GOOD, BAD]), (dpo_rows, [PAIR])):
        talk = (
            loaded(trl, tmp_path / "talk", make(given), kind) if (tmp_path / "talk").mkdir(exist_ok=True) is None else 0
        )
        text = loaded(trl, tmp_path, make(given, as_text()), kind)
        assert trl.utils.is_conversational(talk[0])
        assert not trl.utils.is_conversational(text[0])
        assert trl.utils.maybe_extract_prompt(talk[0]) == talk[0]
        assert trl.utils.maybe_extract_prompt(text[0]) == text[0]
    rows = loaded(trl, tmp_path, step_rows([(STEPS, Origin())]), kind)
    assert rows[0]["completions"] == ["have 5 3", " try 5 - 3 = 2"]
    assert rows[0]["labels"] == [True, False]


def test_the_chat_template_gives_the_prompt_that_clew_reads(trl, model_and_tokenizer):
    from clew.initialize.chat import render_problem

    _, tokenizer = model_and_tokenizer()
    (row,) = sft_rows([GOOD])
    applied = trl.utils.apply_chat_template(row, tokenizer)
    assert applied["prompt"] == render_problem(PROBLEM)
    assert applied["completion"].strip() == "answer 3 + 5<|end|>"


def settings(config, tmp_path):
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return config(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        learning_rate=1e-2,
        **quiet,
    )


def trained(trainer):
    """The losses of the steps; the weights moved."""
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    assert any(not value.equal(before[name]) for name, value in trainer.model.state_dict().items())
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize("form", ["conversation", "text"])
@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_its_trainers_learn_from_our_files(trl, tmp_path, model_and_tokenizer, kind, form):
    model, tokenizer = model_and_tokenizer()
    forms = () if form == "conversation" else (as_text(),)
    given = {"sft": [GOOD] * 4, "dpo": [PAIR] * 4, "kto": [GOOD, BAD] * 2}[kind]
    rows = {"sft": sft_rows, "dpo": dpo_rows, "kto": kto_rows}[kind](given, *forms)
    data = loaded(trl, tmp_path, rows, "parquet")
    trainer, config = {
        "sft": (trl.trl.SFTTrainer, trl.trl.SFTConfig),
        "dpo": (trl.trl.DPOTrainer, trl.trl.DPOConfig),
        "kto": (trl.kto, trl.kto_config),
    }[kind]
    losses = trained(trainer(model, args=settings(config, tmp_path), train_dataset=data, processing_class=tokenizer))
    assert len(losses) == 2
    assert losses[1] < losses[0]
