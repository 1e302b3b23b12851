"""Reinforcement learning and fine-tuning with adapters, in bf16, recomputed, averaged, and on models of others."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from one_token_world import PROBLEMS, Half, policy
from open_weights import model_of, policy_of, saved, tokenizer_of
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from clew.core.errors import InvalidValue
from clew.core.types import Message, Outcome, Problem, Sampling, Verdict
from clew.data.run import RunDirectory
from clew.evaluate import sample_groups
from clew.learn.advantages import group_centred
from clew.models.any_backbone import check_head
from clew.models.policy import LocalPolicy
from clew.models.transformers_policy import TransformersPolicy, load_transformers_policy
from clew.models.tuning import ADAPTER, Tuning, merged_weights, recomputing
from clew.recipes.learner import Learner, load_learner
from clew.recipes.progress import Progress
from clew.recipes.rl import RLConfig, rl
from clew.recipes.rl import main as rl_main
from clew.recipes.rl_algorithms import method_of
from clew.recipes.rl_learner import make_learner
from clew.recipes.rl_lessons import Moment, lessons_of
from clew.recipes.rl_losses import Counts
from clew.recipes.rl_rollouts import Rollouts, rewards_of
from clew.recipes.rl_settings import CriticSettings, PolicyGradient, StepSettings, TreeSettings
from clew.recipes.rl_update import gradient, old_and_weights
from clew.recipes.sft import Sft, SftConfig, check_writes
from clew.recipes.sft import main as sft_main
from clew.recipes.stage import running
from clew.tasks import Countdown

SPEC = "countdown:count=2,high=20,target_high=60"
HALF = Half(every=2)
FEW = {"steps": 2, "problems": 4, "group_size": 4, "max_tokens": 6}


class Even:
    """Right is a text of an even number of letters."""

    name = "even"

    def verify(self, problem, text):
        right = len(text) % 2 == 0
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), "answer")

    def extract(self, text):
        return text

    def problems(self, split, count, seed):
        return PROBLEMS[:count]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learn(directory, who, *, task=None, **settings):
    """The learner after `rl` on the problems of one token, and the metrics."""
    run = RunDirectory.create(directory / "run", {})
    settings = PolicyGradient(**{**FEW, **settings})
    learner = make_learner(settings, method_of(settings), who.policy, task or HALF, own=who)
    with running("rl", run, Progress({"rl": 1.0}, stream=io.StringIO()), total=1.0) as stage:
        told = {"policy": who.policy, "task": task or HALF, "problems": PROBLEMS, "seed": 0, "stage": stage}
        rl(settings, learner=learner, **told)
    return learner, run.metrics("rl")


def lessons(learner, policy):
    """A batch of samples of `policy` and what is to be learnt of it."""
    groups = sample_groups(policy, Even(), PROBLEMS, n=8, sampling=Sampling(max_tokens=6))
    rewards, valid = rewards_of(groups)
    rollouts = Rollouts(groups=groups, modes=["think"] * len(groups))
    return lessons_of(learner, rollouts, rewards, valid, Moment(0, 0, 1.0, None)), groups


def gradients(learner, found):
    """By name, of the loss of all lessons."""
    old, weights = old_and_weights(learner, found.lessons)
    tokens = sum(lesson.example.num_learnt for lesson in found.lessons)
    noted = gradient(learner, found.lessons, old, weights, Counts(tokens, len(found.lessons), tokens))
    named = learner.own.trained.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}, noted


def learner_of(policy, tuning=None, **settings):
    settings = PolicyGradient(**{**FEW, **settings})
    return make_learner(settings, method_of(settings), policy, Even(), own=Learner(policy, tuning))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt-neox"])
def test_the_gradient_on_another_family_is_that_of_a_plain_loop(family):
    policy = policy_of(family)
    learner = learner_of(policy)
    found, groups = lessons(learner, policy)
    told, noted = gradients(learner, found)
    model, total, entropy, tokens = policy.model, 0.0, 0.0, 0
    for group in groups:
        rewards = torch.tensor([[t.reward.value for t in group.trajectories]])
        for trajectory, advantage in zip(group.trajectories, group_centred(rewards)[0], strict=True):
            if advantage == 0:
                continue
            prompt, said = policy.prompt_ids(group.problem), trajectory.completion
            ids = torch.tensor([prompt + said.tokens])
            logprobs = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            now = logprobs.gather(1, torch.tensor(said.tokens)[:, None])[:, 0]
            ratio = (now - torch.tensor(said.logprobs)).exp()
            total = total - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage).sum()
            entropy -= (logprobs.exp() * logprobs).sum().item()
            tokens += len(said.tokens)
    model.zero_grad()
    (total / tokens).backward()
    assert told
    for name, parameter in model.named_parameters():
        assert torch.allclose(told[name], parameter.grad, atol=1e-5), name
    assert sum(one.entropy for one in noted) == pytest.approx(entropy / tokens, rel=1e-4)


def test_adapters_get_what_the_chain_rule_makes_of_the_gradient_of_the_weights():
    full, adapted = policy_of("llama"), policy_of("llama")
    whole, low = learner_of(full), learner_of(adapted, Tuning(lora=3, lora_alpha=12.0))
    of_weights, _ = gradients(whole, lessons(whole, full)[0])
    of_adapters, _ = gradients(low, lessons(low, adapted)[0])
    state = dict(low.own.model.named_parameters())
    assert all(".lora_" in name for name in of_adapters)
    seen = 0
    for name, found in of_adapters.items():
        if ".lora_B." in name:
            base = name.replace(".lora_B.default", "")
            a = state[name.replace(".lora_B.", ".lora_A.")]
            # Of W + (alpha / rank) B A at B = 0.
            assert torch.allclose(found, 4.0 * of_weights[base] @ a.T, atol=1e-5), name
            seen += 1
        else:
            assert not found.any()
    assert seen == 14


@pytest.mark.parametrize("make", [lambda: policy(), lambda: policy_of("qwen2"), lambda: policy_of("gpt-neox")])
def test_only_adapters_learn_and_the_sampler_writes_with_the_merged_weights(make, tmp_path):
    before = copy.deepcopy(make().model)
    learner, rows = learn(tmp_path, Learner(make(), Tuning(lora=4)), steps=4, lr_other=0.02, max_tokens=1)
    model, writes = learner.own.model, learner.policy.model
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before.state_dict()[name.replace(".base_layer", "")]), name
    assert any(p.any() for n, p in model.named_parameters() if ".lora_B." in n)
    # The reference is the start, and no second copy of it.
    start, frozen = dict(learner.reference.named_parameters()), dict(model.named_parameters())
    assert all(torch.equal(p, before.state_dict()[name]) for name, p in start.items())
    shared = {p.data_ptr() for p in frozen.values()}
    assert {p.data_ptr() for p in start.values()} <= shared
    # Every batch is of the weights as they are: the trainer says of it what the sampler said.
    assert len(rows) == 4
    assert all(row["ratio_off"] < 1e-4 for row in rows)
    assert any(not torch.equal(a, b) for a, b in zip(writes.parameters(), before.parameters(), strict=True))
    merged = merged_weights(model)
    assert all(torch.equal(p, merged[name]) for name, p in writes.state_dict().items())


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(lora=4)], ids=["full", "lora"])
def test_recomputed_activations_give_the_same_gradient(tuning):
    keep, again = policy_of("llama"), policy_of("llama")
    kept = learner_of(keep, tuning)
    recomputed = learner_of(again, Tuning(lora=tuning.lora, gradient_checkpointing=True))
    calls = []
    recomputed.own.model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    one, _ = gradients(kept, lessons(kept, keep)[0])
    found, _ = lessons(recomputed, again)
    calls.clear()
    other, _ = gradients(recomputed, found)
    assert len(calls) == 2
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_nothing_drops_out_while_activations_are_computed_again():
    config = OPTConfig(
        vocab_size=1051, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, dropout=0.5,
        max_position_embeddings=64, word_embed_proj_dim=32,
    )  # fmt: skip
    model, ids = OPTForCausalLM(config).eval(), torch.arange(3, 12)[None]
    plain = model(input_ids=ids, use_cache=False).logits
    with recomputing(model, Tuning(gradient_checkpointing=True)):
        again = model(input_ids=ids, use_cache=False).logits
    assert torch.allclose(plain, again, atol=1e-6)
    assert torch.allclose(model(input_ids=ids, use_cache=False).logits, plain)


def test_bf16_learns_and_its_distance_from_the_sampler_is_told(tmp_path):
    learner, rows = learn(tmp_path, Learner(policy_of("llama"), Tuning(precision="bf16")), task=Even(), steps=3)
    assert {p.dtype for p in learner.policy.model.parameters()} == {torch.float32}
    assert all(1e-4 < row["ratio_off"] < 0.5 for row in rows)
    assert all(0.0 < row["sampler_kl"] < 0.01 for row in rows)


def test_bf16_is_that_of_the_library():
    policy = policy_of("llama")
    learner = learner_of(policy, Tuning(precision="bf16"))
    found, _ = lessons(learner, policy)
    rough, _ = gradients(learner, found)
    exact, _ = gradients(learner_of(policy), found)
    for name, one in rough.items():
        assert one.dtype == torch.float32
        assert (one - exact[name]).norm() < 0.2 * exact[name].norm() + 1e-6, name
        assert not torch.equal(one, exact[name]) or not exact[name].any()


@pytest.mark.parametrize("lora", [0, 4])
def test_the_average_that_is_saved_is_that_of_a_slow_loop(lora, tmp_path, monkeypatch):
    seen = []
    count = Learner.count_update
    monkeypatch.setattr(Learner, "count_update", lambda self: (seen.append(self.weights()), count(self))[1])
    who = Learner(policy_of("llama"), Tuning(lora=lora, ema=0.3, optimizer="adamw"))
    expected = who.weights()
    learn(tmp_path, who, steps=5, lr_other=0.05, task=Even())
    assert len(seen) == 5
    for number, weights in enumerate(seen, start=1):
        decay = min(0.3, (1 + number) / (10 + number))
        expected = {name: decay * e + (1 - decay) * weights[name] for name, e in expected.items()}
    assert all(torch.allclose(p, expected[name], atol=1e-5) for name, p in who.weights().items())
    assert any((expected[name] - last).abs().max() > 1e-3 for name, last in seen[-1].items())
    merged = merged_weights(who.model) if lora else who.model.state_dict()
    assert all(torch.equal(p, merged[name]) for name, p in who.policy.model.state_dict().items())


def chance(policy):
    """Exact mean probability that the one token is right."""
    right = torch.tensor([HALF.verify(PROBLEMS[0], policy.decode((t,))).right for t in range(len(policy.tokenizer))])
    ids = [torch.tensor([policy.prompt_ids(problem)]) for problem in PROBLEMS]
    with torch.no_grad():
        found = [policy.model(input_ids=one).logits[0, -1].double().softmax(-1)[right].sum() for one in ids]
    return float(sum(found) / len(found))


@pytest.mark.parametrize("tuning", [Tuning(optimizer="adamw"), Tuning(lora=4)], ids=["full", "lora"])
def test_a_model_of_another_family_learns(tuning, tmp_path):
    who = Learner(policy_of("llama"), tuning)
    before = chance(who.policy)
    learn(tmp_path, who, steps=12, group_size=32, lr_other=0.03, max_tokens=1)
    assert chance(who.policy) > before + 0.2


METHODS = (
    {"algorithm": "ppo"},
    {"algorithm": "ppo", "critic": CriticSettings(body="own")},
    {"algorithm": "vineppo"},
    {"algorithm": "tree", "tree": TreeSettings(strategy="mcts:iterations=8,width=2", step_tokens=2)},
    {"algorithm": "prime"},
    {"algorithm": "remax"},
    {"entropy_bonus": 0.1, "kl": "k3-loss"},
)


@pytest.mark.parametrize("settings", METHODS)
def test_other_methods_work_on_another_family_with_adapters(settings, tmp_path):
    steps = StepSettings(ends=("1", "2", "3"), rollouts=2)
    who = Learner(policy_of("qwen2", ends=7.0), Tuning(lora=2))
    before = copy.deepcopy(who.policy.model)
    _, rows = learn(tmp_path, who, task=Even(), step_credit=steps, lr_other=0.01, watch=2, **settings)
    assert rows[0]["ratio_off"] < 1e-4
    assert all(torch.isfinite(p).all() for p in who.policy.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(who.policy.model.parameters(), before.parameters(), strict=True))


def rl_config(checkpoint, out, **changes):
    settings = PolicyGradient(**{"steps": 1, "problems": 2, "group_size": 2, "max_tokens": 4, **changes.pop("s", {})})
    return RLConfig(checkpoint=checkpoint, out=out, task=SPEC, settings=settings, held_out=1, **changes)


def test_a_run_on_a_hugging_face_directory_can_be_loaded_and_continued(tmp_path):
    start = saved(tmp_path / "start", "qwen2")
    assert rl_main(rl_config(start, tmp_path / "one", tuning=Tuning(lora=2), s={"reward": ("repetition",)})) == 0
    checkpoint = tmp_path / "one" / "checkpoints" / "rl"
    assert (checkpoint / ADAPTER / "adapter_model.safetensors").is_file()
    again = load_transformers_policy(checkpoint)
    library = AutoModelForCausalLM.from_pretrained(checkpoint)
    pairs = list(zip(again.model.parameters(), library.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    loaded = load_learner(tmp_path / "one", Tuning(), mode="think", seed=0)
    assert isinstance(loaded.policy, TransformersPolicy)
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), library.parameters(), strict=True))
    assert rl_main(rl_config(tmp_path / "one", tmp_path / "two", tuning=Tuning(optimizer="adamw", ema=0.9))) == 0
    assert not (tmp_path / "two" / "checkpoints" / "rl" / ADAPTER).exists()


REFUSED = [
    ({"direct": 0.5}, "direct"),
    ({"algorithm": "ppo", "critic": CriticSettings(body="own")}, "class of the model"),
]


@pytest.mark.parametrize(("settings", "what"), REFUSED)
def test_what_another_family_cannot_do_is_refused_before_anything_is_written(settings, what, tmp_path):
    start = saved(tmp_path / "start", "gpt-neox")
    with pytest.raises(InvalidValue, match=what) as told:
        rl_main(rl_config(start, tmp_path / "out", s=settings))
    assert told.value.accepted
    assert told.value.advice
    assert not (tmp_path / "out").exists()


def other_words():
    """A tokenizer of a few words, with a chat format."""
    words = Tokenizer(WordLevel({"[UNK]": 0, "[END]": 1, "make": 2, "from": 3, "says": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[END]")
    tokenizer.chat_template = tokenizer_of().chat_template
    return tokenizer


def test_rewards_and_references_of_another_vocabulary_are_refused(tmp_path):
    start = saved(tmp_path / "start", "llama")
    other = tmp_path / "other"
    model_of("llama", vocab_size=5, eos_token_id=1, pad_token_id=0).save_pretrained(other)
    other_words().save_pretrained(other)
    for settings in (
        {"reference": other},
        {"reward": (f"model:{other}",)},
        {"step_credit": StepSettings(process=other)},
    ):
        with pytest.raises(InvalidValue, match=r"vocabulary|tokens"):
            rl_main(rl_config(start, tmp_path / "out", s=settings))
        assert not (tmp_path / "out").exists()


def test_a_model_whose_logits_are_more_than_a_product_is_refused():
    model = model_of("llama")
    check_head(model)
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(InvalidValue, match="class of the model"):
        check_head(model)
    scaled = model_of("llama")
    scaled.register_forward_hook(lambda model, given, out: out.__setitem__("logits", 2.0 * out.logits))
    with pytest.raises(InvalidValue, match="class of the model"):
        check_head(scaled)


def sft_config(checkpoint, out, **changes):
    settings = Sft(steps=3, rows=4, wider=0.0, lr_other=0.02)
    return SftConfig(checkpoint=checkpoint, out=out, task=SPEC, settings=settings, held_out=1, **changes)


def test_solutions_are_learnt_by_another_family(tmp_path):
    start = saved(tmp_path / "start", "llama", context=140)
    tuning = Tuning(lora=2, gradient_checkpointing=True)
    assert sft_main(sft_config(start, tmp_path / "out", tuning=tuning)) == 0
    rows = RunDirectory(tmp_path / "out").metrics("sft")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_fine_tuning_refuses_tokens_that_cannot_say_a_solution_and_a_short_context(tmp_path):
    task, settings = Countdown(count=2, high=20, target_high=60), Sft(rows=4)
    problems = task.problems("train", 8, 0)
    check_writes(policy_of("llama", context=140), task, problems, settings, 0)
    mute = TransformersPolicy(model_of("llama", context=140), other_words())
    with pytest.raises(InvalidValue, match="whose tokens say"):
        check_writes(mute, task, problems, settings, 0)
    with pytest.raises(InvalidValue, match="length of an example"):
        check_writes(policy_of("llama", context=24), task, problems, settings, 0)


def test_modes_of_a_chat_format_that_has_them_are_kept():
    from clew.initialize.chat import CHAT_TEMPLATE

    ours, theirs = policy(), TransformersPolicy(model_of("llama"), tokenizer_of(CHAT_TEMPLATE))
    question = Problem("q", "q", (Message("user", "make 3 from 1 2"),))
    for mode in ("think", "direct"):
        assert theirs.prompt_ids(question, mode) == ours.prompt_ids(question, mode)
    assert theirs.prompt_ids(question, "think") != theirs.prompt_ids(question, "direct")
    assert isinstance(ours, LocalPolicy)
    words = "answer 1 + 2"
    assert theirs.decode(theirs.response_ids(words)) == ours.decode(ours.response_ids(words)) == words


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor):
                self.most = max(self.most, one.numel())
        return made


@pytest.mark.parametrize("make", [lambda: policy(), lambda: policy_of("llama"), lambda: policy_of("gpt-neox")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_of_a_whole_batch_are_never_made(make, precision, monkeypatch):
    from clew.models import any_backbone, chunked_logprobs, forward

    who = make()
    learner = learner_of(who, Tuning(precision=precision))
    found, _ = lessons(learner, who)
    exact, _ = gradients(learner, found)
    tokens = sum(lesson.example.num_learnt for lesson in found.lessons)
    vocabulary = who.model.config.vocab_size
    monkeypatch.setattr(chunked_logprobs, "CHUNK_BYTES", 4 * 4 * vocabulary)
    for module in (any_backbone, forward):
        monkeypatch.setattr(module, "worth_chunking", lambda tokens, vocabulary: True)
    with Largest() as largest:
        chunked, _ = gradients(learner, found)
    assert largest.most < tokens * vocabulary / 2
    close = 0.0 if precision == "fp32" else 0.02
    for name, one in chunked.items():
        assert (one - exact[name]).norm() <= (1e-5 + close) * exact[name].norm() + 1e-6, name


LARGE = """
import resource, sys
import torch
torch.set_num_threads(1)
from open_weights import policy_of
from clew.learn.batch import Example
from clew.models import any_backbone
from clew.models.chunked_logprobs import ChunkedLogProbs
from clew.models.tuning import Tuning
from clew.recipes.learner import Learner
from clew.recipes.rl_algorithms import method_of
from clew.recipes.rl_credit import Lesson
from clew.recipes.rl_learner import make_learner
from clew.recipes.rl_losses import Counts
from clew.recipes.rl_settings import PolicyGradient
from clew.recipes.rl_update import gradient

