"""Run in an environment with Google's own clients: ask the test server what our backends ask, and print the answers.

Usage: ``python google_client.py gemini|vertex TARGET KEY MODEL EMBED_MODEL``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc


def gemini(channel: grpc.Channel, key: str, model: str, embed_model: str) -> dict[str, Any]:
    from google.ai import generativelanguage_v1beta as api  # type: ignore[import-not-found,import-untyped,unused-ignore]  # there alone

    transport = api.services.generative_service.transports.GenerativeServiceGrpcTransport(channel=channel)
    client = api.GenerativeServiceClient(transport=transport)
    metadata = [("x-goog-api-key", key)]
    request = api.GenerateContentRequest(
        model=model,
        contents=[{"role": "user", "parts": [{"text": "count, please"}]}],
        system_instruction={"parts": [{"text": "be short"}]},
        generation_config={"max_output_tokens": 4, "response_logprobs": True, "logprobs": 1, "seed": 7},
    )
    streamed = list(client.stream_generate_content(request=request, metadata=metadata))
    whole = client.generate_content(request=request, metadata=metadata)
    texts = [{"model": embed_model, "content": {"parts": [{"text": text}]}} for text in ("a b", "c")]
    embedded = client.batch_embed_contents(request={"model": embed_model, "requests": texts}, metadata=metadata)
    counted = client.count_tokens(request={"model": model, "generate_content_request": request}, metadata=metadata)
    return _answers(streamed, whole, [list(each.values) for each in embedded.embeddings], counted.total_tokens)


def vertex(channel: grpc.Channel, key: str, model: str, embed_model: str) -> dict[str, Any]:
    from google.cloud import aiplatform_v1 as api  # type: ignore[import-not-found,import-untyped,unused-ignore]  # there alone

    services = api.services
    metadata = [("authorization", f"Bearer {key}")]
    client = api.PredictionServiceClient(
        transport=services.prediction_service.transports.PredictionServiceGrpcTransport(channel=channel)
    )
    counter = api.LlmUtilityServiceClient(
        transport=services.llm_utility_service.transports.LlmUtilityServiceGrpcTransport(channel=channel)
    )
    contents = [{"role": "user", "parts": [{"text": "count, please"}]}]
    system = {"parts": [{"text": "be short"}]}
    request = api.GenerateContentRequest(
        model=model,
        contents=contents,
        system_instruction=system,
        generation_config={"max_output_tokens": 4, "response_logprobs": True, "logprobs": 1, "seed": 7},
    )
    streamed = list(client.stream_generate_content(request=request, metadata=metadata))
    whole = client.generate_content(request=request, metadata=metadata)
    instances = [{"content": text} for text in ("a b", "c")]
    predicted = client.predict(
        endpoint=embed_model, instances=instances, parameters={"autoTruncate": False}, metadata=metadata
    )
    vectors = [[float(value) for value in each["embeddings"]["values"]] for each in predicted.predictions]
    counted = counter.count_tokens(
        request={"endpoint": model, "model": model, "contents": contents, "system_instruction": system},
        metadata=metadata,
    )
    return _answers(streamed, whole, vectors, counted.total_tokens)


def _answers(streamed: list[Any], whole: Any, vectors: list[list[float]], tokens: int) -> dict[str, Any]:
    last = streamed[-1]
    logprobs = streamed[0].candidates[0].logprobs_result
    return {
        "pieces": [each.candidates[0].content.parts[0].text for each in streamed],
        "whole": whole.candidates[0].content.parts[0].text,
        "finish": last.candidates[0].finish_reason.name,
        "usage": [last.usage_metadata.prompt_token_count, last.usage_metadata.candidates_token_count],
        "logprobs": [logprobs.chosen_candidates[0].log_probability, logprobs.top_candidates[0].candidates[0].token],
        "model": last.model_version,
        "vectors": vectors,
        "tokens": tokens,
    }


def main() -> None:
    which, target, key, model, embed_model = sys.argv[1:]
    with grpc.insecure_channel(target) as channel:
        ask = {"gemini": gemini, "vertex": vertex}[which]
        print(json.dumps(ask(channel, key, model, embed_model)))


if __name__ == "__main__":
    main()
