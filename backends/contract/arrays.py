"""What a router relies on in embeddings, in classifications and in named tensors."""

from __future__ import annotations

from ...core.content import ClassifyInput, EmbedInput, InferInput, Tensor
from ...core.failure import FailureKind
from ...core.request import Task
from ..tensors import to_array
from .suite import MARKER, Suite, failure, on_loop, outcome


class EmbeddingTests(Suite):
    """For backends that `embed`."""

    @on_loop
    async def test_there_is_one_vector_a_text_in_the_order_given(self) -> None:
        texts = self.texts
        given = (await self.backend.embed(EmbedInput(texts), self.context())).vectors
        assert given.dtype == "float32"
        assert len(given.shape) == 2
        assert given.shape[0] == len(texts)
        vectors = to_array(given)
        turned = to_array((await self.backend.embed(EmbedInput(texts[::-1]), self.context())).vectors)
        assert abs(turned[::-1] - vectors).max() <= 0.01 * max(1.0, abs(vectors).max()), "the order is not the texts'"

    @on_loop
    async def test_odd_texts_fail_as_attempts_and_leave_it_whole(self) -> None:
        for texts in ((), (f"{MARKER} \ud800",), (f"{MARKER} " * 20_000,)):
            await outcome(self.backend.embed(EmbedInput(texts), self.context()))
            await self.ask(Task.EMBED)


class ClassificationTests(Suite):
    """For backends that `classify`."""

    @on_loop
    async def test_every_label_has_a_score_for_each_text_in_the_order_given(self) -> None:
        texts = self.texts
        answer = await self.backend.classify(ClassifyInput(texts), self.context())
        assert answer.labels, "there is no label"
        assert len(set(answer.labels)) == len(answer.labels), "a label comes twice"
        assert answer.scores.dtype == "float32"
        assert answer.scores.shape == (len(texts), len(answer.labels))
        scores = to_array(answer.scores)
        turned = await self.backend.classify(ClassifyInput(texts[::-1]), self.context())
        assert turned.labels == answer.labels
        assert abs(to_array(turned.scores)[::-1] - scores).max() <= 0.01 * max(1.0, abs(scores).max())

    @on_loop
    async def test_odd_texts_to_classify_fail_as_attempts_and_leave_it_whole(self) -> None:
        for texts in ((), (f"{MARKER} \ud800",), (f"{MARKER} " * 20_000,)):
            await outcome(self.backend.classify(ClassifyInput(texts), self.context()))
            await self.ask(Task.CLASSIFY)


class InferenceTests(Suite):
    """For backends that `infer`."""

    @on_loop
    async def test_outputs_are_tensors_whose_bytes_fit_their_shapes(self) -> None:
        assert self.tensors is not None, "set `tensors`: the backend can infer, and nobody says with what"
        answer = await self.backend.infer(self.tensors, self.context())
        assert answer.outputs
        for name, tensor in answer.outputs.items():
            assert to_array(tensor, name=name).shape == tuple(tensor.shape)

    @on_loop
    async def test_what_it_tells_of_a_model_is_what_that_takes_and_gives(self) -> None:
        assert self.tensors is not None, "set `tensors`: the backend can infer, and nobody says with what"
        answer = await self.backend.infer(self.tensors, self.context())
        told = self.backend.signature(self.tensors.model)
        self.require_honoured(told is not None, "a model's signature")
        assert told is not None
        for specs, tensors in ((told.inputs, self.tensors.inputs), (told.outputs, answer.outputs)):
            named = {spec.name: spec for spec in specs}
            for name, tensor in tensors.items():
                assert name in named, f"its signature does not name {name!r}"
                assert named[name].dtype == tensor.dtype
                assert len(named[name].shape) in {0, len(tensor.shape)}  # none: any number of axes
                for axis, extent in zip(named[name].shape, tensor.shape, strict=False):
                    assert axis in {None, extent}

    @on_loop
    async def test_odd_tensors_fail_as_attempts_and_leave_it_whole(self) -> None:
        assert self.tensors is not None, "set `tensors`: the backend can infer, and nobody says with what"
        name, tensor = next(iter(self.tensors.inputs.items()))
        odd: list[dict[str, Tensor]] = [
            {},
            {"no-such-input": tensor},
            {name: Tensor("float32", (1 << 40, 1 << 40), b"")},
            {name: Tensor(tensor.dtype, (*tensor.shape, 7), tensor.data)},
            {name: Tensor("no-such-type", tensor.shape, tensor.data)},
        ]
        for inputs in odd:
            await outcome(self.backend.infer(InferInput(self.tensors.model, inputs), self.context()))
            await self.ask(Task.INFER)

    @on_loop
    async def test_a_model_that_it_does_not_have_is_unknown(self) -> None:
        if self.backend.capabilities.models is None or self.tensors is None:
            return
        call = InferInput("no-such-model", self.tensors.inputs)
        assert (
            await failure(self.backend.infer(call, self.context()), "a call to an unknown model")
        ).kind is FailureKind.UNKNOWN_MODEL