def held(model, hidden, targets):
    logprobs = model.lm_head(hidden).float().log_softmax(-1)
    return ChunkedLogProbs(logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1))

if sys.argv[1] == "held":
    any_backbone.logprobs_of_states = held
policy = policy_of("llama", vocab_size=49152, num_hidden_layers=1)
settings = PolicyGradient()
learner = make_learner(settings, method_of(settings), policy, None, own=Learner(policy, Tuning(lora=2)))
ids = torch.arange(15 * 48).view(15, 48).tolist()
lessons = [
    Lesson(
        example=Example(prompt_ids=(5, 6), response_ids=row, logprobs=[-10.8] * len(row)),
        advantages=torch.full((len(row),), float(at % 2) - 0.5),
        group=at,
    )
    for at, row in enumerate(ids)
]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
gradient(learner, lessons, [torch.tensor(one.example.logprobs) for one in lessons], None, Counts(720, 15, 720))
print(peak() - before)
"""


@pytest.mark.slow
def test_the_memory_of_an_update_with_a_large_vocabulary_is_that_of_a_chunk():
    """720 tokens of 49,152: 135 MiB of logits, of which a plain pass holds several copies."""
    grown = {}
    for way in ("chunked", "held"):
        command = [sys.executable, "-c", LARGE, way]
        told = subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE, text=True)
        grown[way] = float(told.stdout.split()[-1])
    print(grown)
    assert grown["chunked"] < 0.6 * grown["held"]
    assert grown["chunked"] < 4 * 64 + 32
