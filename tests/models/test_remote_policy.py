"""A remote policy against a real HTTP server on this machine, asked by the real client."""

from __future__ import annotations

import json
import random
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clew.core.errors import ClewError
from clew.core.protocols import Prompt
from clew.core.types import FinishReason, Message, Outcome, Problem, Sampling, State, Verdict
from clew.search import MajorityVote, run_searches

pytest.importorskip("openai", reason="the extra `remote` is not installed")

from clew.models.remote_policy import RemotePolicy, chatml

PROBLEM = Problem("p", "toy", (Message("user", "count"),))


class Server(BaseHTTPRequestHandler):
    """Says `one two three. four five.` one word a token, from wherever the prompt left off, then ends."""

    words = ("one", " two", " three", ".", " four", " five", ".")
    logprobs = True
    protocol_version = "HTTP/1.0"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = asked["prompt"].partition("<|im_start|>assistant\n")[2]
        at = next(i for i in range(len(self.words) + 1) if "".join(self.words[:i]) == said)
        given, reason, stop = [], "stop", None
        while at < len(self.words):
            if len(given) == asked["max_tokens"]:
                reason = "length"
                break
            given.append(self.words[at])
            at += 1
            stop = next((s for s in asked.get("stop") or () if s in given[-1]), None)
            if stop:
                break
        noise = random.Random(asked["seed"])
        logprobs = {"tokens": given, "token_logprobs": [-noise.random() for _ in given]} if self.logprobs else None
        choice = {"index": 0, "text": "".join(given), "finish_reason": reason, "stop_reason": stop}
        read = len(asked["prompt"].split())
        body = {
            "id": "x",
            "object": "text_completion",
            "created": 0,
            "model": asked["model"],
            "choices": [{**choice, "logprobs": logprobs}],
            "usage": {"prompt_tokens": read, "completion_tokens": len(given), "total_tokens": read + len(given)},
        }
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextmanager
def serving(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def policy_at(url):
    policy = RemotePolicy(url, "counter", api_key="none")
    try:
        yield policy
    finally:
        policy.client.close()


def test_steps_join_to_the_whole_and_ends_are_told_apart():
    with serving(Server) as url, policy_at(url) as policy:
        root = State(PROBLEM)
        [whole] = policy.sample([Prompt(root, 1)], Sampling(max_tokens=50))
        assert whole.finish is FinishReason.STOP
        assert policy.text(root.extend(whole)) == "one two three. four five."
        state, finishes = root, []
        for _ in range(3):
            [step] = policy.sample([Prompt(state, 1)], Sampling(max_tokens=50, step_ends=(".",)))
            finishes.append(step.finish)
            state = state.extend(step)
        assert finishes == [FinishReason.STEP, FinishReason.STEP, FinishReason.STOP]
        assert state.tokens == whole.tokens
        [cut] = policy.sample([Prompt(root, 1)], Sampling(max_tokens=2))
        assert (cut.finish, cut.tokens) == (FinishReason.LENGTH, whole.tokens[:2])


def test_costs_and_logprobs_are_the_servers():
    with serving(Server) as url, policy_at(url) as policy:
        [first, other] = policy.sample([Prompt(State(PROBLEM), 1), Prompt(State(PROBLEM), 2)], Sampling(max_tokens=3))
        assert first.prompt_tokens_read == len(chatml(PROBLEM.prompt).split())
        noise = random.Random(1)
        assert first.logprobs == pytest.approx([-noise.random() for _ in range(3)])
        assert first.logprobs != other.logprobs, "each sample has a seed of its own"


def test_a_server_without_tokens_gives_no_logprobs():
    class Bare(Server):
        logprobs = False

    with serving(Bare) as url, policy_at(url) as policy:
        [whole] = policy.sample([Prompt(State(PROBLEM), 1)], Sampling(max_tokens=50))
        assert whole.logprobs is None
        assert policy.text(State(PROBLEM).extend(whole)) == "one two three. four five."


def test_a_strategy_runs_on_it_unchanged():
    class Judge:
        def verify(self, problem, text):
            return Verdict(Outcome.RIGHT, 1.0, text)

        def extract(self, text):
            return text

    with serving(Server) as url, policy_at(url) as policy:
        [outcome] = run_searches(MajorityVote(n=5, sampling=Sampling(max_tokens=50)), [PROBLEM], policy, task=Judge())
        assert policy.text(outcome.result.chosen) == "one two three. four five."
        assert outcome.cost.model_calls == 5
        assert outcome.cost.tokens_sampled == 5 * 8, "seven words and the end"


def test_nobody_at_home():
    with serving(Server) as url:
        pass
    with policy_at(url) as policy:
        policy.client = policy.client.with_options(max_retries=0)
        with pytest.raises(ClewError, match="did not answer"):
            policy.sample([Prompt(State(PROBLEM), 1)], Sampling(max_tokens=5))
